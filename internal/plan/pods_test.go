package plan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestForPods(t *testing.T) {
	annotate := func(name, value string) func(*Snapshot) {
		return func(s *Snapshot) { s.Pods[0].Annotations[name] = value }
	}
	onNode := func(value string) func(*Snapshot) {
		return func(s *Snapshot) { s.NodeStates = map[string]string{"node-1": value, "node-2": "Disabled"} }
	}
	serving := plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Enabled"}, Destination: 1}
	left := func(reason string) plannedServer {
		return plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Enabled", Reason: reason}, Destination: -1}
	}
	for name, tc := range map[string]struct {
		change func(*Snapshot)
		// want leaves out the message, of which wantMessage is a part.
		want        plannedServer
		wantMessage string
	}{
		"a ready pod serves with weight 1": {want: serving},
		"a weight": {
			change: annotate("lvs-operator.io/weight", "65535"),
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 65535, State: "Enabled"}, Destination: 65535},
		},
		"weight 0": {
			change: annotate("lvs-operator.io/weight", "0"),
			want:   plannedServer{Server: Server{Pod: "web-1", State: "Enabled"}},
		},
		"a weight that is too large": {
			change: annotate("lvs-operator.io/weight", "65536"), want: left("PodNotUsable"),
			wantMessage: `annotation lvs-operator.io/weight of pod web-1 is "65536"`,
		},
		"a weight that is none": {
			change: annotate("lvs-operator.io/weight", "two"), want: left("PodNotUsable"), wantMessage: `"two"`,
		},
		"a negative weight": {
			change: annotate("lvs-operator.io/weight", "-1"), want: left("PodNotUsable"), wantMessage: `"-1"`,
		},
		"an empty weight": {
			change: annotate("lvs-operator.io/weight", ""), want: left("PodNotUsable"), wantMessage: `""`,
		},
		"a value of any length is cut short": {
			change: annotate("lvs-operator.io/weight", strings.Repeat("9", 5000)), want: left("PodNotUsable"), wantMessage: `9999": it must be`,
		},
		"drained by its annotation": {
			change: annotate("lvs-operator.io/state", "Drained"),
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Drained", Why: "drained by an annotation of the pod"}},
		},
		"disabled by its annotation": {
			change: annotate("lvs-operator.io/state", "Disabled"),
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Disabled", Why: "disabled by an annotation of the pod"}, Destination: -1},
		},
		"enabled by its annotation": {change: annotate("lvs-operator.io/state", "Enabled"), want: serving},
		"an unknown state": {
			change: annotate("lvs-operator.io/state", "drained"), want: left("PodNotUsable"),
			wantMessage: `annotation lvs-operator.io/state of pod web-1 is "drained": it must be Enabled, Drained or Disabled`,
		},
		"drained by its node": {
			change: onNode("Drained"),
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Drained", Why: "drained by an annotation of node node-1"}},
		},
		"the stricter of pod and node counts": {
			change: func(s *Snapshot) {
				onNode("Disabled")(s)
				annotate("lvs-operator.io/state", "Drained")(s)
			},
			want: plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Disabled", Why: "disabled by an annotation of node node-1"}, Destination: -1},
		},
		"and not the last": {
			change: func(s *Snapshot) {
				onNode("Drained")(s)
				annotate("lvs-operator.io/state", "Disabled")(s)
			},
			want: plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Disabled", Why: "disabled by an annotation of the pod"}, Destination: -1},
		},
		"one that asks for nothing changes nothing": {
			change: func(s *Snapshot) {
				onNode("Enabled")(s)
				annotate("lvs-operator.io/state", "Drained")(s)
			},
			want: plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Drained", Why: "drained by an annotation of the pod"}},
		},
		"all who drain it are named": {
			change: func(s *Snapshot) {
				onNode("Drained")(s)
				annotate("lvs-operator.io/state", "Drained")(s)
				s.VirtualServers[0].Annotations = map[string]string{"lvs-operator.io/drained-servers": "192.168.11.101"}
			},
			want: plannedServer{Server: Server{
				Pod: "web-1", Weight: 1, State: "Drained",
				Why: "drained by an annotation of the pod and an annotation of node node-1 and an annotation of the VirtualServer",
			}},
		},
		"an unknown state of a node takes nothing out and is told of": {
			change: onNode("drain"),
			want: plannedServer{Server: Server{
				Pod: "web-1", Weight: 1, State: "Enabled",
				Why: `annotation lvs-operator.io/state of node node-1 is "drain", and means nothing: it must be Enabled, Drained or Disabled`,
			}, Destination: 1},
		},
		"not ready: it stays, and gets no new connections": {
			change: func(s *Snapshot) { s.Pods[0].Ready = false },
			want:   plannedServer{Server: serving.Server, Destination: 1, Unready: "its pod is not ready"},
		},
		"being deleted: it leaves, however ready": {
			change: func(s *Snapshot) { s.Pods[0].Terminating = true },
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Disabled", Why: "its pod is being deleted"}, Destination: -1},
		},
		"in the network of a director, without an agent": {
			change: func(s *Snapshot) {
				s.Directors[netip.MustParseAddr("192.168.11.101")] = "lb-3"
				delete(s.Prepared, "web-1")
			},
			want: serving,
		},
		"in the network of a director that starts": {
			change: func(s *Snapshot) {
				s.Directors[netip.MustParseAddr("192.168.11.101")] = "lb-3"
				s.Starting = map[string]string{"lb-3": "Starting"}
			},
			want: plannedServer{Server: serving.Server, Destination: 1, Unready: "director lb-3 is not ready: Starting"},
		},
		"in the network of a director, without the guard": {
			change: func(s *Snapshot) {
				s.Directors[netip.MustParseAddr("192.168.11.101")] = "lb-3"
				s.Pool.Spec.Guard = v1alpha1.GuardDisabled
			},
			want: left("RealServerIsDirector"), wantMessage: "pod web-1 has the addresses of director lb-3",
		},
		"in the network of a director by another of its addresses": {
			change: func(s *Snapshot) { s.Pods[0].HostNetwork, s.Pods[0].Node = true, "lb-2" },
			want:   left("RealServerIsDirector"), wantMessage: "lb-2",
		},
		"in the network of another node":            {change: func(s *Snapshot) { s.Pods[0].HostNetwork = true }, want: serving},
		"on a director's node, in its own network":  {change: func(s *Snapshot) { s.Pods[0].Node = "lb-2" }, want: serving},
		"outside of what the pool allows to others": {change: func(s *Snapshot) { s.Pool.Spec.Allow[0].RealServers = nil }, want: serving},
		"its address is a VIP of another": {
			change: func(s *Snapshot) {
				s.VirtualServers = append(s.VirtualServers, makeServer("shop", "alt", -1).port(81, "TCP").addresses("192.168.11.200", "192.168.11.101").obj())
				s.Pool.Spec.Allow[0].Addresses = append(s.Pool.Spec.Allow[0].Addresses, "192.168.11.101")
			},
			want: left("PodNotUsable"), wantMessage: "its address 192.168.11.101 is a VIP of shop/alt",
		},
		"its address is a VIP that came later": {
			change: func(s *Snapshot) {
				s.VirtualServers = append(s.VirtualServers, makeServer("shop", "alt", 1).port(81, "TCP").addresses("192.168.11.200", "192.168.11.101").obj())
				s.Pool.Spec.Allow[0].Addresses = append(s.Pool.Spec.Allow[0].Addresses, "192.168.11.101")
			},
			want: serving,
		},
		"its address is the sorry server's": {
			change: func(s *Snapshot) {
				s.VirtualServers[0].Spec.SorryServer = &v1alpha1.SorryServer{Address: "192.168.11.101"}
			},
			want: left("PodNotUsable"), wantMessage: "the sorry server's",
		},
		"no agent tells of it": {
			change: func(s *Snapshot) { delete(s.Prepared, "web-1") },
			want:   left("NotPrepared"), wantMessage: "no agent on node node-1 tells of it",
		},
		"the agent has given it another VIP only": {
			change: func(s *Snapshot) {
				s.Prepared["web-1"] = Preparation{PodAddresses: s.Pods[0].Addresses, VIPs: []netip.Addr{netip.MustParseAddr("192.168.11.201")}}
			},
			want: left("NotPrepared"), wantMessage: "the agent of node node-1 has not yet given it 192.168.11.200",
		},
		"the agent has prepared another network namespace": {
			change: func(s *Snapshot) {
				s.Prepared["web-1"] = Preparation{PodAddresses: []netip.Addr{netip.MustParseAddr("192.168.11.109")}, VIPs: []netip.Addr{s.Key.Addr}}
			},
			want: left("NotPrepared"), wantMessage: "the network namespace that has 192.168.11.101",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := podSnapshot(makePod("web-1", "192.168.11.101"), makePod("web-2", "192.168.11.102"))
			s.Pods[1].Node = "node-3"
			if tc.change != nil {
				tc.change(&s)
			}
			desired := mustPlan(t, s)
			got, shown := planned(desired, "192.168.11.101")
			if message := got.Message; !shown || (message == "") != (tc.want.Reason == "") || !strings.Contains(message, tc.wantMessage) || len(message) > 200 {
				t.Errorf("message %q, want one with %q", message, tc.wantMessage)
			}
			got.Message = ""
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("web-1 (-want +got):\n%s", diff)
			}
			if other, _ := planned(desired, "192.168.11.102"); other.Destination != 1 || other.Unready != "" {
				t.Errorf("web-2 = %+v, want it to serve whatever is wrong with web-1", other)
			}
		})
	}
}

func TestForPodsThatAreNone(t *testing.T) {
	for name, change := range map[string]func(*Pod){
		"of another namespace":  func(p *Pod) { p.Name.Namespace = "blog" },
		"without the label":     func(p *Pod) { p.Labels = nil },
		"finished":              func(p *Pod) { p.Finished = true },
		"without an address":    func(p *Pod) { p.Addresses = nil },
		"of another family":     func(p *Pod) { p.Addresses = []netip.Addr{netip.MustParseAddr("fd00:11::101")} },
		"with no valid address": func(p *Pod) { p.Addresses = []netip.Addr{{}} },
	} {
		t.Run(name, func(t *testing.T) {
			pod := makePod("web-1", "192.168.11.101")
			change(&pod)
			if desired := mustPlan(t, podSnapshot(pod)); len(desired.Servers) > 0 || len(desired.State.Services) != 1 {
				t.Errorf("servers = %v of %d services, want none of 1", desired.Servers, len(desired.State.Services))
			}
		})
	}
}

func TestForPodAddressesThatCannotServe(t *testing.T) {
	for address, vip := range map[string]string{
		"127.0.0.1":             "192.168.11.200",
		"169.254.169.254":       "192.168.11.200",
		"224.0.0.1":             "192.168.11.200",
		"255.255.255.255":       "192.168.11.200",
		"192.168.11.200":        "192.168.11.200",
		"::ffff:192.168.11.101": "fd00:11::200",
		"fe80::1%eth0":          "fd00:11::200",
		"fd00:11::1%eth0":       "fd00:11::200",
	} {
		t.Run(address, func(t *testing.T) {
			s := podSnapshot(makePod("web-1", address))
			s.Key.Addr = netip.MustParseAddr(vip)
			s.VirtualServers[0].Spec.Addresses = []v1alpha1.IPAddress{v1alpha1.IPAddress(vip)}
			desired := mustPlan(t, s)
			server := desired.Servers[destinationKey(serviceKey(vip, 80, netstate.TCP), address)]
			if server.Reason != "PodNotUsable" || !strings.Contains(server.Message, address) || len(desired.State.Destinations) > 0 {
				t.Errorf("server = %+v with %d destinations, want it left out as PodNotUsable", server, len(desired.State.Destinations))
			}
		})
	}
}

func TestForPodSelectors(t *testing.T) {
	for name, tc := range map[string]struct {
		selector   metav1.LabelSelector
		want       int
		wantReason string
	}{
		"an empty one selects all":   {want: 2},
		"labels":                     {selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, want: 1},
		"expressions":                {selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "DoesNotExist"}}}, want: 1},
		"one that selects nothing":   {selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}},
		"one that cannot be read":    {selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}}, wantReason: "Invalid"},
		"a label that cannot be one": {selector: metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}, wantReason: "Invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			other := makePod("other", "192.168.11.102")
			other.Labels = nil
			s := podSnapshot(makePod("web-1", "192.168.11.101"), other)
			s.VirtualServers[0].Spec.PodSelector = &tc.selector
			desired, rejections := For(s)
			if len(desired.State.Destinations) != tc.want {
				t.Errorf("%d destinations, want %d", len(desired.State.Destinations), tc.want)
			}
			reason := ""
			for _, r := range rejections {
				reason = r.Reason
			}
			if reason != tc.wantReason {
				t.Errorf("rejections = %v, want %q", rejections, tc.wantReason)
			}
		})
	}
}

// TestForPodsOfOneAddress: whichever comes first in the list, the pod that can
// serve is the one that counts.
func TestForPodsOfOneAddress(t *testing.T) {
	for name, spoil := range map[string]func(*Snapshot, *Pod){
		"one is being deleted": func(_ *Snapshot, p *Pod) { p.Terminating = true },
		"one is not ready":     func(_ *Snapshot, p *Pod) { p.Ready = false },
		"one is disabled":      func(_ *Snapshot, p *Pod) { p.Annotations["lvs-operator.io/state"] = "Disabled" },
		"one is not usable":    func(_ *Snapshot, p *Pod) { p.Annotations["lvs-operator.io/weight"] = "x" },
		"one is not prepared":  func(s *Snapshot, p *Pod) { delete(s.Prepared, p.UID) },
		"one has finished":     func(_ *Snapshot, p *Pod) { p.Finished = true },
	} {
		for _, bad := range []int{0, 1} {
			t.Run(name, func(t *testing.T) {
				s := podSnapshot(makePod("web-1", "192.168.11.101"), makePod("web-2", "192.168.11.101"))
				spoil(&s, &s.Pods[bad])
				got, _ := planned(mustPlan(t, s), "192.168.11.101")
				want := plannedServer{Server: Server{Pod: s.Pods[1-bad].Name.Name, Weight: 1, State: "Enabled"}, Destination: 1}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the server (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestForDrainedServersOfTheVirtualServer(t *testing.T) {
	const note = `annotation lvs-operator.io/drained-servers names `
	for text, tc := range map[string]struct {
		drained bool
		note    string
	}{
		"192.168.11.135":                   {drained: true},
		" 192.168.11.1 , 192.168.11.135 ,": {drained: true},
		"::ffff:192.168.11.135":            {drained: true},
		"192.168.11.138":                   {},
		"":                                 {},
		"web-1,192.168.11.135":             {drained: true, note: note + `"web-1", which is no address`},
		"fe80::1%eth0,192.168.11.135:80,10.0.0.0/8": {note: note + `"fe80::1%eth0", which is no address, and 2 more`},
	} {
		t.Run(text, func(t *testing.T) {
			vs := makeServer("shop", "web", 0).obj()
			vs.Annotations = map[string]string{"lvs-operator.io/drained-servers": text}
			got, _ := planned(mustPlan(t, testSnapshot("192.168.11.200", vs)), "192.168.11.135")
			want := plannedServer{Server: Server{Weight: 1, State: "Enabled", Why: tc.note}, Destination: 1}
			if tc.drained {
				want.State, want.Destination, want.Why = "Drained", 0, "drained by an annotation of the VirtualServer"
				if tc.note != "" {
					want.Why += "; " + tc.note
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the server (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForShowsStaticServers(t *testing.T) {
	vs := makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) {
		s.RealServers[0].State = v1alpha1.RealServerDrained
		s.RealServers[1].State = v1alpha1.RealServerDisabled
	}).obj()
	desired := mustPlan(t, testSnapshot("192.168.11.200", vs))
	want := map[netstate.DestinationKey]Server{
		testWeb1: {Weight: 1, State: "Drained", Why: "drained by the spec"},
		testWeb2: {Weight: 2, State: "Disabled", Why: "disabled by the spec"},
	}
	if diff := cmp.Diff(want, desired.Servers, byValue...); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
}
