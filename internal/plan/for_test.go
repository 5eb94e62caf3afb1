package plan

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

var byValue = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func TestForServesTheClassicPair(t *testing.T) {
	desired, rejections := For(testSnapshot("192.168.11.200", makeServer("shop", "web", 0).obj()))
	web := serviceKey("192.168.11.200", 80, netstate.TCP)
	vip := netip.MustParseAddr("192.168.11.200")
	want := Desired{
		Key: netstate.Key{Addr: vip},
		State: netstate.State{
			Guard: map[netstate.GuardKey]netstate.Present{
				{VIP: vip}: {},
				{VIP: vip, Protocol: netstate.TCP, Port: 80}: {},
			},
			Addresses: map[netstate.AddressKey]netstate.Address{
				{Link: "dummy-lvs", Addr: vip}: {Source: netip.MustParseAddr("192.168.11.2")},
			},
			Services: map[netstate.ServiceKey]netstate.Service{
				web: {Scheduler: "wrr", PersistencePrefix: 32},
			},
			Destinations: map[netstate.DestinationKey]netstate.Destination{
				destinationKey(web, "192.168.11.135"): {Method: netstate.DR, Weight: 1},
				destinationKey(web, "192.168.11.138"): {Method: netstate.DR, Weight: 2},
			},
		},
		Owners:   map[netstate.ServiceKey]types.NamespacedName{web: {Namespace: "shop", Name: "web"}},
		Policies: map[netstate.ServiceKey]Policy{web: {DrainTimeout: 30 * time.Second, Scale: 1, Quorum: 1}},
		Servers: map[netstate.DestinationKey]Server{
			destinationKey(web, "192.168.11.135"): {Weight: 1, State: "Enabled"},
			destinationKey(web, "192.168.11.138"): {Weight: 2, State: "Enabled"},
		},
	}
	if diff := cmp.Diff(want, desired, byValue...); diff != "" {
		t.Errorf("desired (-want +got):\n%s", diff)
	}
	if len(rejections) > 0 {
		t.Errorf("rejections = %v, want none", rejections)
	}
}

func TestForServiceOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		vip    string
		change func(*v1alpha1.VirtualServerSpec)
		want   netstate.Service
	}{
		"the scheduler's default is wlc": {
			change: func(s *v1alpha1.VirtualServerSpec) { s.Scheduler = "" },
			want:   netstate.Service{Scheduler: "wlc", PersistencePrefix: 32},
		},
		"flags of mh": {
			change: func(s *v1alpha1.VirtualServerSpec) {
				s.Scheduler = "mh"
				s.SchedulerFlags = []v1alpha1.SchedulerFlag{"Port", "Fallback"}
			},
			want: netstate.Service{Scheduler: "mh", Flags: netstate.Port | netstate.Fallback, PersistencePrefix: 32},
		},
		"persistence with its defaults": {
			change: func(s *v1alpha1.VirtualServerSpec) { s.Persistence = &v1alpha1.Persistence{} },
			want:   netstate.Service{Scheduler: "wrr", Persistence: 300 * time.Second, PersistencePrefix: 32},
		},
		"persistence by the IPv4 prefix": {
			change: func(s *v1alpha1.VirtualServerSpec) {
				s.Persistence = &v1alpha1.Persistence{Timeout: metav1.Duration{Duration: time.Minute}, IPv4PrefixLength: 24, IPv6PrefixLength: 64}
			},
			want: netstate.Service{Scheduler: "wrr", Persistence: time.Minute, PersistencePrefix: 24},
		},
		"persistence by the IPv6 prefix": {
			vip: "fd00:11::200",
			change: func(s *v1alpha1.VirtualServerSpec) {
				s.Persistence = &v1alpha1.Persistence{Timeout: metav1.Duration{Duration: time.Minute}, IPv4PrefixLength: 24, IPv6PrefixLength: 64}
			},
			want: netstate.Service{Scheduler: "wrr", Persistence: time.Minute, PersistencePrefix: 64},
		},
		"IPv6 without persistence": {
			vip:    "fd00:11::200",
			change: func(*v1alpha1.VirtualServerSpec) {},
			want:   netstate.Service{Scheduler: "wrr", PersistencePrefix: 128},
		},
	} {
		t.Run(name, func(t *testing.T) {
			vip := "192.168.11.200"
			if tc.vip != "" {
				vip = tc.vip
			}
			vs := makeServer("shop", "web", 0).addresses(v1alpha1.IPAddress(vip)).spec(tc.change).obj()
			desired, rejections := For(testSnapshot(vip, vs))
			if diff := cmp.Diff(tc.want, desired.State.Services[serviceKey(vip, 80, netstate.TCP)]); diff != "" {
				t.Errorf("service (-want +got):\n%s\nrejections: %v", diff, rejections)
			}
		})
	}
}

func TestForRealServerStates(t *testing.T) {
	zero := int32(0)
	vs := makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) {
		s.RealServers = []v1alpha1.RealServer{
			{Address: "192.168.11.131"},
			{Address: "192.168.11.132", Weight: &zero},
			{Address: "192.168.11.133", State: v1alpha1.RealServerDrained},
			{Address: "192.168.11.134", State: v1alpha1.RealServerDisabled},
			{Address: "fd00:11::135"},
		}
	}).obj()
	desired, _ := For(testSnapshot("192.168.11.200", vs))
	web := serviceKey("192.168.11.200", 80, netstate.TCP)
	want := map[netstate.DestinationKey]netstate.Destination{
		destinationKey(web, "192.168.11.131"): {Method: netstate.DR, Weight: 1},
		destinationKey(web, "192.168.11.132"): {Method: netstate.DR},
		destinationKey(web, "192.168.11.133"): {Method: netstate.DR},
	}
	if diff := cmp.Diff(want, desired.State.Destinations, byValue...); diff != "" {
		t.Errorf("destinations (-want +got):\n%s", diff)
	}
}

func TestForChecksHaveTheDocumentedDefaults(t *testing.T) {
	vs := makeServer("shop", "web", 0).realServers("192.168.11.135").spec(func(s *v1alpha1.VirtualServerSpec) {
		s.HealthChecks = []v1alpha1.HealthCheck{
			{Name: "slow", Port: 8080, Interval: metav1.Duration{Duration: 6 * time.Second}, FailureThreshold: 4, InitialState: "Up"},
			{},
		}
	}).obj()
	desired, _ := For(testSnapshot("192.168.11.200", vs))
	addr := netip.MustParseAddr("192.168.11.135")
	schedule := health.Schedule{Interval: 2 * time.Second, Timeout: time.Second, RetryInterval: time.Second, FailureThreshold: 3, SuccessThreshold: 2}
	slow := schedule
	slow.Interval, slow.FailureThreshold = 6*time.Second, 4
	want := map[netstate.DestinationKey][]Check{
		destinationKey(serviceKey("192.168.11.200", 80, netstate.TCP), "192.168.11.135"): {
			{Name: "default", Probe: health.Probe{Target: health.Target{Type: health.TCP, Addr: addr, Port: 80}, Schedule: schedule}},
			{Name: "slow", Probe: health.Probe{Target: health.Target{Type: health.TCP, Addr: addr, Port: 8080}, Schedule: slow}, InitiallyUp: true},
		},
	}
	if diff := cmp.Diff(want, desired.Checks, byValue...); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

func TestForWithoutGuardHasNoGuardEntries(t *testing.T) {
	s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).obj())
	s.Pool.Spec.Guard = v1alpha1.GuardDisabled
	if desired, _ := For(s); len(desired.State.Guard) > 0 || len(desired.State.Services) != 1 {
		t.Errorf("guard = %v with %d services, want none with 1", desired.State.Guard, len(desired.State.Services))
	}
}

func TestForSourceIsOfTheVIPsFamily(t *testing.T) {
	vs := makeServer("shop", "web", 0).addresses("192.168.11.200", "fd00:11::200").obj()
	for name, tc := range map[string]struct {
		vip    string
		source netip.Addr
		want   netip.Addr
	}{
		"IPv4":                {"192.168.11.200", netip.MustParseAddr("192.168.11.2"), netip.MustParseAddr("192.168.11.2")},
		"IPv4 without source": {"192.168.11.200", netip.Addr{}, netip.Addr{}},
		"IPv4 from IPv6":      {"192.168.11.200", netip.MustParseAddr("fd00:11::2"), netip.Addr{}},
		"IPv6":                {"fd00:11::200", netip.MustParseAddr("192.168.11.2"), netip.Addr{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testSnapshot(tc.vip, vs)
			s.Source = tc.source
			desired, _ := For(s)
			address, ok := desired.State.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: s.Key.Addr}]
			if !ok || address.Source != tc.want {
				t.Errorf("source = %v (present %t), want %v", address.Source, ok, tc.want)
			}
		})
	}
}
