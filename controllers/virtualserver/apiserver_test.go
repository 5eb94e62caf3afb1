//go:build envtest

package virtualserver

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	directorcontroller "github.com/lvs-operator/lvs-operator/controllers/director"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
	"github.com/lvs-operator/lvs-operator/test/apiserver"
)

// apiServer is the one that the tests share.
var apiServer *apiserver.Server

func TestMain(m *testing.M) { apiserver.Main(m, func(s *apiserver.Server) { apiServer = s }) }

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := apiServer.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := apiServer.Client.Delete(context.WithoutCancel(t.Context()), object); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		})
	}
}

// eventually waits until check finds nothing missing.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	end := time.After(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-end:
			t.Fatal(err)
		case <-ticker.C:
		}
	}
}

// obedient is a director that brings about at once what is planned.
type obedient struct {
	mu     sync.Mutex
	node   string
	active bool
	plans  map[netip.Addr]plan.Desired
	synced int
	// servers tells the reporter.
	servers chan event.TypedGenericEvent[netstate.Key]
}

func (o *obedient) Site() Site {
	site := siteOfDefault()
	site.Node = o.node
	return site
}

func (o *obedient) Program(d plan.Desired) {
	o.mu.Lock()
	o.plans[d.Key.Addr] = d
	o.mu.Unlock()
	o.servers <- event.TypedGenericEvent[netstate.Key]{Object: d.Key}
}

func (o *obedient) Remove(key netstate.Key) {
	o.mu.Lock()
	delete(o.plans, key.Addr)
	o.mu.Unlock()
	o.servers <- event.TypedGenericEvent[netstate.Key]{Object: key}
}

func (o *obedient) Served() []netstate.Key {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []netstate.Key
	for vip := range maps.Keys(o.plans) {
		all = append(all, netstate.Key{Addr: vip})
	}
	return all
}

func (o *obedient) Synced(string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.synced++
}

func (o *obedient) Group(netip.Addr) int32 { return 0 }

func (o *obedient) Active(int32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.active
}

func (o *obedient) Term(int32) (int64, time.Time) { return 1, time.Time{} }

func (o *obedient) Plan(vip netip.Addr) (plan.Desired, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, served := o.plans[vip]
	return d, served
}

func (o *obedient) Address(vip netip.Addr) conditions.Address {
	d, served := o.Plan(vip)
	if !served {
		return conditions.Address{}
	}
	return conditions.Address{Programmed: true, State: d.State, Director: o.node}
}

func (o *obedient) Report(health.Probe) health.Report { return health.Report{} }

// setActive changes the director's part, and tells the reporter.
func (o *obedient) setActive(active bool) {
	o.mu.Lock()
	o.active = active
	o.mu.Unlock()
	o.servers <- event.TypedGenericEvent[netstate.Key]{}
}

// direct runs planner and reporter of a director.
func direct(t *testing.T, node string) (*obedient, *events.FakeRecorder) {
	t.Helper()
	mgr := newManager(t)
	o := &obedient{node: node, plans: map[netip.Addr]plan.Desired{}, servers: make(chan event.TypedGenericEvent[netstate.Key], 1024)}
	sites := make(chan event.TypedGenericEvent[netstate.Key], 1)
	sites <- event.TypedGenericEvent[netstate.Key]{}
	recorder := events.NewFakeRecorder(1024)
	for _, s := range []interface{ SetupWithManager(manager.Manager) error }{
		&Planner{Reader: mgr.GetClient(), Live: apiServer.Client, Director: o, SiteChanged: sites},
		&Reporter{Client: mgr.GetClient(), Director: o, Changed: o.servers, Events: recorder, Now: time.Now},
	} {
		if err := s.SetupWithManager(mgr); err != nil {
			t.Fatal(err)
		}
	}
	startManager(t, mgr)
	return o, recorder
}

// newManager makes a manager that does not run yet; its controllers may have the
// names of another's.
func newManager(t *testing.T) manager.Manager {
	t.Helper()
	skip := true
	mgr, err := manager.New(apiServer.Config, manager.Options{
		Scheme: apiServer.Scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip},
	})
	if err != nil {
		t.Fatal(err)
	}
	return mgr
}

// startManager runs a manager until the test ends.
func startManager(t *testing.T, mgr manager.Manager) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// told takes the events so far that hold a text.
func told(recorder *events.FakeRecorder, text string) (found []string) {
	for {
		select {
		case e := <-recorder.Events:
			if strings.Contains(e, text) {
				found = append(found, e)
			}
		default:
			return found
		}
	}
}

// is fails unless the VirtualServer has the conditions (as "True Ready") and is
// announced by the director; empty for none.
func is(name, director string, want ...string) func() error {
	return func() error {
		var vs v1alpha1.VirtualServer
		if err := apiServer.Client.Get(context.Background(), client.ObjectKey{Namespace: "shop", Name: name}, &vs); err != nil {
			return err
		}
		var got []string
		for _, kind := range []string{"Accepted", "Programmed", "Ready"} {
			if c := meta.FindStatusCondition(vs.Status.Conditions, kind); c != nil && c.ObservedGeneration == vs.Generation {
				got = append(got, string(c.Status)+" "+c.Reason)
			}
		}
		announced := ""
		for _, address := range vs.Status.Addresses {
			announced += address.Director
		}
		if !slices.Equal(got, want) || announced != director {
			return fmt.Errorf("%s is %v, announced by %q; want %v, %q", name, got, announced, want, director)
		}
		return nil
	}
}

// writers lists who owns a part of the status.
func writers(t *testing.T, name string) []string {
	t.Helper()
	var vs v1alpha1.VirtualServer
	if err := apiServer.Client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, &vs); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, fields := range vs.ManagedFields {
		if fields.Subresource == "status" {
			all = append(all, fields.Manager)
		}
	}
	return slices.Sorted(slices.Values(all))
}

func TestStatusFromTheFirstDirectorToTheNext(t *testing.T) {
	create(t, world()[:2]...)
	web := makeServer("web", "192.168.11.200")
	web.UID = ""
	create(t, web)
	first, firstTold := direct(t, "lb-1")
	second, secondTold := direct(t, "lb-2")
	first.setActive(true)
	good := []string{"True Accepted", "True Programmed", "True Ready"}
	eventually(t, is("web", "lb-1", good...))
	if got := writers(t, "web"); !slices.Equal(got, []string{"lvs-director/default-0", "lvs-director/reporter"}) {
		t.Errorf("the status is written by %v", got)
	}

	// An edit is reported for its own generation.
	if err := apiServer.Client.Get(t.Context(), client.ObjectKeyFromObject(web), web); err != nil {
		t.Fatal(err)
	}
	web.Spec.Scheduler = "rr"
	if err := apiServer.Client.Update(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	eventually(t, is("web", "lb-1", good...))
	if found := told(firstTold, "Programmed"); len(found) > 1 {
		t.Errorf("an edit was an event: %v", found)
	}

	// A successor takes the entries over; nobody is left with ghosts.
	first.setActive(false)
	second.setActive(true)
	eventually(t, is("web", "lb-2", good...))
	if got := writers(t, "web"); !slices.Equal(got, []string{"lvs-director/default-0", "lvs-director/reporter"}) {
		t.Errorf("the status is written by %v", got)
	}
	if found := told(secondTold, conditions.EventDirectorChanged); len(found) != 1 || !strings.Contains(found[0], "lb-2, before lb-1") {
		t.Errorf("told %q", found)
	}

	// Of two that claim one VIP and port the older serves, and the other says why.
	younger := makeServer("younger", "192.168.11.200")
	younger.UID = ""
	// Ages are counted in seconds.
	time.Sleep(time.Until(web.CreationTimestamp.Add(1100 * time.Millisecond)))
	create(t, younger)
	eventually(t, is("younger", "", "False Conflict", "False NotAccepted", "False NotAccepted"))
	if err := apiServer.Client.Get(t.Context(), client.ObjectKeyFromObject(younger), younger); err != nil {
		t.Fatal(err)
	}
	if c := meta.FindStatusCondition(younger.Status.Conditions, "Accepted"); !strings.Contains(c.Message, "shop/web") {
		t.Errorf("message = %q", c.Message)
	}
	eventually(t, is("web", "lb-2", good...))
	if err := apiServer.Client.Delete(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	eventually(t, is("younger", "lb-2", good...))
	if err := apiServer.Client.Delete(t.Context(), younger); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if served := append(first.Served(), second.Served()...); len(served) > 0 {
			return fmt.Errorf("still served: %v", served)
		}
		return nil
	})
	if first.synced == 0 || second.synced == 0 {
		t.Error("a planner has not handed everything over")
	}
}

func TestTheDirectorObject(t *testing.T) {
	create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "lb-9"}})
	who := &reported{pool: "default"}
	recorder := events.NewFakeRecorder(100)
	now := time.Date(2026, 1, 2, 12, 0, 0, 999, time.UTC)
	reporter := &directorcontroller.Reporter{
		Client: apiServer.Client, Node: "lb-9", Director: who, Events: recorder, Now: func() time.Time { return now },
	}
	look := func() *v1alpha1.Director {
		t.Helper()
		now = now.Add(2 * time.Second)
		if _, err := reporter.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		var director v1alpha1.Director
		err := apiServer.Client.Get(t.Context(), client.ObjectKey{Name: "lb-9"}, &director)
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return &director
	}
	if d := look(); d.Name != "" {
		t.Error("made before it is known which pool it is in")
	}
	who.decided = true
	d := look()
	if len(d.OwnerReferences) != 1 || d.OwnerReferences[0].Kind != "Node" || d.OwnerReferences[0].Name != "lb-9" || d.Spec.DirectorPoolName != "default" {
		t.Errorf("director = %+v", d)
	}
	who.outcome = conditions.DirectorOutcome{
		Address: netip.MustParseAddr("192.168.11.19"), Interface: "eth0", MAC: "02:00:00:00:00:19", KernelVersion: "7.1",
		Schedulers: []string{"wrr", "rr"}, TotalGroups: 1, Programmed: true, IPVS: conditions.IPVSAvailable, API: conditions.APIReachable,
		Groups: []v1alpha1.GroupStatus{{Epoch: 3, Since: metav1.NewTime(now)}},
		LastTransition: &v1alpha1.DirectorTransition{
			Reason: "Active: Vacant", Time: metav1.NewTime(now), Gap: &metav1.Duration{Duration: 1234 * time.Millisecond},
		},
		Lacking: conditions.Failure{Reason: v1alpha1.ReasonSchedulerUnavailable, Message: `the kernel has no scheduler "mh"`},
	}
	d = look()
	if !meta.IsStatusConditionTrue(d.Status.Conditions, "Ready") || !meta.IsStatusConditionFalse(d.Status.Conditions, "IPVSAvailable") {
		t.Errorf("conditions = %+v", d.Status.Conditions)
	}
	if found := told(recorder, "SchedulerUnavailable"); len(found) != 1 {
		t.Errorf("told %q", found)
	}
	// What is written once is not written again.
	for range 3 {
		if again := look(); again.ResourceVersion != d.ResourceVersion {
			t.Errorf("written again: %+v", again.Status)
			d = again
		}
	}
	if found := told(recorder, ""); len(found) > 0 {
		t.Errorf("told again: %q", found)
	}

	// One that somebody deletes is made again; of another pool it is another.
	if err := apiServer.Client.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if again := look(); again.UID == d.UID || again.Status.MAC != d.Status.MAC {
		t.Errorf("made again: %+v", again)
	}
	who.pool = "another"
	look()
	if d = look(); d.Spec.DirectorPoolName != "another" {
		t.Errorf("in another pool: %+v", d)
	}
	// Without a pool there is none; while it is not known, it stays.
	who.pool, who.decided = "", false
	if d = look(); d.Name == "" {
		t.Error("deleted while it is not known which pool it is in")
	}
	who.decided = true
	if d = look(); d.Name != "" {
		t.Errorf("still there: %+v", d)
	}
}

// reported is a director that says what it is told.
type reported struct {
	pool    string
	decided bool
	outcome conditions.DirectorOutcome
}

func (r *reported) PoolName() string                    { return r.pool }
func (r *reported) Marked() bool                        { return false }
func (r *reported) Decided() bool                       { return r.decided }
func (r *reported) Outcome() conditions.DirectorOutcome { return r.outcome }
