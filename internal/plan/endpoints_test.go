package plan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestForEndpointsThatArePods(t *testing.T) {
	serving := plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Enabled"}, Destination: 1}
	leaving := plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Disabled"}, Destination: -1}
	lie := plannedServer{Server: Server{Weight: 1, State: "Enabled", Reason: "PodNotUsable"}, Destination: -1}
	endpoint := func(change func(*Endpoint)) func(*Snapshot) {
		return func(s *Snapshot) { change(&s.Endpoints[webService][0]) }
	}
	for name, tc := range map[string]struct {
		change  func(*Snapshot)
		want    plannedServer
		wantWhy string
	}{
		"a pod serves": {want: serving},
		"whether it is ready the slice says": {
			change: func(s *Snapshot) { s.Pods[0].Ready = false }, want: serving,
		},
		"not ready": {
			change: endpoint(func(e *Endpoint) { e.Ready = false }),
			want:   plannedServer{Server: serving.Server, Destination: 1, Unready: "the Service says that it is not ready"},
		},
		"terminating, and not ready, and serving": {
			change: endpoint(func(e *Endpoint) { e.Ready, e.Terminating = false, true }),
			want:   leaving, wantWhy: "the Service says that it is being deleted",
		},
		"terminating and published as ready": {
			change: endpoint(func(e *Endpoint) { e.Terminating = true }),
			want:   leaving, wantWhy: "the Service says that it is being deleted",
		},
		"its pod is terminating": {
			change: func(s *Snapshot) { s.Pods[0].Terminating = true },
			want:   leaving, wantWhy: "its pod is being deleted",
		},
		"it has the pod's weight": {
			change: func(s *Snapshot) { s.Pods[0].Annotations["lvs-operator.io/weight"] = "7" },
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 7, State: "Enabled"}, Destination: 7},
		},
		"it is drained with its node": {
			change: func(s *Snapshot) { s.NodeStates = map[string]string{"node-1": "Drained"} },
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Drained"}}, wantWhy: "drained by an annotation of node node-1",
		},
		"it needs no entry of the pool": {
			change: func(s *Snapshot) { s.Pool.Spec.Allow[0].RealServers = nil }, want: serving,
		},
		"it waits for the agent": {
			change: func(s *Snapshot) { s.Prepared = nil },
			want:   plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Enabled", Reason: "NotPrepared"}, Destination: -1},
		},
		"no pod has that UID": {
			change: endpoint(func(e *Endpoint) { e.Pod = "web-0" }), want: lie,
		},
		"the pod has finished":           {change: func(s *Snapshot) { s.Pods[0].Finished = true }, want: lie},
		"the pod has another address":    {change: func(s *Snapshot) { s.Pods[0].Addresses[0] = netip.MustParseAddr("192.168.11.109") }, want: lie},
		"the pod is another namespace's": {change: func(s *Snapshot) { s.Pods[0].Name.Namespace = "blog" }, want: lie},
		"said twice, it is one": {
			change: func(s *Snapshot) {
				s.Endpoints[webService] = append(s.Endpoints[webService], s.Endpoints[webService][0])
			}, want: serving,
		},
		"said twice, once as not ready": {
			change: func(s *Snapshot) {
				again := s.Endpoints[webService][0]
				again.Ready = false
				s.Endpoints[webService] = append(s.Endpoints[webService], again)
			},
			want: plannedServer{Server: serving.Server, Destination: 1, Unready: "the Service says that it is not ready"},
		},
		"said twice, once as terminating": {
			change: func(s *Snapshot) {
				again := s.Endpoints[webService][0]
				again.Terminating = true
				s.Endpoints[webService] = append([]Endpoint{again}, s.Endpoints[webService]...)
			},
			want: leaving, wantWhy: "the Service says that it is being deleted",
		},
		"selected too, its own word counts: it is not ready": {
			change: func(s *Snapshot) {
				selectWeb(&s.VirtualServers[0].Spec)
				s.Pods[0].Ready = false
			}, want: plannedServer{Server: serving.Server, Destination: 1, Unready: "its pod is not ready"},
		},
		"selected too, its own word counts": {
			change: func(s *Snapshot) {
				selectWeb(&s.VirtualServers[0].Spec)
				s.Endpoints[webService][0].Ready = false
				s.Endpoints[webService][0].Ports = nil
			}, want: serving,
		},
	} {
		t.Run(name, func(t *testing.T) {
			pods := []Pod{makePod("web-1", "192.168.11.101"), makePod("web-2", "192.168.11.102")}
			pods[1].Node = "node-2"
			s := serviceSnapshot(pods, endpointOf(&pods[0], http), endpointOf(&pods[1], http))
			if tc.change != nil {
				tc.change(&s)
			}
			desired := mustPlan(t, s)
			tc.want.Why = tc.wantWhy
			got, _ := planned(desired, "192.168.11.101")
			got.Message = ""
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("web-1 (-want +got):\n%s", diff)
			}
			if name == "it waits for the agent" {
				return
			}
			if other, _ := planned(desired, "192.168.11.102"); other.Destination != 1 {
				t.Errorf("web-2 = %+v, want it to serve whatever is wrong with web-1", other)
			}
		})
	}
}

func TestForBareEndpoints(t *testing.T) {
	serving := plannedServer{Server: Server{Weight: 1, State: "Enabled"}, Destination: 1}
	left := func(reason string) plannedServer {
		return plannedServer{Server: Server{Weight: 1, State: "Enabled", Reason: reason}, Destination: -1}
	}
	for name, tc := range map[string]struct {
		address     string
		change      func(*Snapshot)
		want        plannedServer
		wantMessage string
	}{
		"one that the pool allows, with no agent": {address: "192.168.11.150", want: serving},
		"one that the pool does not allow": {
			address: "10.0.0.5", want: left("RealServerNotAllowed"),
			wantMessage: `DirectorPool "default" does not allow endpoint 10.0.0.5 to namespace shop`,
		},
		"a director": {address: "192.168.11.3", want: serving},
		"a director, without the guard": {
			address: "192.168.11.3", change: func(s *Snapshot) { s.Pool.Spec.Guard = v1alpha1.GuardDisabled },
			want: left("RealServerIsDirector"), wantMessage: "endpoint 192.168.11.3 is director lb-2",
		},
		"a VIP":          {address: "192.168.11.200", want: left("RealServerNotAllowed"), wantMessage: "endpoint 192.168.11.200 is a VIP of this VirtualServer"},
		"a loopback one": {address: "127.0.0.1", want: left("RealServerNotAllowed"), wantMessage: "no ordinary unicast address"},
		"the sorry server": {
			address: "192.168.11.150",
			change: func(s *Snapshot) {
				s.VirtualServers[0].Spec.SorryServer = &v1alpha1.SorryServer{Address: "192.168.11.150"}
			},
			want: left("RealServerNotAllowed"), wantMessage: "endpoint 192.168.11.150 is the sorry server",
		},
		"an address of the node's own": {
			address: "192.168.11.4", change: func(s *Snapshot) { s.Reach = routed },
			want: left("RealServerIsDirector"), wantMessage: "192.168.11.4 is an address of the director's own node",
		},
		"not ready": {
			address: "192.168.11.150", change: func(s *Snapshot) { s.Endpoints[webService][0].Ready = false },
			want: plannedServer{Server: serving.Server, Destination: 1, Unready: "the Service says that it is not ready"},
		},
		"drained by the VirtualServer": {
			address: "192.168.11.150",
			change: func(s *Snapshot) {
				s.VirtualServers[0].Annotations = map[string]string{"lvs-operator.io/drained-servers": "192.168.11.150"}
			},
			want: plannedServer{Server: Server{Weight: 1, State: "Drained", Why: "drained by an annotation of the VirtualServer"}},
		},
		"one that is a pod too is held to what the pod is": {
			address: "192.168.11.101",
			change: func(s *Snapshot) {
				selectWeb(&s.VirtualServers[0].Spec)
				s.VirtualServers[0].Spec.ServiceName = "web"
				s.Pods = []Pod{makePod("web-1", "192.168.11.101")}
			},
			want: plannedServer{Server: Server{Pod: "web-1", Weight: 1, State: "Enabled", Reason: "NotPrepared"}, Destination: -1}, wantMessage: "no agent",
		},
		"one that is written down too is as it is written down": {
			address: "192.168.11.135",
			change: func(s *Snapshot) {
				weight := int32(9)
				s.VirtualServers[0].Spec.RealServers = []v1alpha1.RealServer{{Address: "192.168.11.135", Weight: &weight}}
				s.Endpoints[webService][0].Ports = nil
				s.Endpoints[webService][0].Terminating = true
			},
			want: plannedServer{Server: Server{Weight: 9, State: "Enabled"}, Destination: 9},
		},
		"a pod that is written down too is as it is written down": {
			address: "192.168.11.135",
			change: func(s *Snapshot) {
				s.VirtualServers[0].Spec.RealServers = []v1alpha1.RealServer{{Address: "192.168.11.135"}}
				pod := makePod("web-1", "192.168.11.135")
				pod.Terminating, pod.Annotations["lvs-operator.io/weight"] = true, "x"
				s.Pods = []Pod{pod}
				s.Endpoints[webService][0].Pod = pod.UID
			},
			want: serving,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serviceSnapshot(nil, endpointAt(tc.address, http), endpointAt("192.168.11.151", http))
			if tc.change != nil {
				tc.change(&s)
			}
			desired := mustPlan(t, s)
			got, _ := planned(desired, tc.address)
			if !strings.Contains(got.Message, tc.wantMessage) || (got.Message == "") != (tc.want.Reason == "") {
				t.Errorf("message %q, want one with %q", got.Message, tc.wantMessage)
			}
			got.Message = ""
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("the endpoint (-want +got):\n%s", diff)
			}
			if other, _ := planned(desired, "192.168.11.151"); other.Destination != 1 {
				t.Errorf("the other endpoint = %+v, want it to serve", other)
			}
		})
	}
}

func TestForEndpointsOfOtherServicesAndFamilies(t *testing.T) {
	s := serviceSnapshot(nil, endpointAt("fd00:11::150", http), Endpoint{Ready: true})
	s.Endpoints[types.NamespacedName{Namespace: "shop", Name: "db"}] = []Endpoint{endpointAt("192.168.11.150", http)}
	s.Endpoints[types.NamespacedName{Namespace: "blog", Name: "web"}] = []Endpoint{endpointAt("192.168.11.151", http)}
	if desired := mustPlan(t, s); len(desired.Servers) > 0 {
		t.Errorf("servers = %v, want none", desired.Servers)
	}
}

func TestForServicePorts(t *testing.T) {
	tcp := func(name string, number uint16) EndpointPort {
		return EndpointPort{Name: name, Protocol: netstate.TCP, Number: number}
	}
	udp := EndpointPort{Protocol: netstate.UDP, Number: 80}
	for name, tc := range map[string]struct {
		port  v1alpha1.Port
		ports []EndpointPort
		// wantMessage is empty if the endpoint serves.
		wantMessage string
	}{
		"by number":                              {port: v1alpha1.Port{Port: 80}, ports: []EndpointPort{tcp("", 80)}},
		"by number, though it has a name":        {port: v1alpha1.Port{Port: 80}, ports: []EndpointPort{tcp("metrics", 9090), tcp("http", 80)}},
		"by name":                                {port: v1alpha1.Port{Port: 80, Name: "http"}, ports: []EndpointPort{tcp("http", 80), tcp("alt", 8080)}},
		"by number, for want of the name":        {port: v1alpha1.Port{Port: 80, Name: "http"}, ports: []EndpointPort{tcp("web", 80)}},
		"all ports":                              {port: v1alpha1.Port{Port: 80}, ports: []EndpointPort{tcp("", 0)}},
		"all ports, by name":                     {port: v1alpha1.Port{Port: 80, Name: "http"}, ports: []EndpointPort{tcp("http", 0)}},
		"by number, the name is of another kind": {port: v1alpha1.Port{Port: 80, Name: "http"}, ports: []EndpointPort{{Name: "http", Protocol: netstate.UDP, Number: 81}, tcp("web", 80)}},
		"another number": {
			port: v1alpha1.Port{Port: 80}, ports: []EndpointPort{tcp("http", 8080)},
			wantMessage: "the Service sends to port 8080/TCP (http), and clients connect to 80/TCP",
		},
		"the name has another number, whoever has the number": {
			port: v1alpha1.Port{Port: 80, Name: "http"}, ports: []EndpointPort{tcp("alt", 80), tcp("http", 8080)},
			wantMessage: "the Service sends to port 8080/TCP (http), and",
		},
		"several others, in order": {
			port: v1alpha1.Port{Port: 80}, ports: []EndpointPort{tcp("b", 8081), tcp("a", 8080), tcp("b", 8081)},
			wantMessage: "port 8080/TCP (a) or 8081/TCP (b), and clients",
		},
		"another protocol": {
			port: v1alpha1.Port{Port: 80}, ports: []EndpointPort{udp},
			wantMessage: "the Service has no TCP port, and clients connect to 80/TCP",
		},
		"of its protocol": {port: v1alpha1.Port{Port: 80, Protocol: "UDP"}, ports: []EndpointPort{tcp("", 81), udp}},
		"none":            {port: v1alpha1.Port{Port: 80}, wantMessage: "the Service has no TCP port"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serviceSnapshot(nil, endpointAt("192.168.11.150", tc.ports...))
			s.VirtualServers[0].Spec.Ports = []v1alpha1.Port{tc.port}
			s.VirtualServers[0].Spec.HealthChecks = []v1alpha1.HealthCheck{{}}
			s.Endpoints[webService][0].Ready = false
			desired := mustPlan(t, s)
			protocol, _ := protocolOf(tc.port.Protocol)
			key := destinationKey(serviceKey("192.168.11.200", 80, protocol), "192.168.11.150")
			server := desired.Servers[key]
			_, serves := desired.State.Destinations[key]
			if serves != (tc.wantMessage == "") || !strings.Contains(server.Message, tc.wantMessage) {
				t.Errorf("serves: %t, %+v, want message %q", serves, server, tc.wantMessage)
			}
			if !serves && (server.Reason != "ServicePortMismatch" || len(desired.Checks) > 0 || len(desired.Unready) > 0) {
				t.Errorf("%+v with %d checks, %d unready, want it left out of all", server, len(desired.Checks), len(desired.Unready))
			}
		})
	}
}

func TestForServicePortsAreJudgedOneByOne(t *testing.T) {
	s := serviceSnapshot(nil, endpointAt("192.168.11.150", http), endpointAt("192.168.11.150", EndpointPort{Name: "tls", Protocol: netstate.TCP, Number: 8443}))
	s.VirtualServers[0].Spec.Ports = []v1alpha1.Port{{Name: "http", Port: 80}, {Name: "tls", Port: 443}}
	desired := mustPlan(t, s)
	want := map[netstate.DestinationKey]netstate.Destination{
		destinationKey(testWeb, "192.168.11.150"): {Method: netstate.DR, Weight: 1},
	}
	if diff := cmp.Diff(want, desired.State.Destinations, byValue...); diff != "" {
		t.Errorf("destinations (-want +got):\n%s", diff)
	}
	if tls := desired.Servers[destinationKey(serviceKey("192.168.11.200", 443, netstate.TCP), "192.168.11.150")]; tls.Reason != "ServicePortMismatch" {
		t.Errorf("on port 443: %+v, want ServicePortMismatch", tls)
	}
}

func TestForAdjacency(t *testing.T) {
	far, near, here := makePod("far", "10.244.31.5"), makePod("near", "192.168.11.110"), makePod("here", "192.168.11.101")
	s := podSnapshot(far, near, here)
	spec := &s.VirtualServers[0].Spec
	spec.RealServers = []v1alpha1.RealServer{{Address: "192.168.11.135"}, {Address: "10.9.0.1"}, {Address: "192.168.11.4"}}
	s.Pool.Spec.Allow[0].RealServers = append(s.Pool.Spec.Allow[0].RealServers, "10.9.0.0/16")
	asked := map[netip.Addr]int{}
	s.Reach = func(addr netip.Addr) (Reach, bool) {
		asked[addr]++
		return routed(addr)
	}
	spec.Ports = append(spec.Ports, v1alpha1.Port{Port: 443})
	s.VirtualServers = append(s.VirtualServers, makeServer("shop", "alt", 1).port(8080, "TCP").spec(selectWeb).obj())
	desired := mustPlan(t, s)
	for address, want := range map[string]string{
		"192.168.11.135": "", "192.168.11.110": "", "192.168.11.101": "",
		"10.244.31.5":  "NotAdjacent 10.244.31.5 is reached by gateway 192.168.11.31; direct routing needs it on a network of the director's own",
		"10.9.0.1":     "NotAdjacent the director has no route to 10.9.0.1; direct routing needs it on a network of the director's own",
		"192.168.11.4": "RealServerIsDirector 192.168.11.4 is an address of the director's own node",
	} {
		got, shown := planned(desired, address)
		if text := strings.TrimSpace(got.Reason + " " + got.Message); !shown || text != want || (got.Destination >= 0) != (want == "") {
			t.Errorf("%s: destination %d, %q, want %q", address, got.Destination, text, want)
		}
	}
	if diff := cmp.Diff([]string{"veth101"}, desired.Links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	for addr, times := range asked {
		if times > 1 {
			t.Errorf("asked %d times for %s", times, addr)
		}
	}
}

// TestForKeepsTheLinksOfThoseThatWaitOrLeave: their connections are to begin at
// once, or go on.
func TestForKeepsTheLinksOfThoseThatWaitOrLeave(t *testing.T) {
	s := podSnapshot(makePod("b", "192.168.11.102"), makePod("a", "192.168.11.101"), makePod("c", "192.168.11.103"))
	s.Pods[0].Terminating = true
	s.Pods[2].Annotations["lvs-operator.io/state"] = "Disabled"
	delete(s.Prepared, "a")
	s.Reach = routed
	if diff := cmp.Diff([]string{"veth101", "veth102", "veth103"}, mustPlan(t, s).Links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}
