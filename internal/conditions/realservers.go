package conditions

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

const (
	// shownRealServers is how many a status holds.
	shownRealServers = 64
	// longestReason is what a real server's reason may hold.
	longestReason = 256
)

// roster is every real server of a VirtualServer with how it is.
type roster struct {
	entries []entry
	counts  v1alpha1.RealServerCounts
}

// entry is a real server in a form that is quickly compared.
type entry struct {
	addr  netip.Addr
	place *place
	found finding
}

// finding is how a real server was found, before it is known since when.
type finding struct {
	state  v1alpha1.ObservedState
	reason string
	// since is zero if it is not known otherwise than from the status so far.
	since time.Time
}

// enroll finds out how each real server is: those that are wanted, and those
// that are on their way out. A VirtualServer that is refused has none to tell of
// but those of its spec, and only their number.
func enroll(in Outcome, s survey) roster {
	if in.Rejection != nil {
		return roster{counts: v1alpha1.RealServerCounts{Total: int32(min(len(in.VirtualServer.Spec.RealServers), 1<<16))}}
	}
	var r roster
	for addr, p := range s.places {
		r.entries = append(r.entries, entry{addr, p, p.find()})
	}
	r.counts = count(r.entries)
	return r
}

// count counts the real servers. A pod with addresses of both families is one: it
// is ready if both get connections, and drains if one does.
func count(entries []entry) v1alpha1.RealServerCounts {
	type server struct {
		staying, draining, lacking bool
		weight                     uint32
	}
	servers := make(map[string]server, len(entries))
	for _, e := range entries {
		name := cmp.Or(e.place.pod, e.addr.String())
		s := servers[name]
		s.staying = s.staying || !e.place.isLeaving()
		s.draining = s.draining || e.found.state == v1alpha1.ObservedDraining
		s.lacking = s.lacking || !e.place.getsConnections()
		s.weight = max(s.weight, e.place.weight)
		servers[name] = s
	}
	var counts v1alpha1.RealServerCounts
	for _, s := range servers {
		if s.staying {
			counts.Total++
		}
		if s.draining {
			counts.Draining++
		}
		if !s.lacking {
			counts.Ready++
			counts.ReadyWeight += int32(s.weight)
		}
	}
	return counts
}

// worst returns, worst first and then by address, as many as a status holds.
func (r *roster) worst(in Outcome) []v1alpha1.RealServerStatus {
	slices.SortFunc(r.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(badness(a.found.state), badness(b.found.state)), a.addr.Compare(b.addr))
	})
	before := make(map[string]*v1alpha1.RealServerStatus, len(in.VirtualServer.Status.RealServers))
	for i := range in.VirtualServer.Status.RealServers {
		server := &in.VirtualServer.Status.RealServers[i]
		before[server.Address] = server
	}
	var shown []v1alpha1.RealServerStatus
	for _, e := range r.entries[:min(len(r.entries), shownRealServers)] {
		shown = append(shown, e.status(in, before[e.addr.String()]))
	}
	return shown
}

// status returns the entry as the API has it. A real server that is in the state
// that was shown before has been so since what was shown before: a director that
// takes over or starts again does not know better. Nor does any know the pod of one
// that has left the plan.
func (e entry) status(in Outcome, before *v1alpha1.RealServerStatus) v1alpha1.RealServerStatus {
	status := v1alpha1.RealServerStatus{
		Address: e.addr.String(), Weight: int32(e.place.weight), Pod: e.place.pod,
		State: e.found.state, Reason: shorten(e.found.reason, longestReason), Since: seconds(in.Now),
	}
	if !e.found.since.IsZero() {
		status.Since = seconds(e.found.since)
	}
	known := e.place.planned || e.place.written
	if !known {
		status.Reason = departure(in)
	}
	if before == nil {
		return status
	}
	if before.State == status.State && !before.Since.IsZero() {
		status.Since = metav1.NewTime(before.Since.Time)
	}
	if !known {
		status.Pod = before.Pod
	}
	return status
}

// departure says how real servers leave for good.
func departure(in Outcome) string {
	if in.VirtualServer.Spec.PodSelector == nil && in.VirtualServer.Spec.ServiceName == "" {
		return "removed from the spec"
	}
	return "no longer selected"
}

// badness orders states from the worst on.
func badness(state v1alpha1.ObservedState) int {
	return slices.Index([]v1alpha1.ObservedState{
		v1alpha1.ObservedDown, v1alpha1.ObservedUnknown, v1alpha1.ObservedDraining,
		v1alpha1.ObservedDisabled, v1alpha1.ObservedUp,
	}, state)
}
