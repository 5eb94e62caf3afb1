package realserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/controllers/virtualserver"
)

var request = reconcile.Request{NamespacedName: types.NamespacedName{Name: "node-a"}}

func TestAPodHasTheVIPsOfAllThatSelectIt(t *testing.T) {
	web := pod("web", "web")
	third, service := naming("third", "web", "web", "192.0.2.3")
	second := selecting("second", "web", "192.0.2.2", "192.0.2.1")
	second.Spec.Ports[0].Port = 81
	second.Spec.Drain = &v1alpha1.Drain{Timeout: &metav1.Duration{Duration: time.Minute}}
	elsewhere := selecting("elsewhere", "web", "192.0.2.9")
	elsewhere.Namespace = "other"
	s := newSetting(t, web, pod("db", "db"), selecting("first", "web", "192.0.2.1"), second, third, service, endpoints("web", web), elsewhere)
	s.pass(0)
	want := []Pod{{UID: "uid-web", Namespace: "shop", Name: "web", VIPs: []VIP{
		{netip.MustParseAddr("192.0.2.1"), 2 * time.Minute},
		{netip.MustParseAddr("192.0.2.2"), 2 * time.Minute},
		{netip.MustParseAddr("192.0.2.3"), 90 * time.Second},
	}}}
	if diff := cmp.Diff(want, s.agent.wanted[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.IgnoreUnexported(Pod{})); diff != "" {
		t.Errorf("wanted (-want +got):\n%s", diff)
	}
	if len(s.agent.wanted) != 1 {
		t.Errorf("the agent was told %d times, want once", len(s.agent.wanted))
	}
}

func TestAnAddressOfANodeIsNoVIPHereEither(t *testing.T) {
	s := newSetting(t, pod("web", "web"), selecting("first", "web", "10.0.0.1"))
	s.pass(0)
	if got := s.agent.has("uid-web"); got != nil {
		t.Errorf("the pod is to have %v", got)
	}
}

func TestTheNodeSaysWhatIsPrepared(t *testing.T) {
	s := newSetting(t, pod("web", "web"), pod("slow", "web"), pod("db", "db"), selecting("first", "web", "192.0.2.1"))
	s.agent.ignored["uid-slow"] = true
	s.pass(0)
	node := s.node()
	if node.Spec.NodeName != "node-a" || len(node.OwnerReferences) != 1 || node.OwnerReferences[0].UID != "node-uid" {
		t.Errorf("made %+v", node.ObjectMeta)
	}
	want := v1alpha1.RealServerNodeStatus{
		Pods: []v1alpha1.PreparedPod{
			{UID: "uid-slow", Namespace: "shop", Name: "slow", Problem: "it is ignored"},
			{UID: "uid-web", Namespace: "shop", Name: "web", Sandbox: "sandbox-uid-web", Addresses: []string{"192.0.2.1"}},
		},
		Counts: &v1alpha1.RealServerNodeCounts{Pods: 2, Prepared: 1},
		Conditions: []metav1.Condition{{
			Type: "Ready", Status: "False", Reason: "NotPrepared", LastTransitionTime: metav1.NewTime(s.now.Local()),
			Message: "1 of 2 pods lack a VIP: shop/slow (it is ignored)",
		}},
	}
	if diff := cmp.Diff(want, node.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	version := node.ResourceVersion
	s.pass(time.Hour)
	if again := s.node(); again.ResourceVersion != version {
		t.Error("it was written without a change")
	}
	s.delete(&node)
	s.pass(0)
	if again := s.node(); len(again.Status.Pods) != 2 {
		t.Errorf("after it was deleted it says %+v", again.Status)
	}
}

func TestWithoutTheContainerRuntimeTheNodeGoesOnSayingWhatItSaid(t *testing.T) {
	s := newSetting(t, pod("web", "web"), selecting("first", "web", "192.0.2.1"))
	s.pass(0)
	before := s.node().Status
	s.agent.err = errors.New("no answer from /run/x.sock")
	s.agent.reports = nil
	s.pass(time.Minute)
	after := s.node().Status
	condition := meta.FindStatusCondition(after.Conditions, "Ready")
	if condition.Reason != v1alpha1.ReasonCRIUnavailable || condition.Message != "no answer from /run/x.sock" {
		t.Errorf("condition %+v", condition)
	}
	after.Conditions, before.Conditions = nil, nil
	if diff := cmp.Diff(before, after); diff != "" || len(after.Pods) != 1 {
		t.Errorf("status changed (-before +after):\n%s", diff)
	}
	s.agent.err = nil
	s.pass(time.Second)
	if after := s.node().Status; len(after.Pods) != 1 || after.Pods[0].Addresses != nil {
		t.Errorf("status %+v when the runtime answers that there is nothing", after)
	}
}

func TestARestartKeepsWhatWasSaidUntilTheAgentHasLooked(t *testing.T) {
	s := newSetting(t, pod("web", "web"), pod("new", "web"), pod("db", "db"), selecting("first", "web", "192.0.2.1"), selecting("second", "db", "192.0.2.2"))
	s.pass(0)
	s.delete(selecting("second", ""))
	told := s.node().Status.Pods
	s.agent.ignored = map[types.UID]bool{"uid-web": true, "uid-new": true}
	s.agent.reports = nil
	s.restart()
	s.pass(time.Second)
	got := s.node().Status.Pods
	if diff := cmp.Diff(told[1:], got); diff != "" {
		t.Errorf("pods (-told +got):\n%s", diff)
	}
	// Another sandbox has nothing of the one before.
	s.agent.reports["uid-new"] = Report{UID: "uid-new", Sandbox: "another"}
	s.pass(time.Second)
	if got := s.node().Status.Pods[0]; got.Sandbox != "another" || got.Addresses != nil {
		t.Errorf("got %+v", got)
	}
	s.pass(10 * time.Second)
	if got := s.node().Status.Pods[1]; got.Sandbox != "" || got.Addresses != nil {
		t.Errorf("got %+v", got)
	}
}

func TestTheGateOpensWhenThePodHasWhatIsWanted(t *testing.T) {
	without := pod("without", "web")
	without.Spec.ReadinessGates = nil
	unready := pod("early", "web")
	unready.Status.PodIPs = nil
	s := newSetting(t, pod("web", "web"), pod("slow", "web"), pod("db", "db"), pod("no", "no"), without, unready,
		selecting("first", "web", "192.0.2.1"), selecting("refused", "no", "198.51.100.1"))
	s.agent.ignored["uid-slow"] = true
	s.pass(0)
	want := map[string]string{
		"web": "True Prepared", "slow": "False NotPrepared", "db": "True NotSelected", "no": "True NotNeeded",
		"without": "", "early": "",
	}
	got := map[string]string{}
	for name := range want {
		got[name] = s.gate(name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("gates (-want +got):\n%s", diff)
	}

	// A VIP that comes later takes nobody out of service.
	for _, uid := range []types.UID{"uid-web", "uid-db"} {
		s.agent.ignored[uid] = true
	}
	s.create(selecting("second", "web", "192.0.2.5"), selecting("third", "db", "192.0.2.6"))
	s.agent.reports = nil
	s.pass(time.Second)
	if web, db := s.gate("web"), s.gate("db"); web != "True Prepared" || db != "True NotSelected" {
		t.Errorf("gates %q and %q", web, db)
	}
	clear(s.agent.ignored)
	s.create(selecting("fourth", "none", "192.0.2.7"))
	s.agent.Want(s.agent.wanted[len(s.agent.wanted)-1])
	s.pass(time.Second)
	if slow, db := s.gate("slow"), s.gate("db"); slow != "True Prepared" || db != "True Prepared" {
		t.Errorf("gates %q and %q", slow, db)
	}
}

func TestTheGateWaitsForTheEndpointOfAService(t *testing.T) {
	web := pod("web", "web")
	vs, service := naming("first", "web", "web", "192.0.2.1")
	s := newSetting(t, web, pod("db", "db"), vs, service)
	s.pass(0)
	if got, db := s.gate("web"), s.gate("db"); got != "False NotPrepared" || db != "True NotSelected" {
		t.Errorf("gates %q and %q", got, db)
	}
	s.create(endpoints("web", web))
	s.pass(time.Second)
	if got := s.gate("web"); got != "True Prepared" {
		t.Errorf("gate %q", got)
	}
}

// many is a setting with n pods, each of which a VirtualServer of its own selects.
func many(t *testing.T, n int) *setting {
	t.Helper()
	s := newSetting(t)
	for i := range n {
		app := fmt.Sprint("app", i)
		s.create(pod(app, app), selecting(app, app, v1alpha1.IPAddress(fmt.Sprintf("192.0.2.%d", i+1))))
	}
	s.pass(0)
	return s
}

func TestAFewLossesAreBelieved(t *testing.T) {
	s := many(t, 4)
	s.delete(selecting("app0", ""), selecting("app1", ""))
	s.pass(0)
	if got := s.agent.has("uid-app0"); got == nil {
		t.Error("a loss was not gathered")
	}
	s.pass(time.Second)
	if s.agent.has("uid-app0") != nil || s.agent.has("uid-app1") != nil || s.agent.has("uid-app2") == nil {
		t.Errorf("wanted %v", s.agent.wanted[len(s.agent.wanted)-1])
	}
}

func TestAMassLossWaitsForTheAPIServer(t *testing.T) {
	s := many(t, 4)
	for _, name := range []string{"app0", "app1", "app2"} {
		s.delete(selecting(name, ""))
	}
	s.create(pod("new", "app3"))
	s.pass(0)
	if s.agent.has("uid-new") == nil {
		t.Error("what is new had to wait")
	}
	s.pass(time.Second)
	s.pass(9 * time.Second)
	if s.agent.has("uid-app0") == nil {
		t.Error("a mass loss was believed at once")
	}
	s.broken = true
	s.now = s.now.Add(time.Second)
	if _, err := s.made.Reconcile(t.Context(), request); !errors.Is(err, errAway) {
		t.Errorf("error %v, want that the API server was asked", err)
	}
	s.pass(time.Second)
	if s.agent.has("uid-app0") == nil {
		t.Error("a mass loss was believed without the API server")
	}
	s.broken = false
	s.pass(10 * time.Second)
	if s.agent.has("uid-app0") != nil || s.agent.has("uid-app2") != nil || s.agent.has("uid-app3") == nil {
		t.Errorf("wanted %v", s.agent.wanted[len(s.agent.wanted)-1])
	}
}

func TestAMassLossThatTheAPIServerDeniesDoesNotHappen(t *testing.T) {
	all := wants{}
	for i := range 4 {
		uid := types.UID(fmt.Sprint("uid", i))
		all[uid] = Pod{UID: uid, VIPs: []VIP{{Addr: netip.MustParseAddr("192.0.2.1")}}}
	}
	var d doubt
	look := func(context.Context) (wants, error) { return all, nil }
	for now := range 40 {
		give, again, err := d.judge(t.Context(), time.Unix(int64(now), 0), all, wants{}, look)
		if err != nil || again <= 0 || len(give) != 4 {
			t.Fatalf("after %d s: %v, again in %v, error %v", now, give, again, err)
		}
	}
}

func TestPodsThatAreGoneHaveNothingToLose(t *testing.T) {
	s := many(t, 2)
	for i := range 2 {
		s.delete(pod(fmt.Sprint("app", i), ""))
	}
	s.agent.reports = nil
	s.pass(0)
	if got := s.node().Status; got.Counts.Pods != 0 || len(got.Pods) != 0 {
		t.Errorf("status %+v", got)
	}
}

func TestOfManyAddressesThoseOfThePodAreListed(t *testing.T) {
	var all []netip.Addr
	for addr := netip.MustParseAddr("10.0.0.1"); len(all) < 20; addr = addr.Next() {
		all = append(all, addr)
	}
	if got := mattering(all[18:19], all); len(got) != 8 || got[0] != all[18] {
		t.Errorf("got %v", got)
	}
	if got := mattering(all[:1], all[2:4]); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestTheCacheKeepsWhatIsNeededAndNoMore(t *testing.T) {
	options := CacheOptions("node-a")
	for object, byObject := range options {
		if byObject.Transform == nil {
			t.Errorf("%T is kept whole", object)
		}
	}
	full := pod("web", "web")
	full.Annotations = map[string]string{"lvs-operator.io/weight": "2", "other": "x"}
	full.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Initialized"}}
	before := virtualserver.PlanPod(full)
	got := slimPod(full)
	if len(got.Spec.Containers) > 0 || len(got.Status.Conditions) != 1 {
		t.Errorf("kept %+v", got)
	}
	after := virtualserver.PlanPod(got)
	before.Annotations = map[string]string{"lvs-operator.io/weight": "2"}
	if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("plans see another pod (-before +after):\n%s", diff)
	}
}
