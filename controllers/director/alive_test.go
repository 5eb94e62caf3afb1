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

// serving is a director that is active or not.
type serving bool

func (serving) PoolName() string { return "one" }
func (s serving) Active() bool   { return bool(s) }

func TestTheActiveDirectorSaysWhoIsAlive(t *testing.T) {
	dead := makeNode("lb-2", nil)
	dead.Status.Conditions[0].Status = corev1.ConditionUnknown
	ready := makePod("lb-2", corev1.ConditionTrue)
	for name, tc := range map[string]struct {
		active  serving
		objects []client.Object
		want    string
	}{
		"one that is":                   {true, []client.Object{makeNode("lb-2", nil), ready}, v1alpha1.ReasonAlive},
		"one whose node is cut off":     {true, []client.Object{dead, ready}, v1alpha1.ReasonNodeNotReady},
		"one whose node is gone":        {true, []client.Object{ready}, v1alpha1.ReasonNodeNotReady},
		"one whose pod is gone":         {true, []client.Object{makeNode("lb-2", nil)}, v1alpha1.ReasonPodNotReady},
		"nothing, if it is not active":  {false, []client.Object{makeNode("lb-2", nil), ready}, ""},
		"nothing of another pool's one": {true, []client.Object{makeNode("lb-2", nil), ready, makeDirector("lb-2", "two", "Ready")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			objects := tc.objects
			if len(objects) < 3 {
				objects = append(objects, makeDirector("lb-2", "one", "Ready"))
			}
			c := newClient(t, objects...)
			a := &Alive{Client: c, Director: tc.active, Now: func() time.Time { return noon }}
			if _, err := a.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
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
