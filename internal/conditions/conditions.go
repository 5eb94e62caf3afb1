// Package conditions turns what became of a VirtualServer, and how a director
// is, into status, events and the applies that write them. It is pure: the time
// is passed in, and what was shown before comes with the object.
package conditions

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// Failure says why something is not as it should be. Reason is a constant of
// v1alpha1; the zero Failure is none.
type Failure struct {
	Reason, Message string
}

func (f Failure) is() bool { return f != Failure{} }

// longestMessage is what the API server accepts as a condition's message.
const longestMessage = 32768

// sheet is where conditions are noted: each keeps the transition time that it
// had if its status is the same.
type sheet struct {
	previous   []metav1.Condition
	generation int64
	now        time.Time
	conditions []metav1.Condition
}

func (s *sheet) set(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	condition := metav1.Condition{
		Type: kind, Status: status, Reason: reason,
		Message:            shorten(message, longestMessage),
		ObservedGeneration: s.generation,
		LastTransitionTime: seconds(s.now),
	}
	if before := find(s.previous, kind); before != nil && before.Status == status && !before.LastTransitionTime.IsZero() {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	s.conditions = append(s.conditions, condition)
	return condition
}

// find returns the condition of that type, or nil.
func find(conditions []metav1.Condition, kind string) *metav1.Condition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

// seconds returns the time as the API stores it: without it a status would
// never equal what was read back of it.
func seconds(t time.Time) metav1.Time {
	return metav1.NewTime(t.Truncate(time.Second))
}

// shorten cuts a text to so many bytes, between characters.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const mark = "..."
	return strings.ToValidUTF8(text[:most-len(mark)], "") + mark
}

// list joins the texts, as many as the API's longest text holds, and says how
// many did not fit.
func list(texts []string, separator string) string {
	const most = 1024
	const reserve = len(" +0123456789")
	joined := ""
	for i, text := range texts {
		next := joined + text
		if i > 0 {
			next = joined + separator + text
		}
		if len(next) > most-reserve && len(strings.Join(texts, separator)) > most {
			return fmt.Sprintf("%s +%d", joined, len(texts)-i)
		}
		joined = next
	}
	return joined
}

// addressesOf returns the VIPs of a VirtualServer in its order, without what is
// no address.
func addressesOf(vs *v1alpha1.VirtualServer) []netip.Addr {
	addresses := make([]netip.Addr, 0, len(vs.Spec.Addresses))
	for _, text := range vs.Spec.Addresses {
		if addr, err := netip.ParseAddr(string(text)); err == nil {
			addresses = append(addresses, addr)
		}
	}
	return addresses
}
