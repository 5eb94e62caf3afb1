package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// workloadAddresses are few, so that they meet often: pods' own, one that is
// written down, a director's, two VIPs, one behind a gateway, one of the node's
// own and one of the other family.
var workloadAddresses = []string{
	"192.168.11.100", "192.168.11.101", "192.168.11.110", "192.168.11.135", "192.168.11.3", "192.168.11.201",
	"10.244.0.5", "192.168.11.4", "fd00:11::110",
}

// drawWorkload has some VirtualServers select pods or name a Service, and draws
// both.
func drawWorkload(t *rapid.T, s *Snapshot) {
	s.Reach = routed
	for i := range s.VirtualServers {
		drawSources(t, &s.VirtualServers[i])
	}
	s.Prepared = map[types.UID]Preparation{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"p", "q", "r", "s", "t"}), 0, 5, rapid.ID[string]).Draw(t, "pods") {
		s.Pods = append(s.Pods, drawPod(t, name))
		pod := &s.Pods[len(s.Pods)-1]
		if rapid.IntRange(0, 3).Draw(t, "prepared") > 0 {
			vips := []netip.Addr{netip.MustParseAddr("192.168.11.200"), netip.MustParseAddr("192.168.11.201"), netip.MustParseAddr("192.168.11.202")}
			s.Prepared[pod.UID] = Preparation{
				PodAddresses: pod.Addresses,
				VIPs:         vips[:rapid.IntRange(1, 3).Draw(t, "VIPs")],
			}
		}
	}
	s.NodeStates = map[string]string{"node-2": rapid.SampledFrom([]string{"Enabled", "Drained", "Disabled", "gone"}).Draw(t, "state of node-2")}
	s.Endpoints = map[types.NamespacedName][]Endpoint{}
	for _, namespace := range []string{"shop", "blog"} {
		name := types.NamespacedName{Namespace: namespace, Name: "web"}
		for range rapid.IntRange(0, 5).Draw(t, "endpoints") {
			s.Endpoints[name] = append(s.Endpoints[name], drawEndpoint(t, s.Pods))
		}
	}
}

func drawSources(t *rapid.T, vs *v1alpha1.VirtualServer) {
	spec := &vs.Spec
	if rapid.Bool().Draw(t, "selects") {
		spec.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	}
	if rapid.Bool().Draw(t, "names a Service") {
		spec.ServiceName = "web"
	}
	if rapid.Bool().Draw(t, "slow start") {
		spec.SlowStart = &v1alpha1.SlowStart{Duration: metav1.Duration{Duration: time.Minute}}
	}
	if rapid.Bool().Draw(t, "quorum") {
		spec.Quorum = &v1alpha1.Quorum{MinimumWeight: intstr.FromString("51%"), Hysteresis: 2}
	}
	if rapid.IntRange(0, 3).Draw(t, "sorry server") == 0 {
		spec.SorryServer = &v1alpha1.SorryServer{Address: "192.168.11.110"}
	}
	if rapid.IntRange(0, 3).Draw(t, "drained servers") == 0 {
		vs.Annotations = map[string]string{v1alpha1.AnnotationDrainedServers: "192.168.11.101,x"}
	}
}

func drawPod(t *rapid.T, name string) Pod {
	sometimes := func(what string) bool { return rapid.IntRange(0, 5).Draw(t, what) == 0 }
	pod := makePod(name, rapid.SliceOfNDistinct(rapid.SampledFrom(workloadAddresses), 0, 2, rapid.ID[string]).Draw(t, "addresses")...)
	pod.Name.Namespace = rapid.SampledFrom([]string{"shop", "blog"}).Draw(t, "namespace")
	pod.Node = rapid.SampledFrom([]string{"node-1", "node-2", "lb-1"}).Draw(t, "node")
	pod.Ready = !sometimes("not ready")
	pod.Terminating, pod.Finished, pod.HostNetwork = sometimes("terminating"), sometimes("finished"), sometimes("host network")
	if sometimes("not labelled") {
		pod.Labels = nil
	}
	if sometimes("weighted") {
		pod.Annotations[v1alpha1.AnnotationWeight] = rapid.SampledFrom([]string{"0", "7", "65535", "65536", ""}).Draw(t, "weight")
	}
	if sometimes("annotated") {
		pod.Annotations[v1alpha1.AnnotationState] = rapid.SampledFrom([]string{"Enabled", "Drained", "Disabled", "x"}).Draw(t, "state")
	}
	return pod
}

func drawEndpoint(t *rapid.T, pods []Pod) Endpoint {
	var e Endpoint
	if len(pods) > 0 && rapid.Bool().Draw(t, "is a pod") {
		pod := rapid.SampledFrom(pods).Draw(t, "pod")
		e.Pod = pod.UID
		if len(pod.Addresses) > 0 && rapid.IntRange(0, 5).Draw(t, "lies") > 0 {
			e.Addr = pod.Addresses[0]
		}
	} else if rapid.IntRange(0, 5).Draw(t, "names nobody") == 0 {
		e.Pod = "nobody"
	}
	if !e.Addr.IsValid() {
		e.Addr = netip.MustParseAddr(rapid.SampledFrom(workloadAddresses).Draw(t, "address"))
	}
	e.Ready = rapid.Bool().Draw(t, "ready")
	e.Terminating = rapid.IntRange(0, 5).Draw(t, "terminating") == 0
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		e.Ports = append(e.Ports, EndpointPort{
			Name: rapid.SampledFrom([]string{"", "http", "b"}).Draw(t, "name"), Protocol: netstate.TCP,
			Number: rapid.SampledFrom([]uint16{0, 80, 443, 8080, 9090}).Draw(t, "number"),
		})
	}
	return e
}

// shuffleWorkload changes the order of all that has one.
func shuffleWorkload(t *rapid.T, s *Snapshot) {
	s.Pods = rapid.Permutation(s.Pods).Draw(t, "order of pods")
	for i := range s.Pods {
		s.Pods[i].Addresses = rapid.Permutation(s.Pods[i].Addresses).Draw(t, "order of addresses")
	}
	s.Endpoints = maps.Clone(s.Endpoints)
	for name, endpoints := range s.Endpoints {
		s.Endpoints[name] = rapid.Permutation(endpoints).Draw(t, "order of endpoints")
		for i := range s.Endpoints[name] {
			e := &s.Endpoints[name][i]
			e.Ports = rapid.Permutation(e.Ports).Draw(t, "order of ports")
		}
	}
}

// failer is what assertServers tells of faults.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
}

// assertServers checks what holds of every plan's real servers.
func assertServers(t failer, s *Snapshot, desired *Desired) {
	t.Helper()
	prepare := Preparations(*s)
	for key, server := range desired.Servers {
		destination, serves := desired.State.Destinations[key]
		if (server.Reason == "") != (server.Message == "") || serves != (server.Reason == "" && server.State != v1alpha1.RealServerDisabled) {
			t.Errorf("%v is a destination: %t, %+v", key, serves, server)
		}
		if scale := desired.Policies[key.Service].Scale; serves && server.State == v1alpha1.RealServerEnabled && destination.Weight != server.Weight*scale {
			t.Errorf("%v has weight %d, not %d times %d", key, destination.Weight, server.Weight, scale)
		}
		if serves && server.State == v1alpha1.RealServerDrained && destination.Weight != 0 {
			t.Errorf("%v is drained and has weight %d", key, destination.Weight)
		}
		if serves && server.Pod != "" {
			assertPrepared(t, s, prepare, desired.Owners[key.Service].Namespace, server.Pod, key)
		}
	}
	allowed := newCourt(s)
	for key, destination := range desired.State.Destinations {
		if destination.Weight > 65535 {
			t.Errorf("%v has weight %d", key, destination.Weight)
		}
		server, shown := desired.Servers[key]
		if _, director := s.Directors[key.Addr]; director && (!s.guarded() || !key.Service.Marked) || !shown || key.Addr == s.Key.Addr || key.Addr.BitLen() != s.Key.Addr.BitLen() {
			t.Errorf("%v is a destination (shown %t, a director: %t)", key, shown, director)
		}
		if server.Pod == "" && !allowed.allowance(desired.Owners[key.Service].Namespace).realServers.Contains(key.Addr) {
			t.Errorf("%v is no pod, a destination, and not allowed", key)
		}
		if reach, known := routed(key.Addr); known && s.Reach != nil && (reach.Gateway.IsValid() || reach.Local || reach.Link == "") {
			t.Errorf("%v is a destination and reached by %+v", key, reach)
		}
		if key.Addr == desired.Policies[key.Service].Sorry {
			t.Errorf("%v is the sorry server", key)
		}
	}
	for key := range desired.Unready {
		if _, ok := desired.State.Destinations[key]; !ok {
			t.Errorf("%v is not ready and is no destination", key)
		}
	}
	assertPolicies(t, s, desired)
}

// assertPrepared checks that a pod has the VIP, and is to keep it.
func assertPrepared(t failer, s *Snapshot, prepare map[types.UID][]netip.Addr, namespace, name string, key netstate.DestinationKey) {
	t.Helper()
	for _, pod := range s.Pods {
		if pod.Name.Name != name || pod.Name.Namespace != namespace {
			continue
		}
		if _, director := s.Directors[key.Addr]; director {
			return // it has the VIP as that director
		}
		preparation := s.Prepared[pod.UID]
		if !slices.Contains(preparation.VIPs, s.Key.Addr) || !slices.Contains(preparation.PodAddresses, key.Addr) ||
			pod.Terminating || pod.Finished || !slices.Contains(pod.Addresses, key.Addr) {
			t.Errorf("%v is a destination, pod %+v has %+v", key, pod, preparation)
		}
		if !slices.Contains(prepare[pod.UID], s.Key.Addr) {
			t.Errorf("%v is a destination, and the agents are to give its pod only %v", key, prepare[pod.UID])
		}
		return
	}
	t.Errorf("%v is pod %s/%s, which does not exist", key, namespace, name)
}

func assertPolicies(t failer, s *Snapshot, desired *Desired) {
	t.Helper()
	if len(desired.Policies) != len(desired.State.Services) {
		t.Errorf("%d policies of %d services", len(desired.Policies), len(desired.State.Services))
	}
	for key, policy := range desired.Policies {
		if policy.Quorum < 1 || policy.Hysteresis >= policy.Quorum || policy.Scale < 1 || policy.Scale > 1 && policy.SlowStart == 0 {
			t.Errorf("%v has policy %+v", key, policy)
		}
	}
	if !slices.IsSorted(desired.Links) || len(slices.Compact(slices.Clone(desired.Links))) != len(desired.Links) || slices.Contains(desired.Links, s.Interface) {
		t.Errorf("links = %v", desired.Links)
	}
}

func TestForTakesWhatIsWrittenDownAsItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		desired, _ := For(s)
		for i := range s.VirtualServers {
			vs := &s.VirtualServers[i]
			for service, owner := range desired.Owners {
				if owner != nameOf(vs) {
					continue
				}
				for _, static := range vs.Spec.RealServers {
					server := desired.Servers[destinationKey(service, string(static.Address))]
					if server.Pod != "" || server.Weight != 1 || server.Reason != "" || server.State == v1alpha1.RealServerDisabled {
						t.Errorf("%s on %v is %+v, and is written down", static.Address, service, server)
					}
				}
			}
		}
	})
}

// TestForOneBadServerChangesNothingForTheOthers adds a pod and an endpoint with
// something wrong to every namespace.
func TestForOneBadServerChangesNothingForTheOthers(t *testing.T) {
	spoils := map[string]func(*Snapshot, *Pod, *Endpoint){
		"weight":       func(_ *Snapshot, p *Pod, _ *Endpoint) { p.Annotations[v1alpha1.AnnotationWeight] = "1e3" },
		"state":        func(_ *Snapshot, p *Pod, _ *Endpoint) { p.Annotations[v1alpha1.AnnotationState] = "Down" },
		"unprepared":   func(s *Snapshot, p *Pod, _ *Endpoint) { delete(s.Prepared, p.UID) },
		"terminating":  func(_ *Snapshot, p *Pod, _ *Endpoint) { p.Terminating = true },
		"host network": func(_ *Snapshot, p *Pod, _ *Endpoint) { p.HostNetwork, p.Node = true, "lb-2" },
		"not allowed": func(_ *Snapshot, p *Pod, e *Endpoint) {
			p.Finished = true
			e.Addr, e.Pod = netip.MustParseAddr("10.0.0.99"), ""
		},
		"a lie": func(_ *Snapshot, p *Pod, _ *Endpoint) { p.Addresses = nil },
	}
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		desired, rejections := For(s)
		spoil := spoils[rapid.SampledFrom(slices.Sorted(maps.Keys(spoils))).Draw(t, "what is wrong")]
		s.Pods, s.Prepared, s.Endpoints = slices.Clone(s.Pods), maps.Clone(s.Prepared), maps.Clone(s.Endpoints)
		for i, namespace := range []string{"shop", "blog"} {
			bad := makePod("bad-"+namespace, fmt.Sprintf("192.168.11.%d", 240+i))
			bad.Name.Namespace = namespace
			s.Prepared[bad.UID] = Preparation{PodAddresses: bad.Addresses, VIPs: []netip.Addr{s.Key.Addr}}
			e := endpointOf(&bad, http)
			spoil(&s, &bad, &e)
			s.Pods = append(s.Pods, bad)
			name := types.NamespacedName{Namespace: namespace, Name: "web"}
			s.Endpoints[name] = append(slices.Clone(s.Endpoints[name]), e)
		}
		after, rejectionsAfter := For(s)
		// Whether services are marked depends on what may be a director.
		desired, after = unmarked(desired), unmarked(after)
		maps.DeleteFunc(after.Servers, func(key netstate.DestinationKey, server Server) bool {
			if _, known := desired.Servers[key]; known {
				return false
			}
			return server.Reason != "" || server.State == v1alpha1.RealServerDisabled
		})
		if diff := cmp.Diff(desired, after, byValue...); diff != "" {
			t.Fatalf("the plan of the others (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(rejections, rejectionsAfter); diff != "" {
			t.Fatalf("rejections (-before +after):\n%s", diff)
		}
	})
}

// fuzzed is what FuzzForWorkload reads.
type fuzzed struct {
	VirtualServer v1alpha1.VirtualServer
	Pods          []Pod
	Endpoints     []Endpoint
	NodeStates    map[string]string
	Prepared      map[types.UID]Preparation
}

// FuzzForWorkload feeds what no validation has seen: For never panics, and what
// it plans is as TestForIsConsistent says.
func FuzzForWorkload(f *testing.F) {
	pod := makePod("web-1", "192.168.11.101")
	vs := makeServer("shop", "web", 0).spec(selectWeb).spec(func(s *v1alpha1.VirtualServerSpec) {
		s.ServiceName = "web"
		s.Quorum = &v1alpha1.Quorum{MinimumWeight: intstr.FromString("50%"), Hysteresis: 1}
		s.SorryServer = &v1alpha1.SorryServer{Address: "192.168.11.150"}
		s.SlowStart = &v1alpha1.SlowStart{Duration: metav1.Duration{Duration: time.Minute}}
		s.Drain = &v1alpha1.Drain{Timeout: &metav1.Duration{Duration: time.Minute}}
	}).obj()
	vs.Annotations = map[string]string{v1alpha1.AnnotationDrainedServers: "192.168.11.101,,x"}
	for _, seed := range []fuzzed{
		{},
		{
			VirtualServer: vs, Pods: []Pod{pod}, Endpoints: []Endpoint{endpointOf(&pod, http), endpointAt("192.168.11.150")},
			NodeStates: map[string]string{"node-1": "Drained"}, Prepared: podSnapshot(pod).Prepared,
		},
	} {
		text, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var drawn fuzzed
		if json.Unmarshal(text, &drawn) != nil {
			return
		}
		s := testSnapshot("192.168.11.200", drawn.VirtualServer)
		s.Pods, s.NodeStates, s.Prepared, s.Reach = uniquePods(drawn.Pods), drawn.NodeStates, drawn.Prepared, routed
		s.Endpoints = map[types.NamespacedName][]Endpoint{
			{Namespace: drawn.VirtualServer.Namespace, Name: drawn.VirtualServer.Spec.ServiceName}: drawn.Endpoints,
		}
		for _, key := range append(Keys(&drawn.VirtualServer), s.Key) {
			s.Key = key
			desired, _ := For(s)
			assertServers(t, &s, &desired)
		}
	})
}

// uniquePods leaves out pods whose UID or name another has.
func uniquePods(all []Pod) []Pod {
	seen := map[any]bool{}
	return slices.DeleteFunc(all, func(p Pod) bool {
		again := seen[p.UID] || seen[p.Name]
		seen[p.UID], seen[p.Name] = true, true
		return again
	})
}

// BenchmarkForEndpoints plans one Service with that many endpoints that are pods
// and have a check each.
func BenchmarkForEndpoints(b *testing.B) {
	for _, count := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			var pods []Pod
			var endpoints []Endpoint
			ports := []EndpointPort{http}
			for i := range count {
				pods = append(pods, makePod(fmt.Sprintf("web-%d", i), fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250)))
				endpoints = append(endpoints, endpointOf(&pods[i], ports...))
			}
			s := serviceSnapshot(pods, endpoints...)
			s.VirtualServers[0].Spec.HealthChecks = []v1alpha1.HealthCheck{{}}
			s.Reach = func(netip.Addr) (Reach, bool) { return Reach{Link: "eth0"}, true }
			if desired, _ := For(s); len(desired.State.Destinations) != count {
				b.Fatalf("%d destinations, want %d", len(desired.State.Destinations), count)
			}
			b.ReportAllocs()
			for b.Loop() {
				For(s)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(count), "ns/endpoint")
		})
	}
}
