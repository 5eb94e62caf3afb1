//go:build envtest

package virtualserver

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// farmer is a director of pool farm that counts what is planned.
type farmer struct {
	mu      sync.Mutex
	planned map[netip.Addr]int
	removed int
	synced  int
}

func (f *farmer) Site() Site {
	site := siteOfDefault()
	site.Pool = "farm"
	return site
}

func (f *farmer) Program(d plan.Desired) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planned[d.Key.Addr]++
}

func (f *farmer) Remove(netstate.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed++
}

func (f *farmer) Served() []netstate.Key { return nil }

func (f *farmer) Synced(string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced++
}

func (f *farmer) counts() map[netip.Addr]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.planned)
}

// asked records which resources a manager asks the API server for.
type asked struct {
	http.RoundTripper
	mu        sync.Mutex
	resources map[string]bool
}

func (a *asked) RoundTrip(request *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.resources[path.Base(request.URL.Path)] = true
	a.mu.Unlock()
	return a.RoundTripper.RoundTrip(request)
}

func (a *asked) workloads() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, resource := range []string{"endpointslices", "pods", "realservernodes"} {
		if a.resources[resource] {
			all = append(all, resource)
		}
	}
	return all
}

// farm runs a planner.
func farm(t *testing.T) (*farmer, *Planner, *asked) {
	t.Helper()
	watching := &asked{resources: map[string]bool{}}
	watched := rest.CopyConfig(apiServer.Config)
	watched.Wrap(func(rt http.RoundTripper) http.RoundTripper { watching.RoundTripper = rt; return watching })
	skip := true
	mgr, err := manager.New(watched, manager.Options{
		Scheme: apiServer.Scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip},
	})
	if err != nil {
		t.Fatal(err)
	}
	workloads, err := NewWorkloads(mgr)
	if err != nil {
		t.Fatal(err)
	}
	f := &farmer{planned: map[netip.Addr]int{}}
	sites := make(chan event.TypedGenericEvent[netstate.Key], 1)
	sites <- event.TypedGenericEvent[netstate.Key]{}
	planner := &Planner{Reader: mgr.GetClient(), Live: apiServer.Client, Director: f, Workloads: workloads, SiteChanged: sites}
	if err := planner.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	startManager(t, mgr)
	return f, planner, watching
}

// inFarm moves what the other tests make to a namespace and pool of their own.
func inFarm[T client.Object](object T) T {
	object.SetNamespace("farm")
	object.SetUID("")
	if vs, ok := any(object).(*v1alpha1.VirtualServer); ok {
		vs.Spec.DirectorPoolName = "farm"
	}
	return object
}

// grow creates a pod and says of it what a kubelet would.
func grow(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	status := pod.Status
	create(t, pod)
	pod.Status = status
	if err := apiServer.Client.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

func TestWorkloadsFromTheAPIServer(t *testing.T) {
	create(t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "farm"}},
		&v1alpha1.DirectorPool{
			ObjectMeta: metav1.ObjectMeta{Name: "farm"},
			Spec: v1alpha1.DirectorPoolSpec{Allow: []v1alpha1.AllowRule{{
				Addresses: []v1alpha1.AddressRange{"192.168.11.0/24"}, RealServers: []v1alpha1.AddressRange{"192.168.11.0/24"},
			}}},
		},
		inFarm(makeServer("static", "192.168.11.230")),
	)
	static, selected, named := netip.MustParseAddr("192.168.11.230"), netip.MustParseAddr("192.168.11.231"), netip.MustParseAddr("192.168.11.232")
	f, planner, watching := farm(t)
	seen := func(vip netip.Addr) plan.Snapshot {
		s, lacking, err := snapshot(t.Context(), planner.Reader, planner.Workloads, f.Site(), "farm", netstate.Key{Addr: vip})
		if err != nil || lacking != 0 {
			return plan.Snapshot{}
		}
		return s
	}
	plannedAgain := func(vip netip.Addr, before map[netip.Addr]int) func() error {
		return func() error {
			if f.counts()[vip] == before[vip] {
				return fmt.Errorf("%s is not planned again", vip)
			}
			return nil
		}
	}

	// Nobody needs pods: nobody asks for them.
	eventually(t, plannedAgain(static, nil))
	eventually(t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.synced == 0 {
			return fmt.Errorf("not synced")
		}
		return nil
	})
	if got := watching.workloads(); len(got) > 0 {
		t.Fatalf("asked for %v", got)
	}

	// The first that selects pods needs no EndpointSlices.
	create(t, inFarm(makeSelecting("selecting", "web", "192.168.11.231")))
	eventually(t, plannedAgain(selected, nil))
	if got := watching.workloads(); !slices.Equal(got, []string{"pods", "realservernodes"}) {
		t.Errorf("asked for %v", got)
	}
	create(t, inFarm(makeNaming("naming", "web", "192.168.11.232")))
	eventually(t, plannedAgain(named, nil))
	if got := watching.workloads(); len(got) != 3 {
		t.Errorf("asked for %v", got)
	}

	// From nothing to two pods.
	web1, web2 := inFarm(makePod("web-1", "web", "node-1", "10.0.0.1")), inFarm(makePod("web-2", "web", "node-1", "10.0.0.2"))
	web2.Finalizers = []string{"test.example/stay"}
	grow(t, web1)
	grow(t, web2)
	ready := func(n int) func() error {
		return func() error {
			var up int
			for _, pod := range seen(selected).Pods {
				if pod.Ready && !pod.Terminating && len(pod.Addresses) == 1 && pod.Annotations[v1alpha1.AnnotationWeight] == "5" && len(pod.Annotations) == 1 {
					up++
				}
			}
			if up != n {
				return fmt.Errorf("%d pods are up, want %d: %+v", up, n, seen(selected).Pods)
			}
			return nil
		}
	}
	eventually(t, ready(2))

	// What the agent says.
	agent := makeAgent("node-1")
	create(t, agent)
	before := f.counts()
	agent.Status.Pods = []v1alpha1.PreparedPod{preparedWith(web1, "192.168.11.231")}
	if err := apiServer.Client.Status().Update(t.Context(), agent); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if p := seen(selected).Prepared[web1.UID]; !slices.Equal(p.VIPs, []netip.Addr{selected}) {
			return fmt.Errorf("prepared with %+v", p)
		}
		return nil
	})
	eventually(t, plannedAgain(selected, before))

	// A slice and its change touch what names its Service, and nothing else.
	slice := inFarm(makeSlice("web-abcde", "web", endpointOf(web1), endpointOf(web2)))
	for i := range slice.Endpoints {
		slice.Endpoints[i].TargetRef.Namespace = "farm"
	}
	before = f.counts()
	create(t, slice)
	eventually(t, plannedAgain(named, before))
	before = f.counts()
	slice.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false)}
	if err := apiServer.Client.Update(t.Context(), slice); err != nil {
		t.Fatal(err)
	}
	eventually(t, plannedAgain(named, before))
	if s := seen(named); len(s.Pods) != 2 || len(s.Endpoints) != 1 {
		t.Errorf("seen %+v", s)
	}
	after := f.counts()
	if after[static] != before[static] || after[selected] != before[selected] {
		t.Errorf("planned %v, before the slice %v", after, before)
	}

	// A pod's heartbeat is no work; its termination is.
	before = f.counts()
	web1.Status.Message = "still here"
	if err := apiServer.Client.Status().Update(t.Context(), web1); err != nil {
		t.Fatal(err)
	}
	if err := apiServer.Client.Delete(t.Context(), web2); err != nil {
		t.Fatal(err)
	}
	eventually(t, ready(1))
	eventually(t, plannedAgain(selected, before))
	eventually(t, plannedAgain(named, before))
	if after = f.counts(); after[selected] != before[selected]+1 || after[static] != before[static] {
		t.Errorf("planned %v, before the termination %v", after, before)
	}

	// To zero, and back.
	if err := apiServer.Client.Get(t.Context(), client.ObjectKeyFromObject(web2), web2); err != nil {
		t.Fatal(err)
	}
	web2.Finalizers = nil
	if err := apiServer.Client.Update(t.Context(), web2); err != nil {
		t.Fatal(err)
	}
	if err := apiServer.Client.Delete(t.Context(), web1, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if err := apiServer.Client.Delete(t.Context(), web2, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if left := seen(selected).Pods; len(left) > 0 || len(seen(selected).VirtualServers) != 1 {
			return fmt.Errorf("left %+v", left)
		}
		return nil
	})
	before = f.counts()
	grow(t, inFarm(makePod("web-3", "web", "node-1", "10.0.0.3")))
	eventually(t, ready(1))
	eventually(t, plannedAgain(selected, before))
	if f.removed > 0 {
		t.Errorf("%d keys were taken out of service", f.removed)
	}
}
