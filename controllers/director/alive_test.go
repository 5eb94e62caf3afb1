package director

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// serving is the director lb-1 of the pool one, which has three groups. Its term in
// the first began at noon. The second is lb-2's, the third lb-3's, each in its epoch 5
// and since noon.
type serving int64

func (serving) PoolName() string { return "one" }

func (s serving) Term(group int32) (int64, time.Time) {
	if group != 0 {
		return 0, time.Time{}
	}
	return int64(s), noon
}

func (s serving) Holdings() []Holding {
	return []Holding{{"lb-1", int64(s), noon}, {"lb-2", 5, noon}, {"lb-3", 5, noon}}
}

// Died has lb-2 alive.
func (serving) Died(string) time.Time { return time.Time{} }

// bereft is serving, and saw lb-2 die at noon; of lb-2 if it holds a Lease.
type bereft struct {
	serving
	holds bool
}

func (b bereft) Holdings() []Holding {
	if b.holds {
		return b.serving.Holdings()
	}
	return []Holding{{"lb-1", int64(b.serving), noon}}
}

func (bereft) Died(node string) time.Time {
	if node != "lb-2" {
		return time.Time{}
	}
	return noon
}

func TestADirectorThatGossipSawDieIsNotAlive(t *testing.T) {
	node, ready := makeNode("lb-2", nil), makePod("lb-2", corev1.ConditionTrue)
	for name, tc := range map[string]struct {
		director bereft
		after    time.Duration
		objects  []client.Object
		want     string
		again    time.Duration
	}{
		"at once":                        {bereft{7, false}, time.Second, []client.Object{node, ready}, v1alpha1.ReasonSilent, silentTime - time.Second},
		"while it holds a Lease":         {bereft{7, true}, time.Second, []client.Object{node, ready}, v1alpha1.ReasonAlive, 0},
		"until its node counts again":    {bereft{7, false}, silentTime, []client.Object{node, ready}, v1alpha1.ReasonAlive, 0},
		"what its node says goes before": {bereft{7, false}, time.Second, []client.Object{ready}, v1alpha1.ReasonNodeNotReady, silentTime - time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, append(tc.objects, makeDirector("lb-2", "one", "Ready"))...)
			a := &Alive{Client: c, Node: "lb-1", Director: tc.director, Now: func() time.Time { return noon.Add(tc.after) }}
			result, err := a.Reconcile(t.Context(), reconcile.Request{})
			if err != nil || result.RequeueAfter != tc.again {
				t.Errorf("Reconcile() = %s, %v, want %s", result.RequeueAfter, err, tc.again)
			}
			var director v1alpha1.Director
			if err := c.Get(t.Context(), types.NamespacedName{Name: "lb-2"}, &director); err != nil {
				t.Fatal(err)
			}
			if have := meta.FindStatusCondition(director.Status.Conditions, v1alpha1.ConditionAlive); have == nil || have.Reason != tc.want {
				t.Errorf("condition = %+v, want reason %s", have, tc.want)
			}
		})
	}
}

func TestTheActiveDirectorSaysWhoIsAlive(t *testing.T) {
	dead := makeNode("lb-2", nil)
	dead.Status.Conditions[0].Status = corev1.ConditionUnknown
	node, ready := makeNode("lb-2", nil), makePod("lb-2", corev1.ConditionTrue)
	claiming := func(epoch int64) *v1alpha1.Director {
		d := makeDirector("lb-2", "one", "Ready")
		d.Status.Groups = []v1alpha1.GroupStatus{{Epoch: epoch}}
		return d
	}
	claimingOther := func(group int32, epoch int64) *v1alpha1.Director {
		d := makeDirector("lb-2", "one", "Ready")
		d.Status.Groups = []v1alpha1.GroupStatus{{Group: group, Epoch: epoch}}
		return d
	}
	for name, tc := range map[string]struct {
		term serving
		// after is how long ago the term began.
		after   time.Duration
		objects []client.Object
		want    string
		// again is when it is looked at again; 0 if there is only news to wait for.
		again time.Duration
	}{
		"one that is":                          {7, time.Hour, []client.Object{node, ready}, v1alpha1.ReasonAlive, 0},
		"one whose node is cut off":            {7, time.Hour, []client.Object{dead, ready}, v1alpha1.ReasonNodeNotReady, 0},
		"one whose node is gone":               {7, time.Hour, []client.Object{ready}, v1alpha1.ReasonNodeNotReady, 0},
		"one whose pod is gone":                {7, time.Hour, []client.Object{node}, v1alpha1.ReasonPodNotReady, 0},
		"nothing, if the Lease is not its own": {0, time.Hour, []client.Object{node, ready}, "", 0},
		"nothing of another pool's one":        {7, time.Hour, []client.Object{node, ready, makeDirector("lb-2", "two", "Ready")}, "", 0},

		"its predecessor, at first":              {7, 0, []client.Object{node, ready, claiming(6)}, v1alpha1.ReasonAlive, settleTime},
		"its predecessor, a little later":        {7, time.Second, []client.Object{node, ready, claiming(6)}, v1alpha1.ReasonAlive, settleTime - time.Second},
		"its predecessor that has not given up":  {7, settleTime, []client.Object{node, ready, claiming(6)}, v1alpha1.ReasonSuperseded, 0},
		"one that died handing over":             {7, settleTime, []client.Object{node, ready, claiming(7)}, v1alpha1.ReasonSuperseded, 0},
		"its successor":                          {7, time.Hour, []client.Object{node, ready, claiming(8)}, v1alpha1.ReasonAlive, 0},
		"one with a group of its own":            {7, time.Hour, []client.Object{node, ready, claimingOther(1, 5)}, v1alpha1.ReasonAlive, 0},
		"one with a third one's group, at first": {7, 0, []client.Object{node, ready, claimingOther(2, 4)}, v1alpha1.ReasonAlive, settleTime},
		"one with a third one's group":           {7, settleTime, []client.Object{node, ready, claimingOther(2, 4)}, v1alpha1.ReasonSuperseded, 0},
		"one with a group that nobody knows":     {7, time.Hour, []client.Object{node, ready, claimingOther(3, 1)}, v1alpha1.ReasonAlive, 0},
		"its predecessor whose node is cut off":  {7, settleTime, []client.Object{dead, ready, claiming(6)}, v1alpha1.ReasonNodeNotReady, 0},
	} {
		t.Run(name, func(t *testing.T) {
			objects := tc.objects
			if len(objects) < 3 {
				objects = append(objects, makeDirector("lb-2", "one", "Ready"))
			}
			c := newClient(t, objects...)
			a := &Alive{Client: c, Node: "lb-1", Director: tc.term, Now: func() time.Time { return noon.Add(tc.after) }}
			result, err := a.Reconcile(t.Context(), reconcile.Request{})
			if err != nil {
				t.Fatal(err)
			}
			if result.RequeueAfter != tc.again {
				t.Errorf("looked at again after %s, want %s", result.RequeueAfter, tc.again)
			}
			var director v1alpha1.Director
			if err := c.Get(t.Context(), types.NamespacedName{Name: "lb-2"}, &director); err != nil {
				t.Fatal(err)
			}
			condition := meta.FindStatusCondition(director.Status.Conditions, v1alpha1.ConditionAlive)
			switch {
			case tc.want == "" && condition != nil:
				t.Errorf("condition = %+v, want none", condition)
			case tc.want != "" && (condition == nil || condition.Reason != tc.want || (condition.Status == "True") != (tc.want == v1alpha1.ReasonAlive)):
				t.Errorf("condition = %+v, want reason %s", condition, tc.want)
			}
		})
	}
}

func TestTheActiveDirectorIsAliveItself(t *testing.T) {
	own := makeDirector("lb-2", "one", "Ready")
	own.Status.Groups = []v1alpha1.GroupStatus{{Epoch: 6}}
	c := newClient(t, own)
	a := &Alive{Client: c, Node: "lb-2", Director: serving(7), Now: func() time.Time { return noon.Add(time.Hour) }}
	if _, err := a.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
	var director v1alpha1.Director
	if err := c.Get(t.Context(), types.NamespacedName{Name: "lb-2"}, &director); err != nil {
		t.Fatal(err)
	}
	if !meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionAlive) {
		t.Errorf("conditions = %+v: it writes, and says that it is dead", director.Status.Conditions)
	}
}

func TestASupersededDirectorThatGivesUpIsAliveAgain(t *testing.T) {
	director := makeDirector("lb-2", "one", "Ready")
	director.Status.Groups = []v1alpha1.GroupStatus{{Epoch: 6}}
	c := newClient(t, makeNode("lb-2", nil), makePod("lb-2", corev1.ConditionTrue), director)
	a := &Alive{Client: c, Node: "lb-1", Director: serving(7), Now: func() time.Time { return noon.Add(time.Hour) }}
	for _, want := range []string{v1alpha1.ReasonSuperseded, v1alpha1.ReasonAlive} {
		if _, err := a.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), types.NamespacedName{Name: "lb-2"}, director); err != nil {
			t.Fatal(err)
		}
		if have := meta.FindStatusCondition(director.Status.Conditions, v1alpha1.ConditionAlive); have == nil || have.Reason != want {
			t.Fatalf("condition = %+v, want reason %s", have, want)
		}
		director.Status.Groups = nil
		if err := c.Status().Update(t.Context(), director); err != nil {
			t.Fatal(err)
		}
	}
}
