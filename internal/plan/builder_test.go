package plan

import (
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Addresses of the tests: 192.168.11.200-220 are the pool's VIPs,
// 192.168.11.0/24 its real servers; 192.168.11.1 is the gateway, .2 and .3 are
// the directors, .135 and .138 the web servers. fd00:11::/64 is the same in
// IPv6.
var birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func testPool() *v1alpha1.DirectorPool {
	return &v1alpha1.DirectorPool{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec: v1alpha1.DirectorPoolSpec{
			Allow: []v1alpha1.AllowRule{{
				Addresses:   []v1alpha1.AddressRange{"192.168.11.200-192.168.11.220", "192.168.11.1-192.168.11.3", "fd00:11::200/120"},
				RealServers: []v1alpha1.AddressRange{"192.168.11.0/24", "fd00:11::/64"},
			}},
		},
	}
}

func testSnapshot(vip string, all ...v1alpha1.VirtualServer) Snapshot {
	return Snapshot{
		Key:            netstate.Key{Addr: netip.MustParseAddr(vip)},
		VirtualServers: all,
		Pool:           testPool(),
		NamespaceLabels: map[string]map[string]string{
			"shop": {"team": "shop"},
			"blog": {"team": "blog"},
		},
		Reserved:  map[netip.Addr]string{netip.MustParseAddr("192.168.11.1"): "a gateway of node lb-1"},
		Directors: map[netip.Addr]string{netip.MustParseAddr("192.168.11.2"): "lb-1", netip.MustParseAddr("192.168.11.3"): "lb-2"},
		Interface: "eth0",
		Source:    netip.MustParseAddr("192.168.11.2"),
	}
}

type server struct{ v1alpha1.VirtualServer }

// makeServer returns the classic web server pair on 192.168.11.200, born age
// seconds after the first.
func makeServer(namespace, name string, age int) *server {
	weight := int32(2)
	return &server{v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name,
			CreationTimestamp: metav1.NewTime(birth.Add(time.Duration(age) * time.Second)),
		},
		Spec: v1alpha1.VirtualServerSpec{
			Addresses:   []v1alpha1.IPAddress{"192.168.11.200"},
			Ports:       []v1alpha1.Port{{Port: 80}},
			Scheduler:   "wrr",
			RealServers: []v1alpha1.RealServer{{Address: "192.168.11.135"}, {Address: "192.168.11.138", Weight: &weight}},
		},
	}}
}

func (s *server) addresses(addresses ...v1alpha1.IPAddress) *server {
	s.Spec.Addresses = addresses
	return s
}

func (s *server) port(port int32, protocol v1alpha1.Protocol) *server {
	s.Spec.Ports = []v1alpha1.Port{{Port: port, Protocol: protocol}}
	return s
}

func (s *server) realServers(addresses ...v1alpha1.IPAddress) *server {
	s.Spec.RealServers = nil
	for _, address := range addresses {
		s.Spec.RealServers = append(s.Spec.RealServers, v1alpha1.RealServer{Address: address})
	}
	return s
}

func (s *server) spec(change func(*v1alpha1.VirtualServerSpec)) *server {
	change(&s.Spec)
	return s
}

func (s *server) obj() v1alpha1.VirtualServer { return *s.DeepCopy() }

// service and destination are keys of the classic service.
func serviceKey(vip string, port uint16, protocol netstate.Protocol) netstate.ServiceKey {
	return netstate.ServiceKey{Key: netstate.Key{Addr: netip.MustParseAddr(vip)}, Protocol: protocol, Port: port}
}

func destinationKey(service netstate.ServiceKey, addr string) netstate.DestinationKey {
	return netstate.DestinationKey{Service: service, Addr: netip.MustParseAddr(addr), Port: service.Port}
}
