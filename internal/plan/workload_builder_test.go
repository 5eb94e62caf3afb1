package plan

import (
	"net/netip"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Pods of the tests have addresses from 192.168.11.100 on, in the directors' own
// network, or in 10.244.0.0/16, which the directors reach by a gateway; the pool
// allows none of the latter to anybody.

// makePod returns a ready pod of namespace shop, labelled app=web, on node node-1.
// Its UID is its name.
func makePod(name string, addresses ...string) Pod {
	pod := Pod{
		Name: types.NamespacedName{Namespace: "shop", Name: name}, UID: types.UID(name), Node: "node-1",
		Labels: map[string]string{"app": "web"}, Annotations: map[string]string{}, Ready: true,
	}
	for _, address := range addresses {
		pod.Addresses = append(pod.Addresses, netip.MustParseAddr(address))
	}
	return pod
}

// endpointOf returns a ready endpoint that says it is the pod, on ports.
func endpointOf(pod *Pod, ports ...EndpointPort) Endpoint {
	return Endpoint{Addr: pod.Addresses[0], Pod: pod.UID, Ports: ports, Ready: true, Serving: true}
}

// endpointAt returns a ready endpoint that is no pod, on ports.
func endpointAt(address string, ports ...EndpointPort) Endpoint {
	return Endpoint{Addr: netip.MustParseAddr(address), Ports: ports, Ready: true, Serving: true}
}

var http = EndpointPort{Name: "http", Protocol: netstate.TCP, Number: 80}

var webService = types.NamespacedName{Namespace: "shop", Name: "web"}

// prepareAll has the agents say that each pod has the VIPs of the tests.
func prepareAll(s *Snapshot) {
	s.Prepared = map[types.UID]Preparation{}
	for _, pod := range s.Pods {
		s.Prepared[pod.UID] = Preparation{PodAddresses: pod.Addresses, VIPs: []netip.Addr{
			netip.MustParseAddr("192.168.11.200"), netip.MustParseAddr("192.168.11.201"), netip.MustParseAddr("192.168.11.202"),
			netip.MustParseAddr("fd00:11::200"),
		}}
	}
}

// podSnapshot is the snapshot of a VirtualServer that selects app=web, with these
// pods prepared.
func podSnapshot(pods ...Pod) Snapshot {
	s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).spec(selectWeb).obj())
	s.Pods = pods
	prepareAll(&s)
	return s
}

func selectWeb(s *v1alpha1.VirtualServerSpec) {
	s.RealServers = nil
	s.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
}

// serviceSnapshot is the snapshot of a VirtualServer that names Service web with
// these endpoints, and the pods prepared.
func serviceSnapshot(pods []Pod, endpoints ...Endpoint) Snapshot {
	s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).spec(nameWeb).obj())
	s.Pods = pods
	s.Endpoints = map[types.NamespacedName][]Endpoint{webService: endpoints}
	prepareAll(&s)
	return s
}

func nameWeb(s *v1alpha1.VirtualServerSpec) {
	s.RealServers = nil
	s.ServiceName = "web"
}

// plannedServer is what a plan has of one address on 192.168.11.200:80/TCP.
type plannedServer struct {
	Server
	// Weight in the state; -1 if it is no destination.
	Destination int
	Unready     string
}

func planned(desired Desired, addr string) (plannedServer, bool) {
	key := destinationKey(testWeb, addr)
	server, shown := desired.Servers[key]
	if !shown {
		key.Service.Marked = true
		server, shown = desired.Servers[key]
	}
	p := plannedServer{Server: server, Destination: -1, Unready: desired.Unready[key]}
	if destination, ok := desired.State.Destinations[key]; ok {
		p.Destination = int(destination.Weight)
	}
	return p, shown
}

// mustPlan returns the plan of a snapshot that refuses nothing.
func mustPlan(t *testing.T, s Snapshot) Desired {
	t.Helper()
	desired, rejections := For(s)
	if len(rejections) > 0 {
		t.Fatalf("rejections = %v, want none", rejections)
	}
	return desired
}

// routed reaches 10.244.0.0/16 by a gateway, 192.168.11.10x by the veth of the
// node's own pod, 10.9.0.0/16 not at all, 192.168.11.2 as its own and all else
// by eth0. IPv6 it does not know.
func routed(addr netip.Addr) (Reach, bool) {
	switch {
	case addr.Is6():
		return Reach{}, false
	case netip.MustParsePrefix("10.244.0.0/16").Contains(addr):
		return Reach{Link: "eth0", Gateway: netip.MustParseAddr("192.168.11.31")}, true
	case netip.MustParsePrefix("10.9.0.0/16").Contains(addr):
		return Reach{}, true
	case addr == netip.MustParseAddr("192.168.11.4"):
		return Reach{Link: "lo", Local: true}, true
	case netip.MustParsePrefix("192.168.11.100/30").Contains(addr):
		return Reach{Link: "veth" + addr.String()[len("192.168.11."):]}, true
	default:
		return Reach{Link: "eth0"}, true
	}
}
