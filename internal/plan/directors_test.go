package plan

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// unmarked returns the plan as if no service were marked.
func unmarked(d Desired) Desired {
	plain := newDesired(d.Key)
	plain.Links, plain.Local, plain.State.Addresses = d.Links, d.Local, d.State.Addresses
	for k := range d.State.Guard {
		k.Marked = false
		plain.State.Guard[k] = netstate.Present{}
	}
	service := func(k netstate.ServiceKey) netstate.ServiceKey {
		k.Marked = false
		return k
	}
	destination := func(k netstate.DestinationKey) netstate.DestinationKey {
		k.Service = service(k.Service)
		return k
	}
	rename(plain.State.Services, d.State.Services, service)
	rename(plain.Owners, d.Owners, service)
	rename(plain.Policies, d.Policies, service)
	rename(plain.State.Destinations, d.State.Destinations, destination)
	rename(plain.Unready, d.Unready, destination)
	rename(plain.Servers, d.Servers, destination)
	for k, checks := range d.Checks {
		plain.Checks[destination(k)] = checks
	}
	return plain
}

func rename[K comparable, V any](into, from map[K]V, name func(K) K) {
	for k, v := range from {
		into[name(k)] = v
	}
}

func TestForMarksServicesThatADirectorMayServe(t *testing.T) {
	hostNetwork := func(s *Snapshot) { s.Pods[0].HostNetwork = true }
	for name, tc := range map[string]struct {
		change func(*Snapshot)
		want   bool
	}{
		"none is a director": {change: func(*Snapshot) {}},
		"one that is written down is": {
			change: func(s *Snapshot) {
				*s = testSnapshot("192.168.11.200", makeServer("shop", "web", 0).realServers("192.168.11.3").obj())
			},
			want: true,
		},
		"one that is written down is the director itself": {
			change: func(s *Snapshot) {
				*s = testSnapshot("192.168.11.200", makeServer("shop", "web", 0).realServers("192.168.11.2").obj())
			},
			want: true,
		},
		"the sorry server is": {change: func(s *Snapshot) {
			s.VirtualServers[0].Spec.SorryServer = &v1alpha1.SorryServer{Address: "192.168.11.3"}
		}, want: true},
		"an endpoint is": {change: func(s *Snapshot) {
			*s = serviceSnapshot(nil, endpointAt("192.168.11.3", http))
		}, want: true},
		"a pod that may come to a director's node": {change: hostNetwork, want: true},
		"an endpoint that may": {change: func(s *Snapshot) {
			pod := makePod("web-1", "192.168.11.31")
			pod.HostNetwork = true
			*s = serviceSnapshot([]Pod{pod}, endpointOf(&pod, http))
		}, want: true},
		"a pod that is not selected": {change: func(s *Snapshot) {
			hostNetwork(s)
			s.Pods[0].Labels = nil
		}},
		"a pod of another namespace": {change: func(s *Snapshot) {
			hostNetwork(s)
			s.Pods[0].Name.Namespace = "blog"
		}},
		"a pod that has finished": {change: func(s *Snapshot) {
			hostNetwork(s)
			s.Pods[0].Finished = true
		}},
		"without the guard": {change: func(s *Snapshot) {
			hostNetwork(s)
			s.Pool.Spec.Guard = v1alpha1.GuardDisabled
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := podSnapshot(makePod("web-1", "192.168.11.101"), makePod("web-2", "192.168.11.102"))
			tc.change(&s)
			desired := mustPlan(t, s)
			want := testWeb
			want.Marked = tc.want
			if _, served := desired.State.Services[want]; !served || len(desired.State.Services) != 1 {
				t.Errorf("services = %v, want %s alone", desired.State.Services, want)
			}
			guard := netstate.GuardKey{VIP: want.Key.Addr, Protocol: netstate.TCP, Port: 80, Marked: true}
			if _, marks := desired.State.Guard[guard]; marks != tc.want {
				t.Errorf("the guard marks: %t, want %t", marks, tc.want)
			}
		})
	}
}

func TestForMarksNoServiceOfAnother(t *testing.T) {
	s := testSnapshot("192.168.11.200",
		makeServer("shop", "web", 0).realServers("192.168.11.3").obj(),
		makeServer("shop", "alt", 1).port(8080, v1alpha1.ProtocolTCP).obj())
	got := map[string]types.NamespacedName{}
	for service, owner := range mustPlan(t, s).Owners {
		got[service.String()] = owner
	}
	want := map[string]types.NamespacedName{
		"service marked TCP 192.168.11.200:80": {Namespace: "shop", Name: "web"},
		"service TCP 192.168.11.200:8080":      {Namespace: "shop", Name: "alt"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
}

func TestForSendsToDirectorsByTheAnnouncementInterfaceAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		reach  Reach
		reason string
	}{
		"by the announcement interface": {reach: Reach{Link: "eth0"}},
		"itself":                        {reach: Reach{Link: "lo", Local: true}},
		"by another interface":          {reach: Reach{Link: "eth1"}, reason: "NotAdjacent"},
		"by a gateway": {
			reach: Reach{Link: "eth0", Gateway: netip.MustParseAddr("192.168.11.1")}, reason: "NotAdjacent",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).realServers("192.168.11.3").obj())
			s.Reach = func(netip.Addr) (Reach, bool) { return tc.reach, true }
			got, shown := planned(mustPlan(t, s), "192.168.11.3")
			if !shown || got.Reason != tc.reason || (got.Destination < 0) != (tc.reason != "") {
				t.Errorf("the director is %+v, want reason %q", got, tc.reason)
			}
		})
	}
}

func TestForAsksNoOtherDirectorThatStarts(t *testing.T) {
	s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).realServers("192.168.11.2", "192.168.11.3").obj())
	s.Starting = map[string]string{"lb-1": "Starting", "lb-2": "Starting"}
	s.Reach = func(addr netip.Addr) (Reach, bool) {
		return Reach{Link: "eth0", Local: addr == s.Source}, true
	}
	desired := mustPlan(t, s)
	for addr, want := range map[string]string{"192.168.11.2": "", "192.168.11.3": "director lb-2 is not ready: Starting"} {
		if got, _ := planned(desired, addr); got.Unready != want || got.Destination != 1 {
			t.Errorf("%s is %+v, want it unready with %q", addr, got, want)
		}
	}
}
