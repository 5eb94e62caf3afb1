package plan

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func TestPreparations(t *testing.T) {
	both := makeServer("shop", "web", 0).addresses("192.168.11.200", "fd00:11::200").spec(selectWeb)
	for name, tc := range map[string]struct {
		change func(*Snapshot)
		pod    Pod
		// want are the VIPs of the pod; nil is that nothing is said of it.
		want []string
	}{
		"of its family": {pod: makePod("p", "192.168.11.101"), want: []string{"192.168.11.200"}},
		"of both":       {pod: makePod("p", "fd00:11::101", "192.168.11.101"), want: []string{"192.168.11.200", "fd00:11::200"}},
		"of either family while it has no address": {pod: makePod("p"), want: []string{"192.168.11.200", "fd00:11::200"}},
		"whether or not it is ready": {
			pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.Pods[0].Ready = false }, want: []string{"192.168.11.200"},
		},
		"also while it is being deleted": {
			pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.Pods[0].Terminating = true }, want: []string{"192.168.11.200"},
		},
		"whatever its annotations": {
			pod:    makePod("p", "192.168.11.101"),
			change: func(s *Snapshot) { s.Pods[0].Annotations["lvs-operator.io/weight"] = "x" }, want: []string{"192.168.11.200"},
		},
		"not once it has finished": {pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.Pods[0].Finished = true }},
		"not if nobody selects it": {pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.Pods[0].Labels = nil }},
		"not in another namespace": {pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.Pods[0].Name.Namespace = "blog" }},
		"none in a director's network": {
			pod: makePod("p", "192.168.11.3"), change: func(s *Snapshot) { s.Pods[0].HostNetwork = true }, want: []string{},
		},
		"none in the network of a director's node, without an address yet": {
			pod: makePod("p"), change: func(s *Snapshot) { s.Pods[0].HostNetwork, s.Pods[0].Node = true, "lb-2" }, want: []string{},
		},
		"in the network of another node": {
			pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.Pods[0].HostNetwork = true }, want: []string{"192.168.11.200"},
		},
		"none of a refused VirtualServer": {
			pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.VirtualServers[0].Spec.Scheduler = "best" }, want: []string{},
		},
		"none without a pool": {
			pod: makePod("p", "192.168.11.101"), change: func(s *Snapshot) { s.Pool = nil }, want: []string{},
		},
		"not of one that is being deleted": {
			pod:    makePod("p", "192.168.11.101"),
			change: func(s *Snapshot) { s.VirtualServers[0] = deleting(makeServer("shop", "web", 0).spec(selectWeb)).obj() },
		},
		"of all that select it, each once": {
			pod: makePod("p", "192.168.11.101"),
			change: func(s *Snapshot) {
				s.VirtualServers = append(
					s.VirtualServers,
					makeServer("shop", "late", 3).spec(selectWeb).obj(), // in conflict with the first
					makeServer("shop", "alt", 2).port(8080, "TCP").addresses("192.168.11.200").spec(selectWeb).obj(),
					makeServer("shop", "old", -1).port(81, "TCP").addresses("192.168.11.202", "192.168.11.201").spec(selectWeb).obj(),
				)
			},
			want: []string{"192.168.11.200", "192.168.11.201", "192.168.11.202"},
		},
		"as an endpoint, ready or not": {
			pod: makePod("p", "192.168.11.101"),
			change: func(s *Snapshot) {
				nameOnly(s)
				s.Endpoints[webService] = []Endpoint{{Addr: s.Pods[0].Addresses[0], Pod: "p"}}
			},
			want: []string{"192.168.11.200"},
		},
		"not by an endpoint with another address": {
			pod: makePod("p", "192.168.11.101"),
			change: func(s *Snapshot) {
				nameOnly(s)
				s.Endpoints[webService] = []Endpoint{{Addr: netip.MustParseAddr("192.168.11.102"), Pod: "p"}}
			},
		},
		"not by an endpoint of another namespace": {
			pod: makePod("p", "192.168.11.101"),
			change: func(s *Snapshot) {
				nameOnly(s)
				s.Pods[0].Name.Namespace = "blog"
				s.Endpoints[webService] = []Endpoint{{Addr: s.Pods[0].Addresses[0], Pod: "p"}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := testSnapshot("192.168.11.200", both.obj())
			s.Pods = []Pod{tc.pod}
			if tc.change != nil {
				tc.change(&s)
			}
			vips, told := Preparations(s)["p"]
			if told != (tc.want != nil) {
				t.Fatalf("told of: %t, want %t", told, tc.want != nil)
			}
			got := []string{}
			for _, vip := range vips {
				got = append(got, vip.String())
			}
			if diff := cmp.Diff(tc.want, got); told && diff != "" {
				t.Errorf("VIPs (-want +got):\n%s", diff)
			}
		})
	}
}

// nameOnly has the first VirtualServer name Service web, and select nothing.
func nameOnly(s *Snapshot) {
	spec := &s.VirtualServers[0].Spec
	spec.PodSelector, spec.ServiceName = nil, "web"
	s.Endpoints = map[types.NamespacedName][]Endpoint{}
}

// TestPreparationsAreWhatPlansWaitFor: a pod that has what Preparations says is
// served on every VIP that it can be.
func TestPreparationsAreWhatPlansWaitFor(t *testing.T) {
	pod := makePod("p", "192.168.11.101")
	s := testSnapshot("192.168.11.200",
		makeServer("shop", "a", 0).addresses("192.168.11.200", "192.168.11.201").spec(selectWeb).obj(),
		makeServer("shop", "b", 1).addresses("192.168.11.201", "192.168.11.202").port(81, v1alpha1.ProtocolTCP).spec(nameWeb).obj(),
	)
	s.Pods = []Pod{pod}
	s.Endpoints = map[types.NamespacedName][]Endpoint{webService: {endpointOf(&pod, EndpointPort{Protocol: http.Protocol, Number: 81})}}
	s.Prepared = map[types.UID]Preparation{}
	for uid, vips := range Preparations(s) {
		s.Prepared[uid] = Preparation{PodAddresses: pod.Addresses, VIPs: vips}
	}
	for vip, want := range map[string]int{"192.168.11.200": 1, "192.168.11.201": 2, "192.168.11.202": 1} {
		s.Key.Addr = netip.MustParseAddr(vip)
		if desired := mustPlan(t, s); len(desired.State.Destinations) != want {
			t.Errorf("%d destinations for %s, want %d: %v", len(desired.State.Destinations), vip, want, desired.Servers)
		}
	}
}
