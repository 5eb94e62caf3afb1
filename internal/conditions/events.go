package conditions

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// EventType is the type of a Kubernetes Event.
type EventType string

// The types that Kubernetes knows.
const (
	Normal  EventType = "Normal"
	Warning EventType = "Warning"
)

// Reasons of events that are not those of a condition.
const (
	// EventRealServersDown tells that real servers went down.
	EventRealServersDown = "RealServersDown"
	// EventRealServersUp tells that real servers are not down any more.
	EventRealServersUp = "RealServersUp"
	// EventDirectorChanged tells that another director announces a VIP now.
	EventDirectorChanged = "DirectorChanged"
)

// longestNote is what the API server accepts as an event's note.
const longestNote = 1024

// Event is what people are told of a change.
type Event struct {
	Type    EventType
	Reason  string
	Message string
}

// Events returns what is worth telling of the change from the old status to the
// new one: at most one event for each condition, one for the real servers and
// one for the addresses, however many have changed. Equal statuses give none.
func Events(old, wanted v1alpha1.VirtualServerStatus) []Event {
	var events []Event
	accepted, acceptedChanged := changed(old, wanted, v1alpha1.ConditionAccepted)
	programmed, programmedChanged := changed(old, wanted, v1alpha1.ConditionProgrammed)
	ready, readyChanged := changed(old, wanted, v1alpha1.ConditionReady)
	if acceptedChanged {
		events = append(events, Verdict(accepted))
	}
	if programmedChanged && programmed.Reason != v1alpha1.ReasonNotAccepted {
		events = append(events, Verdict(programmed))
	}
	servers := serversChanged(old, wanted)
	events = append(events, servers...)
	if readyChanged && len(servers) == 0 && ready.Reason != v1alpha1.ReasonNotAccepted && ready.Reason != v1alpha1.ReasonNotProgrammed {
		events = append(events, Verdict(ready))
	}
	if moved := moves(old, wanted); len(moved) > 0 {
		events = append(events, DirectorChanged(moved))
	}
	return events
}

// changed returns the condition, and whether it became another in a way that
// people are told of. One that becomes unknown because nobody has looked yet is
// no news.
func changed(old, wanted v1alpha1.VirtualServerStatus, kind string) (metav1.Condition, bool) {
	before, after := find(old.Conditions, kind), find(wanted.Conditions, kind)
	switch {
	case after == nil:
		return metav1.Condition{}, false
	case after.Reason == v1alpha1.ReasonPending:
		return *after, false
	default:
		return *after, before == nil || before.Status != after.Status || before.Reason != after.Reason
	}
}

// Verdict tells of a condition that is another now.
func Verdict(condition metav1.Condition) Event {
	event := Event{Warning, condition.Reason, shorten(condition.Message, longestNote)}
	if condition.Status == metav1.ConditionTrue {
		event.Type = Normal
	}
	return event
}

func serversChanged(old, wanted v1alpha1.VirtualServerStatus) []Event {
	before, after := downIn(old), downIn(wanted)
	isOf := func(all []string) func(string) bool {
		return func(server string) bool { return slices.Contains(all, server) }
	}
	total := int32(0)
	if wanted.RealServerCounts != nil {
		total = wanted.RealServerCounts.Total
	}
	recovered := slices.DeleteFunc(slices.Clone(before), isOf(after))
	switch {
	case len(slices.DeleteFunc(slices.Clone(after), isOf(before))) > 0:
		return []Event{RealServersDown(after, total)}
	case len(recovered) > 0:
		return []Event{RealServersUp(recovered, after, total)}
	default:
		return nil
	}
}

// downIn lists the real servers that are down, in the status's order.
func downIn(status v1alpha1.VirtualServerStatus) []string {
	var down []string
	for _, server := range status.RealServers {
		if server.State == v1alpha1.ObservedDown {
			down = append(down, server.Address)
		}
	}
	return down
}

// RealServersDown tells that more real servers are down than were.
func RealServersDown(down []string, total int32) Event {
	return Event{Warning, EventRealServersDown, fmt.Sprintf("%d of %d real servers down: %s", len(down), total, some(down))}
}

// RealServersUp tells that real servers that were down are so no more, or are
// gone.
func RealServersUp(recovered, down []string, total int32) Event {
	message := fmt.Sprintf("no longer down: %s", some(recovered))
	if len(down) > 0 {
		message += fmt.Sprintf("; %d of %d real servers down: %s", len(down), total, some(down))
	}
	return Event{Normal, EventRealServersUp, message}
}

// some names the first few.
func some(servers []string) string {
	const most = 5
	if len(servers) <= most {
		return strings.Join(servers, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(servers[:most], ", "), len(servers)-most)
}

// moves lists the addresses that another director announces than before.
func moves(old, wanted v1alpha1.VirtualServerStatus) []string {
	before := byAddress(old.Addresses)
	var moved []string
	for _, status := range wanted.Addresses {
		was, known := before[status.Address]
		if known && was.Director != status.Director {
			moved = append(moved, fmt.Sprintf("%s: %s, before %s", status.Address, status.Director, was.Director))
		}
	}
	return moved
}

// DirectorChanged tells that other directors announce VIPs now.
func DirectorChanged(moved []string) Event {
	return Event{Normal, EventDirectorChanged, "announced by another director: " + some(moved)}
}
