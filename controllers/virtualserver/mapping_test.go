package virtualserver

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// touchedBy checks which keys a change has planned.
func touchedBy(t *testing.T, got map[netstate.Key]struct{}, want ...string) {
	t.Helper()
	if diff := cmp.Diff(keys(want...), sortedKeys(got), addresses, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("touched (-want +got):\n%s", diff)
	}
}

// planning is a planner over VirtualServers of every kind, and more.
func planning(t *testing.T, more ...client.Object) *Planner {
	t.Helper()
	other := makeSelecting("other", "web", "192.168.11.209")
	other.Spec.DirectorPoolName = "another"
	broken := makeSelecting("broken", "web", "192.168.11.208")
	broken.Spec.PodSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Near"}}}
	elsewhere := makeSelecting("elsewhere", "web", "192.168.11.207")
	elsewhere.Namespace = "other"
	everything := makeSelecting("everything", "", "192.168.11.206")
	everything.Spec.PodSelector = &metav1.LabelSelector{}
	c := newClient(t, world(append(more,
		makeSelecting("web", "web", "192.168.11.200", "192.168.11.201"), makeSelecting("mail", "mail", "192.168.11.202"),
		makeNaming("web-svc", "web", "192.168.11.203"), makeNaming("mail-svc", "mail", "192.168.11.204"),
		makeServer("static", "192.168.11.205"), other, broken, elsewhere, everything,
	)...)...)
	return &Planner{Reader: c, Live: c, Director: &programmer{site: siteOfDefault()}, Workloads: filled(c, all)}
}

func TestAPodTouchesWhatSelectsItAndWhatItIsAnEndpointOf(t *testing.T) {
	web := makePod("web-1", "web", "node-1", "10.0.0.1")
	p := planning(t, makeSlice("web-1", "web", endpointOf(web)))
	selected := []string{"192.168.11.200", "192.168.11.201", "192.168.11.203", "192.168.11.206"}
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		want   []string
	}{
		"a heartbeat": {change: func(pod *corev1.Pod) {
			pod.ResourceVersion = "7"
			pod.Status.Conditions[1].LastProbeTime = metav1.Now()
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
		}},
		"somebody else's annotation": {change: func(pod *corev1.Pod) { pod.Annotations["elsewhere.example/checksum"] = "4567" }},
		"its weight":                 {change: func(pod *corev1.Pod) { pod.Annotations[v1alpha1.AnnotationWeight] = "6" }, want: selected},
		"its state":                  {change: func(pod *corev1.Pod) { pod.Annotations[v1alpha1.AnnotationState] = "Drained" }, want: selected},
		"readiness":                  {change: func(pod *corev1.Pod) { pod.Status.Conditions[1].Status = corev1.ConditionFalse }, want: selected},
		"termination":                {change: func(pod *corev1.Pod) { pod.DeletionTimestamp = new(metav1.Now()) }, want: selected},
		"its end":                    {change: func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }, want: selected},
		"an address":                 {change: func(pod *corev1.Pod) { pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: "fd00::1"}) }, want: selected},
		"its node":                   {change: func(pod *corev1.Pod) { pod.Spec.NodeName = "node-2" }, want: selected},
		"another label": {
			change: func(pod *corev1.Pod) { pod.Labels["app"] = "mail" },
			want:   []string{"192.168.11.200", "192.168.11.201", "192.168.11.202", "192.168.11.203", "192.168.11.206"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			after := web.DeepCopy()
			tc.change(after)
			touchedBy(t, p.podChanged(t.Context(), web, after), tc.want...)
		})
	}
	touchedBy(t, p.podChanged(t.Context(), nil, web), selected...)
	touchedBy(t, p.podChanged(t.Context(), web, nil), selected...)
	// Of another namespace, and not known as an endpoint.
	stranger := makePod("web-1", "web", "node-1", "10.0.0.1")
	stranger.Namespace = "other"
	touchedBy(t, p.podChanged(t.Context(), nil, stranger), "192.168.11.207")
	// Before the slices are known there is nobody to ask.
	p.Workloads.filled = pods
	touchedBy(t, p.podChanged(t.Context(), nil, web), "192.168.11.200", "192.168.11.201", "192.168.11.206")
}

func TestASliceTouchesWhatNamesItsService(t *testing.T) {
	p := planning(t)
	web := makeSlice("web-1", "web", endpointOf(makePod("web-1", "web", "node-1", "10.0.0.1")))
	for name, tc := range map[string]struct {
		change func(*discoveryv1.EndpointSlice)
		want   []string
	}{
		"nothing that counts": {change: func(s *discoveryv1.EndpointSlice) {
			s.ResourceVersion, s.Endpoints[0].Zone, s.Annotations = "7", new("b"), map[string]string{"a": "b"}
		}},
		"readiness":        {change: func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = new(false) }, want: []string{"192.168.11.203"}},
		"termination":      {change: func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Terminating = new(true) }, want: []string{"192.168.11.203"}},
		"a port":           {change: func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = new(int32(81)) }, want: []string{"192.168.11.203"}},
		"no endpoints":     {change: func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil }, want: []string{"192.168.11.203"}},
		"another pod":      {change: func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].TargetRef.UID = "new" }, want: []string{"192.168.11.203"}},
		"another Service":  {change: func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "mail" }, want: []string{"192.168.11.203", "192.168.11.204"}},
		"nobody's Service": {change: func(s *discoveryv1.EndpointSlice) { delete(s.Labels, discoveryv1.LabelServiceName) }, want: []string{"192.168.11.203"}},
	} {
		t.Run(name, func(t *testing.T) {
			after := web.DeepCopy()
			tc.change(after)
			touchedBy(t, p.sliceChanged(t.Context(), web, after), tc.want...)
		})
	}
	touchedBy(t, p.sliceChanged(t.Context(), nil, web), "192.168.11.203")
	touchedBy(t, p.sliceChanged(t.Context(), web, nil), "192.168.11.203")
	web.Namespace = "other"
	touchedBy(t, p.sliceChanged(t.Context(), nil, web))
}

func TestAnAgentTouchesWhatItSaysSomethingNewOf(t *testing.T) {
	web, mail := makePod("web-1", "web", "node-1", "10.0.0.1"), makePod("mail-1", "mail", "node-1", "10.0.0.2")
	far := makePod("mail-2", "mail", "node-2", "10.0.0.3")
	p := planning(t, web, mail, far)
	before := makeAgent("node-1", preparedWith(web, "192.168.11.200"), preparedWith(mail))
	for name, tc := range map[string]struct {
		before, after *v1alpha1.RealServerNode
		want          []string
	}{
		"the same of all": {before: before, after: makeAgent("node-1", preparedWith(mail), preparedWith(web, "192.168.11.200"))},
		"a VIP more": {
			before: before, after: makeAgent("node-1", preparedWith(web, "192.168.11.200"), preparedWith(mail, "192.168.11.202")),
			want: []string{"192.168.11.202", "192.168.11.206"},
		},
		"a pod less": {
			before: before, after: makeAgent("node-1", preparedWith(mail)),
			want: []string{"192.168.11.200", "192.168.11.201", "192.168.11.206"},
		},
		"a pod of another node": {before: before, after: makeAgent("node-1", append(before.Status.Pods, preparedWith(far, "192.168.11.202"))...)},
		"a pod of its own":      {after: makeAgent("node-2", preparedWith(far, "192.168.11.202")), want: []string{"192.168.11.202", "192.168.11.206"}},
		"a pod that nobody has": {before: before, after: makeAgent("node-1", append(before.Status.Pods, preparedWith(makePod("ghost", "web", "node-1", "10.0.0.9")))...)},
		"the agent is new":      {after: before, want: []string{"192.168.11.200", "192.168.11.201", "192.168.11.202", "192.168.11.206"}},
		"the agent is gone":     {before: before, want: []string{"192.168.11.200", "192.168.11.201", "192.168.11.202", "192.168.11.206"}},
	} {
		t.Run(name, func(t *testing.T) {
			touchedBy(t, p.preparationsChanged(t.Context(), tc.before, tc.after), tc.want...)
		})
	}
	p.Workloads.filled = realServerNodes
	touchedBy(t, p.preparationsChanged(t.Context(), nil, before))
}

func TestANodesStateTouchesItsPods(t *testing.T) {
	p := planning(t, makePod("web-1", "web", "node-1", "10.0.0.1"), makePod("mail-1", "mail", "node-2", "10.0.0.2"))
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-2"}}
	if got := p.onNode(t.Context(), node); !slices.Equal(got, keys("192.168.11.202", "192.168.11.206")) {
		t.Errorf("touched %v", got)
	}
	p.Workloads = nil
	if got := p.onNode(t.Context(), node); len(got) > 0 {
		t.Errorf("touched %v without pods", got)
	}

	drained := node.DeepCopy()
	drained.Annotations = map[string]string{v1alpha1.AnnotationState: "Drained"}
	beaten := drained.DeepCopy()
	beaten.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Now()}}
	if is := stateChanged(); !is.Update(event.UpdateEvent{ObjectOld: node, ObjectNew: drained}) ||
		!is.Update(event.UpdateEvent{ObjectOld: drained, ObjectNew: node}) ||
		is.Update(event.UpdateEvent{ObjectOld: drained, ObjectNew: beaten}) ||
		is.Create(event.CreateEvent{Object: drained}) || is.Delete(event.DeleteEvent{Object: drained}) {
		t.Error("a node's state is not all that counts")
	}
}

func TestAVirtualServersOwnStatusIsNoWork(t *testing.T) {
	before := makeServer("web", "192.168.11.200")
	reported, edited, drained := before.DeepCopy(), before.DeepCopy(), before.DeepCopy()
	reported.Status.Conditions = []metav1.Condition{{Type: "Ready"}}
	edited.Generation++
	drained.Annotations = map[string]string{v1alpha1.AnnotationDrainedServers: "192.168.11.135"}
	is := wantsChanged()
	for name, tc := range map[string]struct {
		after *v1alpha1.VirtualServer
		want  bool
	}{"status": {reported, false}, "spec": {edited, true}, "drained by an annotation": {drained, true}} {
		if got := is.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: tc.after}); got != tc.want {
			t.Errorf("%s: work = %t, want %t", name, got, tc.want)
		}
	}
}

func TestWhatThereIsToBeginWithIsNoChange(t *testing.T) {
	var got []string
	handler := changes(func(before, after *corev1.Pod) {
		name := func(pod *corev1.Pod) string {
			if pod == nil {
				return "-"
			}
			return pod.Name
		}
		got = append(got, name(before)+">"+name(after))
	})
	a, b := makePod("a", "", "", ""), makePod("b", "", "", "")
	handler.OnAdd(a, true)
	handler.OnAdd(a, false)
	handler.OnUpdate(a, b)
	handler.OnDelete(b)
	handler.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "shop/a", Obj: a})
	handler.OnAdd(&corev1.Node{}, false)
	if want := []string{"->a", "a>b", "b>-", "a>-"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

// The change of one slice of a Service with a thousand endpoints plans one key,
// whatever else there is.
func TestOneSliceOfAThousandEndpointsPlansItsKeyAlone(t *testing.T) {
	var objects []client.Object
	for i := range 50 {
		objects = append(objects, makeNaming(fmt.Sprintf("vs-%d", i), fmt.Sprintf("svc-%d", i), v1alpha1.IPAddress(fmt.Sprintf("192.168.11.%d", 100+i))))
	}
	var changed *discoveryv1.EndpointSlice
	for i := range 10 {
		slice := makeSlice(fmt.Sprintf("svc-7-%d", i), "svc-7")
		for j := range 100 {
			pod := makePod(fmt.Sprintf("web-%d-%d", i, j), "web", "node-1", fmt.Sprintf("10.0.%d.%d", i, j))
			slice.Endpoints = append(slice.Endpoints, endpointOf(pod))
			objects = append(objects, pod)
		}
		changed = slice
		objects = append(objects, slice)
	}
	c := newClient(t, world(objects...)...)
	p := &Planner{Reader: c, Live: c, Director: &programmer{site: siteOfDefault()}, Workloads: filled(c, all)}
	after := changed.DeepCopy()
	after.Endpoints[17].Conditions.Ready = new(false)
	touchedBy(t, p.sliceChanged(t.Context(), changed, after), "192.168.11.107")

	s, _, err := snapshot(t.Context(), c, p.Workloads, siteOfDefault(), "default", netstate.Key{Addr: netip.MustParseAddr("192.168.11.107")})
	if err != nil || len(s.Pods) != 1000 || len(s.VirtualServers) != 1 {
		t.Errorf("%d pods and %d VirtualServers, %v", len(s.Pods), len(s.VirtualServers), err)
	}
	for _, endpoints := range s.Endpoints {
		if len(endpoints) != 1000 {
			t.Errorf("%d endpoints", len(endpoints))
		}
	}
}
