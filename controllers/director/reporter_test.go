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
type reported struct{ conditions.DirectorOutcome }

func (*reported) PoolName() string                      { return "one" }
func (*reported) Decided() bool                         { return true }
func (r *reported) Outcome() conditions.DirectorOutcome { return r.DirectorOutcome }

func TestWhatADirectorSaidStaysWhileItsRoleIsPending(t *testing.T) {
	c := newClient(t, makeNode("lb-1", nil))
	now := noon
	active := conditions.DirectorOutcome{TotalGroups: 1, Groups: []v1alpha1.GroupStatus{{Epoch: 3, Since: metav1.NewTime(noon)}}}
	who := &reported{active}
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
