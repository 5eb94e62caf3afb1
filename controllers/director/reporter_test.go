package director

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
)

// reported is a director of the pool one that says what it is told.
type reported struct {
	conditions.DirectorOutcome
	pool   string
	marked bool
}

func (r *reported) PoolName() string                    { return r.pool }
func (*reported) Decided() bool                         { return true }
func (r *reported) Marked() bool                        { return r.marked }
func (r *reported) Outcome() conditions.DirectorOutcome { return r.DirectorOutcome }

func TestWhatADirectorSaidStaysWhileItsRoleIsPending(t *testing.T) {
	c := newClient(t, makeNode("lb-1", nil))
	now := noon
	active := conditions.DirectorOutcome{TotalGroups: 1, Groups: []v1alpha1.GroupStatus{{Epoch: 3, Since: metav1.NewTime(noon)}}}
	who := &reported{DirectorOutcome: active, pool: "one"}
	r := &Reporter{Client: c, Node: "lb-1", Director: who, Events: events.NewFakeRecorder(10), Now: func() time.Time { return now }}
	for _, step := range []struct {
		outcome conditions.DirectorOutcome
		want    string
		again   time.Duration
	}{
		{active, "1/1 groups", reportAudit},
		{conditions.DirectorOutcome{TotalGroups: 1, RolePending: true}, "1/1 groups", reportEvery},
		{active, "1/1 groups", reportAudit},
		{conditions.DirectorOutcome{TotalGroups: 1, RolePending: true}, "1/1 groups", reportEvery},
		{conditions.DirectorOutcome{TotalGroups: 1}, "0/1 groups", reportAudit},
	} {
		now = now.Add(2 * reportEvery)
		who.DirectorOutcome = step.outcome
		result, err := r.Reconcile(t.Context(), reconcile.Request{})
		if err != nil {
			t.Fatal(err)
		}
		var director v1alpha1.Director
		if err := c.Get(t.Context(), types.NamespacedName{Name: "lb-1"}, &director); err != nil {
			t.Fatal(err)
		}
		if shown := director.Status.Display; shown == nil || shown.Active != step.want || result.RequeueAfter != step.again {
			t.Errorf("shown %+v, looked at again after %s; want %q, %s", shown, result.RequeueAfter, step.want, step.again)
		}
	}
}

// Whoever waits for the Director to go waits for a clean node.
func TestADirectorIsShownUntilItsNodeIsCleanedUp(t *testing.T) {
	own := &v1alpha1.Director{}
	own.Name, own.Spec = "lb-1", v1alpha1.DirectorSpec{NodeName: "lb-1", DirectorPoolName: "one"}
	c := newClient(t, makeNode("lb-1", nil), own)
	who := &reported{marked: true}
	r := &Reporter{Client: c, Node: "lb-1", Director: who, Events: events.NewFakeRecorder(10), Now: time.Now}
	for _, there := range []bool{true, false} {
		who.marked = there
		if _, err := r.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		err := c.Get(t.Context(), types.NamespacedName{Name: "lb-1"}, &v1alpha1.Director{})
		if got := err == nil; got != there {
			t.Errorf("the Director is there: %t (%v), while something is to be cleaned up: %t", got, err, there)
		}
	}
}
