package director

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func newClient(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Director{}).Build()
}

func makeNode(name string, labels map[string]string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

func makePool(name string, age time.Duration, selector map[string]string) *v1alpha1.DirectorPool {
	return &v1alpha1.DirectorPool{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(noon.Add(-age))},
		Spec:       v1alpha1.DirectorPoolSpec{NodeSelector: metav1.LabelSelector{MatchLabels: selector}},
	}
}

// member notes what its membership does.
type member struct {
	pool   string
	marked bool
	failed error
	joined []string
	left   int
}

func (m *member) Join(pool v1alpha1.DirectorPool) {
	m.pool, m.marked, m.joined = pool.Name, true, append(m.joined, pool.Name)
}

func (m *member) Leave(context.Context) error {
	m.left++
	m.pool = ""
	m.marked = m.failed != nil
	return m.failed
}

func (m *member) PoolName() string { return m.pool }
func (m *member) Marked() bool     { return m.marked }

func TestMembership(t *testing.T) {
	lvs := map[string]string{"director": "true"}
	one := makePool("one", time.Hour, lvs)
	removedPool := func(mark string) *v1alpha1.DirectorPool {
		pool := makePool("one", time.Hour, lvs)
		pool.Annotations = map[string]string{v1alpha1.AnnotationRemoval: mark}
		return pool
	}
	ownPod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "lvs", Name: "director-x", UID: "pod", OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", UID: "set", Controller: new(true)}},
	}}
	for name, tc := range map[string]struct {
		objects  []client.Object
		member   member
		wantPool string
		// wantLeftAt is after how long the director leaves; negative if never.
		wantLeftAt time.Duration
	}{
		"the pool that selects the node": {
			objects:  []client.Object{makeNode("lb-1", lvs), one, makePool("other", 2*time.Hour, map[string]string{"a": "b"})},
			wantPool: "one", wantLeftAt: -1,
		},
		"the older of two": {
			objects:  []client.Object{makeNode("lb-1", lvs), one, makePool("older", 2*time.Hour, lvs)},
			wantPool: "older", wantLeftAt: -1,
		},
		"the first by name of two of the same age": {
			objects:  []client.Object{makeNode("lb-1", lvs), one, makePool("a", time.Hour, lvs)},
			wantPool: "a", wantLeftAt: -1,
		},
		"another pool than before": {
			objects: []client.Object{makeNode("lb-1", lvs), one}, member: member{pool: "before", marked: true},
			wantPool: "one", wantLeftAt: 0,
		},
		"the label was removed": {
			objects: []client.Object{makeNode("lb-1", nil), one}, member: member{pool: "one", marked: true},
			wantLeftAt: 0,
		},
		"the pool is gone": {
			objects: []client.Object{makeNode("lb-1", lvs)}, member: member{pool: "one", marked: true},
			wantLeftAt: missingPoolGrace,
		},
		"the node object is gone": {
			objects: []client.Object{one}, member: member{pool: "one", marked: true},
			wantLeftAt: missingPoolGrace,
		},
		"an earlier process left something, and no pool selects the node": {
			objects: []client.Object{makeNode("lb-1", nil), one}, member: member{marked: true},
			wantLeftAt: missingPoolGrace,
		},
		"the pool is being removed": {
			objects: []client.Object{makeNode("lb-1", lvs), ownPod, removedPool("set")}, member: member{pool: "one", marked: true},
			wantLeftAt: 0,
		},
		"a pool that is being removed is not joined": {
			objects: []client.Object{makeNode("lb-1", lvs), ownPod, removedPool("set")}, wantLeftAt: 0,
		},
		"an earlier installation was removed": {
			objects:  []client.Object{makeNode("lb-1", lvs), ownPod, removedPool("earlier")},
			wantPool: "one", wantLeftAt: -1,
		},
		"a director without a pod is removed by nobody": {
			objects:  []client.Object{makeNode("lb-1", lvs), removedPool("set")},
			wantPool: "one", wantLeftAt: -1,
		},
		"nothing to do and nothing to clean up": {
			objects: []client.Object{makeNode("lb-1", nil)}, wantLeftAt: 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			now, leftAt := noon, time.Duration(-1)
			reader := newClient(t, tc.objects...)
			m := &Membership{
				Reader: reader, Node: "lb-1", Member: &tc.member, Now: func() time.Time { return now },
				Installation: Installation{Reader: reader, Namespace: "lvs", PodUID: "pod"},
			}
			for now.Before(noon.Add(time.Minute)) && leftAt < 0 {
				result, err := m.Reconcile(t.Context(), reconcile.Request{})
				if err != nil {
					t.Fatal(err)
				}
				if tc.member.left > 0 {
					leftAt = now.Sub(noon)
				}
				if result.RequeueAfter == 0 {
					break
				}
				now = now.Add(result.RequeueAfter)
			}
			if tc.member.pool != tc.wantPool || leftAt != tc.wantLeftAt {
				t.Errorf("in pool %q, left at %s; want %q, %s", tc.member.pool, leftAt, tc.wantPool, tc.wantLeftAt)
			}
		})
	}
}

func TestAPoolThatComesBackWithinTheGraceCostsNothing(t *testing.T) {
	now := noon
	c := newClient(t, makeNode("lb-1", nil))
	who := &member{pool: "one", marked: true}
	m := &Membership{Reader: c, Node: "lb-1", Member: who, Now: func() time.Time { return now }}
	for range 3 {
		reconcileMembership(t, m)
		now = now.Add(missingPoolGrace - time.Second)
		if err := c.Create(t.Context(), makePool("one", 0, nil)); err != nil {
			t.Fatal(err)
		}
		reconcileMembership(t, m)
		if err := c.Delete(t.Context(), makePool("one", 0, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if who.left > 0 || who.pool != "one" {
		t.Errorf("left %d times, in pool %q", who.left, who.pool)
	}
}

func reconcileMembership(t *testing.T, m *Membership) {
	t.Helper()
	if _, err := m.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
}

func TestALeaveThatFailedIsTriedAgain(t *testing.T) {
	now := noon
	who := &member{pool: "one", marked: true, failed: errors.New("the kernel is busy")}
	m := &Membership{
		Reader: newClient(t, makeNode("lb-1", nil), makePool("one", 0, map[string]string{"a": "b"})),
		Node:   "lb-1", Member: who, Now: func() time.Time { return now },
	}
	if _, err := m.Reconcile(t.Context(), reconcile.Request{}); !errors.Is(err, who.failed) {
		t.Fatalf("err = %v", err)
	}
	who.failed = nil
	reconcileMembership(t, m)
	now = now.Add(missingPoolGrace)
	reconcileMembership(t, m)
	if who.left != 2 || who.marked {
		t.Errorf("left %d times, marked: %t", who.left, who.marked)
	}
}

// befriended notes its peers.
type befriended struct {
	pool  string
	told  int
	own   Rank
	peers []Peer
}

func (b *befriended) PoolName() string { return b.pool }
func (b *befriended) SetPeers(own Rank, peers []Peer) {
	b.told, b.own, b.peers = b.told+1, own, peers
}

func makeDirector(name, pool string, conditions ...string) *v1alpha1.Director {
	d := &v1alpha1.Director{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.DirectorSpec{NodeName: name, DirectorPoolName: pool},
		Status:     v1alpha1.DirectorStatus{Address: "192.168.11.12", MAC: "02:00:00:00:00:12"},
	}
	for _, kind := range conditions {
		d.Status.Conditions = append(d.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue})
	}
	return d
}

func makePod(node string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "lvs", Name: "director-" + node, Labels: map[string]string{ComponentLabel: ComponentDirector}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

func TestPeers(t *testing.T) {
	deleted := makePod("lb-2", corev1.ConditionTrue)
	deleted.DeletionTimestamp, deleted.Finalizers = &metav1.Time{Time: noon}, []string{"a/b"}
	unready := makeNode("lb-2", nil)
	unready.Status.Conditions[0].Status = corev1.ConditionUnknown
	good := []client.Object{makeDirector("lb-2", "one", "Ready", "Candidate"), makeNode("lb-2", nil), makePod("lb-2", corev1.ConditionTrue)}
	peer := Peer{Node: "lb-2", Address: netip.MustParseAddr("192.168.11.12"), MAC: "02:00:00:00:00:12", Live: true, Candidate: true}
	with := func(change func(*Peer)) []Peer {
		changed := peer
		change(&changed)
		return []Peer{changed}
	}
	dead := with(func(p *Peer) { p.Live = false })
	idle := func(p *Peer) { p.Candidate = false }
	refusing := makeDirector("lb-2", "one", "Ready", "Candidate")
	refusing.Status.Conditions = append(refusing.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionFullyProgrammed, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonKernelError,
	})
	listening := func(status metav1.ConditionStatus, reason string) *v1alpha1.Director {
		d := makeDirector("lb-2", "one", "Ready", "Candidate")
		d.Status.SyncAddress = "198.51.100.12"
		d.Status.Conditions = append(d.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionConnectionsSynced, Status: status, Reason: reason,
		})
		return d
	}
	shares := func(p *Peer) { p.SyncAddress = netip.MustParseAddr("198.51.100.12") }
	cold := func(p *Peer) { shares(p); p.Cold = true }
	for name, tc := range map[string]struct {
		objects []client.Object
		want    []Peer
	}{
		"it shares connections":      {[]client.Object{listening(metav1.ConditionTrue, v1alpha1.ReasonSynced), good[1], good[2]}, with(shares)},
		"it has just begun to":       {[]client.Object{listening(metav1.ConditionFalse, v1alpha1.ReasonCold), good[1], good[2]}, with(cold)},
		"it is about to":             {[]client.Object{listening(metav1.ConditionUnknown, v1alpha1.ReasonStarting), good[1], good[2]}, with(cold)},
		"it cannot":                  {[]client.Object{listening(metav1.ConditionFalse, v1alpha1.ReasonSyncFailed), good[1], good[2]}, with(shares)},
		"its kernel refuses some":    {[]client.Object{refusing, good[1], good[2]}, with(func(p *Peer) { p.Impaired = true })},
		"a live one":                 {good, []Peer{peer}},
		"the director itself":        {[]client.Object{makeDirector("lb-1", "one", "Ready"), makeNode("lb-1", nil), makePod("lb-1", corev1.ConditionTrue)}, nil},
		"of another pool":            {[]client.Object{makeDirector("lb-2", "two", "Ready"), good[1], good[2]}, nil},
		"not ready":                  {[]client.Object{makeDirector("lb-2", "one", "Candidate"), good[1], good[2]}, dead},
		"its node is not ready":      {[]client.Object{good[0], unready, good[2]}, dead},
		"its node is gone":           {[]client.Object{good[0], good[2]}, dead},
		"its pod is not ready":       {[]client.Object{good[0], good[1], makePod("lb-2", corev1.ConditionFalse)}, dead},
		"its pod is being deleted":   {[]client.Object{good[0], good[1], deleted}, dead},
		"its pod is gone":            {good[:2], dead},
		"no candidate":               {[]client.Object{makeDirector("lb-2", "one", "Ready"), good[1], good[2]}, with(idle)},
		"its kernel answers for all": {[]client.Object{makeDirector("lb-2", "one", "Ready", "KernelAnswers"), good[1], good[2]}, with(func(p *Peer) { p.Candidate, p.KernelAnswers = false, true })},
		"two, in order": {
			append([]client.Object{makeDirector("lb-0", "one", "Ready"), makeNode("lb-0", nil), makePod("lb-0", corev1.ConditionTrue)}, good...),
			append(with(func(p *Peer) { p.Node, p.Candidate = "lb-0", false }), peer),
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &befriended{pool: "one"}
			p := &Peers{Reader: newClient(t, append(slices.Clone(tc.objects), makePool("one", 0, nil))...), Node: "lb-1", Director: b}
			if _, err := p.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, b.peers, cmpopts.EquateComparable(netip.Addr{})); diff != "" || b.told != 1 {
				t.Errorf("told %d times (-want +got):\n%s", b.told, diff)
			}
		})
	}
}

func TestADirectorInNoPoolIsNotTakenForAlone(t *testing.T) {
	b := &befriended{}
	result, err := (&Peers{Reader: newClient(t), Node: "lb-1", Director: b}).Reconcile(t.Context(), reconcile.Request{})
	if err != nil || result.RequeueAfter == 0 || b.told > 0 {
		t.Errorf("result %+v, err %v, told %d times", result, err, b.told)
	}
}

func TestRanks(t *testing.T) {
	pool := makePool("one", 0, nil)
	pool.Spec.Election.Priorities = []v1alpha1.NodePriority{
		{NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"site": "a"}}, Priority: new(int32(100))},
		{NodeSelector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "site", Operator: "Guess"}}}, Priority: new(int32(70))},
		{NodeSelector: metav1.LabelSelector{}, Priority: new(int32(50))},
	}
	cordoned := func(node *corev1.Node) { node.Spec.Unschedulable = true }
	tainted := func(key string, effect corev1.TaintEffect) func(*corev1.Node) {
		return func(node *corev1.Node) { node.Spec.Taints = []corev1.Taint{{Key: key, Effect: effect}} }
	}
	for name, tc := range map[string]struct {
		labels map[string]string
		change func(*corev1.Node)
		want   Rank
	}{
		"the first entry that selects it": {labels: map[string]string{"site": "a"}, want: Rank{Priority: 100}},
		"a later one":                     {labels: map[string]string{"site": "b"}, want: Rank{Priority: 50}},
		"cordoned":                        {change: cordoned, want: Rank{Priority: 50, Cordoned: true}},
		"to be emptied":                   {change: tainted("site/repair", corev1.TaintEffectNoExecute), want: Rank{Priority: 50, Cordoned: true}},
		"to be removed by the autoscaler": {change: tainted(autoscalerTaint, corev1.TaintEffectNoSchedule), want: Rank{Priority: 50, Cordoned: true}},
		"not schedulable for most pods":   {change: tainted("node-role.kubernetes.io/lb", corev1.TaintEffectNoSchedule), want: Rank{Priority: 50}},
		"cut off for a moment":            {change: tainted(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute), want: Rank{Priority: 50}},
	} {
		t.Run(name, func(t *testing.T) {
			node := makeNode("lb-1", tc.labels)
			other := makeNode("lb-2", tc.labels)
			if tc.change != nil {
				tc.change(node)
				tc.change(other)
			}
			b := &befriended{pool: "one"}
			reader := newClient(t, pool, node, other, makeDirector("lb-2", "one", "Ready"), makePod("lb-2", corev1.ConditionTrue))
			if _, err := (&Peers{Reader: reader, Node: "lb-1", Director: b}).Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
			if b.own != tc.want || len(b.peers) != 1 || b.peers[0].Rank != tc.want {
				t.Errorf("own %+v, peers %+v, want %+v for both", b.own, b.peers, tc.want)
			}
		})
	}
}
