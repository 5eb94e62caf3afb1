package conditions

import (
	"cmp"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// Syncing is how a director shares connections with the others. The zero Syncing
// is that nobody has tried yet.
type Syncing struct {
	// Disabled says that the DirectorPool does not want it.
	Disabled bool
	Running  bool
	// ColdUntil is when it will know the connections of the others; zero if it does.
	ColdUntil time.Time
	// Failure is why it does not run; none if it is zero.
	Failure Failure
}

func (s *sheet) connectionsSynced(in Syncing) {
	const kind = v1alpha1.ConditionConnectionsSynced
	switch {
	case in.Disabled:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonSyncDisabled, "the DirectorPool does not share connections")
	case in.Failure.is():
		s.set(kind, metav1.ConditionFalse, cmp.Or(in.Failure.Reason, v1alpha1.ReasonSyncFailed), in.Failure.Message)
	case !in.Running:
		s.set(kind, metav1.ConditionUnknown, v1alpha1.ReasonStarting, "connections are not shared yet")
	case !in.ColdUntil.IsZero():
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonCold,
			fmt.Sprintf("the connections of the other directors may not all be known before %s", in.ColdUntil.UTC().Format(time.RFC3339)))
	default:
		s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonSynced, "the connections of the other directors are known")
	}
}
