package conditions

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// DirectorEvent returns what people are told of a condition of a Director that
// was another one before (nil: it is new); the zero Event if that is no news.
// Being a candidate, or letting the kernel answer, comes and goes with other
// directors, and the condition shows it. Who claims an address is told by
// ConflictEvents, and here that nobody does any more.
func DirectorEvent(before *metav1.Condition, now metav1.Condition) Event {
	bad := now.Status == metav1.ConditionFalse
	switch now.Type {
	case v1alpha1.ConditionAddressConflict:
		if now.Status == metav1.ConditionTrue {
			return Event{}
		}
		bad = false
	case v1alpha1.ConditionReady, v1alpha1.ConditionIPVSAvailable:
	default:
		return Event{}
	}
	starting := now.Reason == v1alpha1.ReasonStarting || now.Status == metav1.ConditionUnknown
	wasGood := before == nil || before.Status == metav1.ConditionUnknown
	switch {
	case starting, !bad && wasGood && now.Type != v1alpha1.ConditionReady:
		return Event{}
	case bad:
		return Event{Type: Warning, Reason: now.Reason, Message: now.Message}
	default:
		return Event{Type: Normal, Reason: now.Reason, Message: now.Message}
	}
}

// conflictEvents is how many conflicts are told of at once: on a broken network
// there is no end of them, and the condition counts them.
const conflictEvents = 8

// ConflictEvents returns what people are told of conflicts that were not there
// before: each station is told of once for each VIP, however many frames it
// sends.
func ConflictEvents(before, now []Conflict) []Event {
	var all []Event
	for _, conflict := range now {
		if len(all) < conflictEvents && !slices.Contains(before, conflict) {
			all = append(all, Event{Type: Warning, Reason: conflict.reason(), Message: conflict.message()})
		}
	}
	return all
}
