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
	// EventQuorumRegained tells that as many real servers are up again as the
	// quorum asks for. That it was lost is told with the condition's reason.
	EventQuorumRegained = "QuorumRegained"
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
	switch {
	case !readyChanged || ready.Reason == v1alpha1.ReasonNotAccepted || ready.Reason == v1alpha1.ReasonNotProgrammed:
	case ready.Status == metav1.ConditionTrue && hadLostQuorum(old):
		events = append(events, QuorumRegained(ready))
	case len(servers) == 0 || ready.Reason == v1alpha1.ReasonQuorumLost:
		events = append(events, Verdict(ready))
	}
	if moved := moves(old, wanted); len(moved) > 0 {
		events = append(events, DirectorChanged(moved))
	}
	return events
}

func hadLostQuorum(status v1alpha1.VirtualServerStatus) bool {
	ready := find(status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonQuorumLost
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

// QuorumRegained tells that the VirtualServer is Ready, which it was not for want
// of a quorum.
func QuorumRegained(ready metav1.Condition) Event {
	return Event{Normal, EventQuorumRegained, "the quorum is there again: " + shorten(ready.Message, longestNote-32)}
}

// serversChanged compares what is shown to be down. A list that holds nothing
// else may have more behind it, so that what comes into sight or goes out of it is
// no news.
func serversChanged(old, wanted v1alpha1.VirtualServerStatus) []Event {
	before, after := downIn(old), downIn(wanted)
	total := int32(0)
	if wanted.RealServerCounts != nil {
		total = wanted.RealServerCounts.Total
	}
	if len(before) < shownRealServers && slices.ContainsFunc(after, func(server v1alpha1.RealServerStatus) bool { return wentDown(old, server) }) {
		return []Event{RealServersDown(labels(after), total)}
	}
	recovered := slices.DeleteFunc(slices.Clone(before), func(server v1alpha1.RealServerStatus) bool { return isAmong(after, server) })
	if len(after) < shownRealServers && slices.ContainsFunc(recovered, isHost) {
		return []Event{RealServersUp(labels(recovered), labels(after), total)}
	}
	return nil
}

// wentDown says whether it is news that a real server is down. Of a pod that is
// new it is not: it is not ready yet, as all pods are at first.
func wentDown(old v1alpha1.VirtualServerStatus, server v1alpha1.RealServerStatus) bool {
	i := slices.IndexFunc(old.RealServers, func(before v1alpha1.RealServerStatus) bool { return before.Address == server.Address })
	switch {
	case i >= 0 && old.RealServers[i].State == v1alpha1.ObservedDown:
		return false
	case isHost(server):
		return true
	case i >= 0:
		return old.RealServers[i].State != v1alpha1.ObservedUnknown
	default:
		return len(old.RealServers) == shownRealServers // it was up, out of sight
	}
}

// isHost says whether a real server is no pod. That a pod comes up is no news: it
// was down before because it was new, and Kubernetes tells of it.
func isHost(server v1alpha1.RealServerStatus) bool { return server.Pod == "" }

func isAmong(servers []v1alpha1.RealServerStatus, server v1alpha1.RealServerStatus) bool {
	return slices.ContainsFunc(servers, func(other v1alpha1.RealServerStatus) bool { return other.Address == server.Address })
}

// downIn lists the real servers that are down, in the status's order.
func downIn(status v1alpha1.VirtualServerStatus) []v1alpha1.RealServerStatus {
	return slices.DeleteFunc(slices.Clone(status.RealServers), func(server v1alpha1.RealServerStatus) bool {
		return server.State != v1alpha1.ObservedDown
	})
}

// labels names real servers by address, and by pod if they are one.
func labels(servers []v1alpha1.RealServerStatus) []string {
	named := make([]string, len(servers))
	for i, server := range servers {
		named[i] = server.Address
		if server.Pod != "" {
			named[i] += " (" + server.Pod + ")"
		}
	}
	return named
}

// RealServersDown tells that more real servers are down than were. As many as a
// status shows may be more.
func RealServersDown(down []string, total int32) Event {
	return Event{Warning, EventRealServersDown, shorten(countDown(down, total), longestNote)}
}

func countDown(down []string, total int32) string {
	text := fmt.Sprintf("%d of %d real servers down: %s", len(down), total, some(down))
	if len(down) >= shownRealServers {
		return "at least " + text
	}
	return text
}

// RealServersUp tells that real servers that were down are so no more, or are
// gone.
func RealServersUp(recovered, down []string, total int32) Event {
	message := fmt.Sprintf("no longer down: %s", some(recovered))
	if len(down) > 0 {
		message += "; " + countDown(down, total)
	}
	return Event{Normal, EventRealServersUp, shorten(message, longestNote)}
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
