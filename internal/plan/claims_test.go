package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// verdict is a Rejection in short.
type verdict struct{ name, reason string }

func verdictsOf(rejections []Rejection) []verdict {
	var short []verdict
	for _, r := range rejections {
		short = append(short, verdict{r.VirtualServer.String(), r.Reason})
	}
	return short
}

func TestForRejects(t *testing.T) {
	tooHeavy := int32(65536)
	for name, tc := range map[string]struct {
		vs          *server
		pool        func(*v1alpha1.DirectorPool)
		wantReason  string
		wantMessage string
	}{
		"VIP outside the allowed": {
			vs:          makeServer("shop", "web", 0).addresses("192.168.11.221"),
			wantReason:  "AddressNotAllowed",
			wantMessage: `DirectorPool "default" does not allow 192.168.11.221 to namespace shop`,
		},
		"one VIP of two outside the allowed": {
			vs:          makeServer("shop", "web", 0).addresses("192.168.11.200", "10.96.0.1"),
			wantReason:  "AddressNotAllowed",
			wantMessage: "10.96.0.1",
		},
		"nothing allowed": {
			vs:          makeServer("shop", "web", 0),
			pool:        func(p *v1alpha1.DirectorPool) { p.Spec.Allow = nil },
			wantReason:  "AddressNotAllowed",
			wantMessage: "192.168.11.200",
		},
		"allowed to another namespace": {
			vs: makeServer("shop", "web", 0),
			pool: func(p *v1alpha1.DirectorPool) {
				p.Spec.Allow[0].NamespaceSelector.MatchLabels = map[string]string{"team": "blog"}
			},
			wantReason:  "AddressNotAllowed",
			wantMessage: "shop",
		},
		"a selector that is broken selects nothing": {
			vs: makeServer("shop", "web", 0),
			pool: func(p *v1alpha1.DirectorPool) {
				p.Spec.Allow[0].NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Like"}}
			},
			wantReason: "AddressNotAllowed",
		},
		"a namespace that is not known is not taken to lack a label": {
			vs: makeServer("unknown", "web", 0),
			pool: func(p *v1alpha1.DirectorPool) {
				p.Spec.Allow[0].NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "team", Operator: "DoesNotExist"}}
			},
			wantReason: "AddressNotAllowed",
		},
		"a range that can't be read allows nothing": {
			vs: makeServer("shop", "web", 0),
			pool: func(p *v1alpha1.DirectorPool) {
				p.Spec.Allow[0].Addresses = []v1alpha1.AddressRange{"192.168.11.200/33"}
			},
			wantReason: "AddressNotAllowed",
		},
		"a gateway": {
			vs:          makeServer("shop", "web", 0).addresses("192.168.11.1"),
			wantReason:  "AddressReserved",
			wantMessage: "192.168.11.1 is a gateway of node lb-1",
		},
		"a director's address as VIP": {
			vs:          makeServer("shop", "web", 0).addresses("192.168.11.3"),
			wantReason:  "AddressReserved",
			wantMessage: "192.168.11.3 is the address of director lb-2",
		},
		"a real server outside the allowed": {
			vs:          makeServer("shop", "web", 0).realServers("192.168.12.1"),
			wantReason:  "RealServerNotAllowed",
			wantMessage: "192.168.12.1",
		},
		"a disabled real server outside the allowed": {
			vs: makeServer("shop", "web", 0).realServers("192.168.12.1").spec(func(s *v1alpha1.VirtualServerSpec) {
				s.RealServers[0].State = v1alpha1.RealServerDisabled
			}),
			wantReason: "RealServerNotAllowed",
		},
		"a loopback real server, though allowed": {
			vs:          makeServer("shop", "web", 0).realServers("127.0.0.1"),
			pool:        func(p *v1alpha1.DirectorPool) { p.Spec.Allow[0].RealServers = []v1alpha1.AddressRange{"0.0.0.0/0"} },
			wantReason:  "RealServerNotAllowed",
			wantMessage: "127.0.0.1",
		},
		"a link-local real server, though allowed": {
			vs:          makeServer("shop", "web", 0).realServers("169.254.169.254"),
			pool:        func(p *v1alpha1.DirectorPool) { p.Spec.Allow[0].RealServers = []v1alpha1.AddressRange{"0.0.0.0/0"} },
			wantReason:  "RealServerNotAllowed",
			wantMessage: "169.254.169.254",
		},
		"a director as real server, without the guard": {
			vs:          makeServer("shop", "web", 0).realServers("192.168.11.3"),
			pool:        func(p *v1alpha1.DirectorPool) { p.Spec.Guard = v1alpha1.GuardDisabled },
			wantReason:  "RealServerIsDirector",
			wantMessage: "lb-2",
		},
		"its own VIP as real server": {
			vs:          makeServer("shop", "web", 0).realServers("192.168.11.200"),
			wantReason:  "RealServerNotAllowed",
			wantMessage: "192.168.11.200",
		},
		"no address":                  {vs: makeServer("shop", "web", 0).addresses(), wantReason: "Invalid"},
		"no IP address":               {vs: makeServer("shop", "web", 0).addresses("www.example.com"), wantReason: "Invalid"},
		"a multicast VIP":             {vs: makeServer("shop", "web", 0).addresses("224.0.0.1"), wantReason: "Invalid"},
		"the broadcast address":       {vs: makeServer("shop", "web", 0).addresses("255.255.255.255"), wantReason: "Invalid"},
		"an address with a zone":      {vs: makeServer("shop", "web", 0).addresses("fe80::1%eth0"), wantReason: "Invalid"},
		"a mapped address":            {vs: makeServer("shop", "web", 0).addresses("::ffff:192.168.11.200"), wantReason: "Invalid"},
		"another spelling":            {vs: makeServer("shop", "web", 0).addresses("fd00:11:0::200"), wantReason: "Invalid"},
		"an address twice":            {vs: makeServer("shop", "web", 0).addresses("192.168.11.200", "192.168.11.200"), wantReason: "Invalid"},
		"a port out of range":         {vs: makeServer("shop", "web", 0).port(65536, "TCP"), wantReason: "Invalid"},
		"port 0":                      {vs: makeServer("shop", "web", 0).port(0, "TCP"), wantReason: "Invalid"},
		"an unknown protocol":         {vs: makeServer("shop", "web", 0).port(80, "ICMP"), wantReason: "Invalid"},
		"a real server that is none":  {vs: makeServer("shop", "web", 0).realServers("web-1"), wantReason: "Invalid"},
		"a real server twice":         {vs: makeServer("shop", "web", 0).realServers("192.168.11.135", "192.168.11.135"), wantReason: "Invalid"},
		"no port":                     {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.Ports = nil }), wantReason: "Invalid"},
		"a port twice":                {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.Ports = append(s.Ports, s.Ports[0]) }), wantReason: "Invalid"},
		"an unknown scheduler":        {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.Scheduler = "best" }), wantReason: "Invalid"},
		"an unknown method":           {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.ForwardingMethod = "NAT" }), wantReason: "Invalid"},
		"flags of wrr":                {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.SchedulerFlags = []v1alpha1.SchedulerFlag{"Port"} }), wantReason: "Invalid"},
		"a port of its own":           {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.RealServers[0].Port = 8080 }), wantReason: "Invalid"},
		"a weight out of range":       {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.RealServers[0].Weight = &tooHeavy }), wantReason: "Invalid"},
		"an unknown state":            {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.RealServers[0].State = "Gone" }), wantReason: "Invalid"},
		"an unknown check":            {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.HealthChecks = []v1alpha1.HealthCheck{{Type: "HTTP"}} }), wantReason: "Invalid"},
		"two checks of one name":      {vs: makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) { s.HealthChecks = []v1alpha1.HealthCheck{{}, {}} }), wantReason: "Invalid"},
		"persistence of half seconds": {vs: makeServer("shop", "web", 0).spec(persistFor(1500 * time.Millisecond)), wantReason: "Invalid"},
		"persistence too long":        {vs: makeServer("shop", "web", 0).spec(persistFor(745 * time.Hour)), wantReason: "Invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			vs := tc.vs.obj()
			for _, key := range append(Keys(&vs), testSnapshot("192.168.11.200").Key) {
				s := testSnapshot(key.String(), vs)
				if tc.pool != nil {
					tc.pool(s.Pool)
				}
				desired, rejections := For(s)
				want := []verdict{{vs.Namespace + "/web", tc.wantReason}}
				if diff := cmp.Diff(want, verdictsOf(rejections), cmp.AllowUnexported(verdict{})); diff != "" {
					t.Fatalf("rejections (-want +got):\n%s", diff)
				}
				if message := rejections[0].Message; message == "" || !strings.Contains(message, tc.wantMessage) {
					t.Errorf("message %q, want one with %q", message, tc.wantMessage)
				}
				if diff := cmp.Diff(newDesired(key), desired, byValue...); diff != "" {
					t.Errorf("desired of a refused VirtualServer (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func persistFor(timeout time.Duration) func(*v1alpha1.VirtualServerSpec) {
	return func(s *v1alpha1.VirtualServerSpec) {
		s.Persistence = &v1alpha1.Persistence{Timeout: metav1.Duration{Duration: timeout}}
	}
}

func TestForWithoutPoolServesNothing(t *testing.T) {
	s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).obj(), makeServer("shop", "alt", 1).port(8080, "TCP").obj())
	s.Pool = nil
	desired, rejections := For(s)
	want := []verdict{{"shop/alt", "NoDirectorPool"}, {"shop/web", "NoDirectorPool"}}
	if diff := cmp.Diff(want, verdictsOf(rejections), cmp.AllowUnexported(verdict{})); diff != "" {
		t.Errorf("rejections (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(newDesired(s.Key), desired, byValue...); diff != "" {
		t.Errorf("desired (-want +got):\n%s", diff)
	}
}

func TestForEntriesAddUp(t *testing.T) {
	s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).obj())
	s.Pool.Spec.Allow = []v1alpha1.AllowRule{
		{Addresses: []v1alpha1.AddressRange{"192.168.11.200"}, NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"team": "shop"}}},
		{RealServers: []v1alpha1.AddressRange{"nonsense", "192.168.11.135-192.168.11.138"}},
	}
	if _, rejections := For(s); len(rejections) > 0 {
		t.Errorf("rejections = %v, want none: the VIP is allowed by one entry, the real servers by the other", rejections)
	}
}

func TestForClaims(t *testing.T) {
	for name, tc := range map[string]struct {
		all []*server
		// want are the verdicts, wantMessage a part of the first's message.
		want        []verdict
		wantMessage string
	}{
		"two ports of one VIP in one namespace": {
			all: []*server{makeServer("shop", "web", 1), makeServer("shop", "alt", 0).port(8080, "TCP")},
		},
		"one port with two protocols": {
			all: []*server{makeServer("shop", "a", 1).port(53, "TCP"), makeServer("shop", "b", 0).port(53, "UDP")},
		},
		"of one VIP and port the older serves": {
			all:         []*server{makeServer("shop", "a-new", 1), makeServer("shop", "old", 0)},
			want:        []verdict{{"shop/a-new", "Conflict"}},
			wantMessage: "192.168.11.200:80/TCP is served by shop/old",
		},
		"of one age the first by name serves": {
			all:         []*server{makeServer("shop", "b", 0), makeServer("shop", "a", 0)},
			want:        []verdict{{"shop/b", "Conflict"}},
			wantMessage: "shop/a",
		},
		"a VIP belongs to the namespace of the oldest": {
			all:         []*server{makeServer("blog", "web", 1).port(8080, "TCP"), makeServer("shop", "web", 0)},
			want:        []verdict{{"blog/web", "AddressInUse"}},
			wantMessage: "192.168.11.200 belongs to namespace shop, by shop/web",
		},
		"one refused claim refuses the whole": {
			all: []*server{
				makeServer("shop", "old", 0),
				makeServer("shop", "two", 1).addresses("192.168.11.200", "192.168.11.201"),
				makeServer("blog", "free", 2).addresses("192.168.11.201"),
			},
			want: []verdict{{"shop/two", "Conflict"}},
		},
		"what is refused claims nothing": {
			all: []*server{
				makeServer("shop", "bad", 0).realServers("127.0.0.1"),
				makeServer("blog", "good", 1),
			},
			want: []verdict{{"shop/bad", "RealServerNotAllowed"}},
		},
		"what is being deleted claims nothing and is not rejected": {
			all: []*server{deleting(makeServer("shop", "old", 0)), makeServer("blog", "new", 1)},
		},
		"an older VIP is no real server": {
			all: []*server{
				makeServer("shop", "old", 0).addresses("192.168.11.200", "192.168.11.201"),
				makeServer("shop", "new", 1).port(8080, "TCP").realServers("192.168.11.201"),
			},
			want:        []verdict{{"shop/new", "RealServerNotAllowed"}},
			wantMessage: "real server 192.168.11.201 is a VIP of shop/old",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var all []v1alpha1.VirtualServer
			for _, vs := range tc.all {
				all = append(all, vs.obj())
			}
			_, rejections := For(testSnapshot("192.168.11.200", all...))
			if diff := cmp.Diff(tc.want, verdictsOf(rejections), cmp.AllowUnexported(verdict{})); diff != "" {
				t.Fatalf("rejections (-want +got):\n%s", diff)
			}
			if len(rejections) > 0 && !strings.Contains(rejections[0].Message, tc.wantMessage) {
				t.Errorf("message %q, want one with %q", rejections[0].Message, tc.wantMessage)
			}
		})
	}
}

// TestForNamesTheSameFaultWhateverTheOrder: with several, it is the first by
// address.
func TestForNamesTheSameFaultWhateverTheOrder(t *testing.T) {
	for name, tc := range map[string]struct {
		one, other *server
		want       string
	}{
		"real servers": {
			one:   makeServer("shop", "web", 0).realServers("9.9.9.9", "8.8.8.8"),
			other: makeServer("shop", "web", 0).realServers("8.8.8.8", "9.9.9.9"),
			want:  "8.8.8.8",
		},
		"addresses": {
			one:   makeServer("shop", "web", 0).addresses("192.168.11.200", "9.9.9.9", "8.8.8.8"),
			other: makeServer("shop", "web", 0).addresses("8.8.8.8", "9.9.9.9", "192.168.11.200"),
			want:  "8.8.8.8",
		},
		"one that is named twice": {
			one:   makeServer("shop", "web", 0).realServers("192.168.11.135", "192.168.11.138", "192.168.11.135"),
			other: makeServer("shop", "web", 0).realServers("192.168.11.138", "192.168.11.135", "192.168.11.135"),
			want:  "192.168.11.135 is named twice",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, one := For(testSnapshot("192.168.11.200", tc.one.obj()))
			_, other := For(testSnapshot("192.168.11.200", tc.other.obj()))
			if diff := cmp.Diff(one, other); diff != "" {
				t.Errorf("rejections depend on order:\n%s", diff)
			}
			if len(one) != 1 || !strings.Contains(one[0].Message, tc.want) {
				t.Errorf("rejections = %v, want one with %q", one, tc.want)
			}
		})
	}
}

func deleting(s *server) *server {
	now := metav1.NewTime(birth.Add(time.Hour))
	s.DeletionTimestamp = &now
	return s
}
