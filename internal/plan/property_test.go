package plan

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// drawServers draws VirtualServers of two namespaces that get into each
// other's way often, and some that are bad by themselves.
func drawServers(t *rapid.T) []v1alpha1.VirtualServer {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}), 1, 6, rapid.ID[string]).Draw(t, "names")
	vips := []v1alpha1.IPAddress{"192.168.11.200", "192.168.11.201", "192.168.11.202", "192.168.11.1", "10.0.0.1"}
	servers := []v1alpha1.IPAddress{"192.168.11.135", "192.168.11.136", "192.168.11.137", "192.168.11.3", "192.168.11.201", "8.8.8.8"}
	var all []v1alpha1.VirtualServer
	for _, name := range names {
		namespace := rapid.SampledFrom([]string{"shop", "blog"}).Draw(t, "namespace")
		vs := makeServer(namespace, name, rapid.IntRange(0, 3).Draw(t, "age")).
			addresses(drawMostlyFirst(t, vips, 3, 2)...).
			realServers(drawMostlyFirst(t, servers, 3, 3)...)
		vs.Spec.Ports = nil
		for _, number := range rapid.SliceOfNDistinct(rapid.SampledFrom([]int32{80, 443, 8080}), 1, 2, rapid.ID[int32]).Draw(t, "ports") {
			vs.Spec.Ports = append(vs.Spec.Ports, v1alpha1.Port{Port: number})
		}
		if rapid.Bool().Draw(t, "has a check") {
			vs.Spec.HealthChecks = []v1alpha1.HealthCheck{{}}
		}
		all = append(all, vs.obj())
	}
	return all
}

// drawMostlyFirst draws up to most of the choices, rarely one behind the first
// good ones.
func drawMostlyFirst(t *rapid.T, choices []v1alpha1.IPAddress, good, most int) []v1alpha1.IPAddress {
	of := choices[:good]
	if rapid.IntRange(0, 5).Draw(t, "all choices") == 0 {
		of = choices
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 1, most, rapid.ID[v1alpha1.IPAddress]).Draw(t, "addresses")
}

func drawSnapshot(t *rapid.T) Snapshot {
	s := testSnapshot(rapid.SampledFrom([]string{"192.168.11.200", "192.168.11.201", "192.168.11.202"}).Draw(t, "key"), drawServers(t)...)
	if rapid.Bool().Draw(t, "guard") {
		s.Pool.Spec.Guard = v1alpha1.GuardDisabled
	}
	drawWorkload(t, &s)
	return s
}

func rejected(rejections []Rejection) map[types.NamespacedName]bool {
	names := map[types.NamespacedName]bool{}
	for _, r := range rejections {
		names[r.VirtualServer] = true
	}
	return names
}

func nameOf(vs *v1alpha1.VirtualServer) types.NamespacedName {
	return types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}
}

func TestForDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		desired, rejections := For(s)
		shuffled := s
		shuffled.VirtualServers = rapid.Permutation(s.VirtualServers).Draw(t, "order")
		for i := range shuffled.VirtualServers {
			spec := &shuffled.VirtualServers[i].Spec
			spec.Addresses = rapid.Permutation(spec.Addresses).Draw(t, "addresses")
			spec.Ports = rapid.Permutation(spec.Ports).Draw(t, "ports")
			spec.RealServers = rapid.Permutation(spec.RealServers).Draw(t, "real servers")
		}
		shuffleWorkload(t, &shuffled)
		again, rejectionsAgain := For(shuffled)
		if diff := cmp.Diff(desired, again, byValue...); diff != "" {
			t.Fatalf("desired depends on order:\n%s", diff)
		}
		if diff := cmp.Diff(rejections, rejectionsAgain, byValue...); diff != "" {
			t.Fatalf("rejections depend on order:\n%s", diff)
		}
		if diff := cmp.Diff(Preparations(s), Preparations(shuffled), byValue...); diff != "" {
			t.Fatalf("preparations depend on order:\n%s", diff)
		}
	})
}

func TestForIsNotDisturbedByWhatItRefuses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		desired, rejections := For(s)
		refused := rejected(rejections)
		without := s
		without.VirtualServers = slices.DeleteFunc(slices.Clone(s.VirtualServers), func(vs v1alpha1.VirtualServer) bool {
			return refused[nameOf(&vs)] && rapid.Bool().Draw(t, "remove")
		})
		again, rejectionsAgain := For(without)
		if diff := cmp.Diff(desired, again, byValue...); diff != "" {
			t.Fatalf("desired changes when refused ones go:\n%s", diff)
		}
		for name := range rejected(rejectionsAgain) {
			if !refused[name] {
				t.Fatalf("%s is refused only when others that are refused too go", name)
			}
		}
	})
}

func TestForNewcomersChangeNothingForTheOlder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		_, before := For(s)
		newcomer := makeServer(rapid.SampledFrom([]string{"shop", "blog"}).Draw(t, "of"), "newcomer", 100).
			addresses(drawMostlyFirst(t, []v1alpha1.IPAddress{"192.168.11.200", "192.168.11.201", "10.0.0.1"}, 2, 2)...).obj()
		s.VirtualServers = append(slices.Clone(s.VirtualServers), newcomer)
		_, after := For(s)
		after = slices.DeleteFunc(after, func(r Rejection) bool { return r.VirtualServer == nameOf(&newcomer) })
		if diff := cmp.Diff(before, after, byValue...); diff != "" {
			t.Fatalf("the verdicts of older ones change:\n%s", diff)
		}
	})
}

func TestForIsConsistent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		desired, rejections := For(s)
		refused := rejected(rejections)
		for service, owner := range desired.Owners {
			if _, ok := desired.State.Services[service]; !ok || refused[owner] || service.Key != s.Key {
				t.Errorf("service %v is of %s (refused: %t)", service, owner, refused[owner])
			}
			guard := netstate.GuardKey{VIP: s.Key.Addr, Protocol: service.Protocol, Port: service.Port}
			if _, guarded := desired.State.Guard[guard]; guarded != (s.Pool.Spec.Guard != v1alpha1.GuardDisabled) {
				t.Errorf("%v is in the guard: %t", guard, guarded)
			}
			guard.Marked = true
			if _, marks := desired.State.Guard[guard]; marks != service.Marked {
				t.Errorf("the guard marks %v: %t", guard, marks)
			}
		}
		if len(desired.Owners) != len(desired.State.Services) {
			t.Errorf("%d owners of %d services", len(desired.Owners), len(desired.State.Services))
		}
		for destination := range desired.State.Destinations {
			if _, ok := desired.State.Services[destination.Service]; !ok {
				t.Errorf("%v has no service", destination)
			}
			if _, director := s.Directors[destination.Addr]; director && !destination.Service.Marked {
				t.Errorf("%v is a director and its service is not marked", destination)
			}
		}
		for destination := range desired.Checks {
			if _, ok := desired.State.Destinations[destination]; !ok {
				t.Errorf("%v is checked and is no destination", destination)
			}
		}
		served := len(desired.State.Services) > 0
		if served != (len(desired.State.Addresses) == 1) {
			t.Errorf("%d addresses with services: %t", len(desired.State.Addresses), served)
		}
		assertServers(t, &s, &desired)
	})
}

func TestForServesEveryAcceptedServiceOnEveryAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		_, rejections := For(s)
		refused := rejected(rejections)
		owners := map[netstate.ServiceKey]types.NamespacedName{}
		namespaces := map[netstate.Key]string{}
		for i := range s.VirtualServers {
			vs := &s.VirtualServers[i]
			if refused[nameOf(vs)] {
				continue
			}
			for _, key := range Keys(vs) {
				if namespace, taken := namespaces[key]; taken && namespace != vs.Namespace {
					t.Fatalf("%s belongs to %s and to %s", key, namespace, vs.Namespace)
				}
				namespaces[key] = vs.Namespace
				for _, p := range vs.Spec.Ports {
					service := netstate.ServiceKey{Key: key, Protocol: netstate.TCP, Port: uint16(p.Port)}
					if other, taken := owners[service]; taken {
						t.Fatalf("%v is of %s and of %s", service, other, nameOf(vs))
					}
					owners[service] = nameOf(vs)
				}
			}
		}
		served := map[netstate.ServiceKey]types.NamespacedName{}
		for key := range namespaces {
			s.Key = key
			desired, _ := For(s)
			maps.Copy(served, unmarked(desired).Owners)
		}
		if diff := cmp.Diff(owners, served, byValue...); diff != "" {
			t.Fatalf("owners of all services (-accepted +served):\n%s", diff)
		}
	})
}

// TestVerdictsDoNotDependOnTheKey holds because a component is closed: a
// VirtualServer is judged the same whichever of its addresses it is met by.
func TestVerdictsDoNotDependOnTheKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawServers(t)
		verdicts := map[types.NamespacedName]bool{}
		for i := range all {
			for _, key := range Keys(&all[i]) {
				s := testSnapshot(key.String(), Component(key, namingOf(all))...)
				_, rejections := For(s)
				refused := rejected(rejections)
				for j := range s.VirtualServers {
					name := nameOf(&s.VirtualServers[j])
					if before, judged := verdicts[name]; judged && before != refused[name] {
						t.Fatalf("%s is refused by the snapshot of one key only", name)
					}
					verdicts[name] = refused[name]
				}
			}
		}
	})
}

// namingOf looks addresses up in a list.
func namingOf(all []v1alpha1.VirtualServer) func(netip.Addr) []v1alpha1.VirtualServer {
	return func(addr netip.Addr) []v1alpha1.VirtualServer {
		var naming []v1alpha1.VirtualServer
		for _, vs := range all {
			if slices.Contains(vs.Spec.Addresses, v1alpha1.IPAddress(addr.String())) {
				naming = append(naming, vs)
			}
		}
		return naming
	}
}

func TestComponent(t *testing.T) {
	all := []v1alpha1.VirtualServer{
		makeServer("shop", "c", 0).addresses("192.168.11.201", "192.168.11.202").obj(),
		makeServer("shop", "a", 0).obj(),
		makeServer("shop", "b", 0).addresses("192.168.11.200", "192.168.11.201").obj(),
		makeServer("shop", "far", 0).addresses("192.168.11.210").obj(),
		makeServer("blog", "z", 0).addresses("192.168.11.202", "not an address").obj(),
	}
	for vip, want := range map[string][]string{
		"192.168.11.200": {"blog/z", "shop/a", "shop/b", "shop/c"},
		"192.168.11.202": {"blog/z", "shop/a", "shop/b", "shop/c"},
		"192.168.11.210": {"shop/far"},
		"192.168.11.211": nil,
	} {
		t.Run(vip, func(t *testing.T) {
			asked := map[netip.Addr]int{}
			naming := namingOf(all)
			found := Component(netstate.Key{Addr: netip.MustParseAddr(vip)}, func(addr netip.Addr) []v1alpha1.VirtualServer {
				asked[addr]++
				return naming(addr)
			})
			var names []string
			for i := range found {
				names = append(names, nameOf(&found[i]).String())
			}
			if diff := cmp.Diff(want, names, byValue...); diff != "" {
				t.Errorf("component (-want +got):\n%s", diff)
			}
			for addr, times := range asked {
				if times != 1 || (len(asked) > 3) {
					t.Errorf("asked for %s %d times, %d addresses in all", addr, times, len(asked))
				}
			}
		})
	}
	if found := Component(netstate.Key{Mark: 1}, namingOf(all)); len(found) > 0 {
		t.Errorf("a firewall mark has the component %v, want none", found)
	}
}

func TestKeys(t *testing.T) {
	vs := makeServer("shop", "web", 0).addresses("fd00:11::200", "192.168.11.200", "nonsense", "192.168.11.200").obj()
	want := []netstate.Key{{Addr: netip.MustParseAddr("192.168.11.200")}, {Addr: netip.MustParseAddr("fd00:11::200")}}
	if diff := cmp.Diff(want, Keys(&vs), byValue...); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// FuzzFor feeds what no validation has seen: For never panics, and refuses or
// serves as TestForIsConsistent says.
func FuzzFor(f *testing.F) {
	for _, vs := range []v1alpha1.VirtualServer{
		makeServer("shop", "web", 0).obj(),
		makeServer("shop", "web", 0).addresses("fd00:11::200").obj(),
		makeServer("shop", "web", 0).spec(persistFor(0)).obj(),
		{},
	} {
		text, err := json.Marshal(vs)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"spec":{"addresses":["192.168.11.200"],"ports":[{"port":-1,"protocol":"GRE"}],"realServers":[{"address":"::","weight":-1}],"healthChecks":[{"port":-5,"interval":"-1s","failureThreshold":-1}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var vs v1alpha1.VirtualServer
		if json.Unmarshal(text, &vs) != nil {
			return
		}
		s := testSnapshot("192.168.11.200", vs, makeServer("shop", "young", 100).obj())
		s.Pool.Spec.Allow = append(s.Pool.Spec.Allow, v1alpha1.AllowRule{
			Addresses: []v1alpha1.AddressRange{"0.0.0.0/0", "::/0"}, RealServers: []v1alpha1.AddressRange{"0.0.0.0/0", "::/0"},
		})
		for _, key := range append(Keys(&vs), s.Key) {
			s.Key = key
			desired, rejections := For(s)
			for destination := range desired.State.Destinations {
				if _, ok := desired.State.Services[destination.Service]; !ok || !destination.Addr.IsGlobalUnicast() {
					t.Errorf("destination %v", destination)
				}
			}
			for _, checks := range desired.Checks {
				for _, check := range checks {
					s := check.Probe.Schedule
					if min(s.Interval, s.Timeout, s.RetryInterval) <= 0 || min(s.FailureThreshold, s.SuccessThreshold) < 1 || check.Probe.Target.Port == 0 {
						t.Errorf("check %+v", check)
					}
				}
			}
			for _, r := range rejections {
				if r.Reason == "" || r.Message == "" {
					t.Errorf("rejection %+v says nothing", r)
				}
			}
		}
	})
}
