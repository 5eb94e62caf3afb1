package plan

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// isState says whether there is such a state.
func isState(state v1alpha1.RealServerState) bool { return strictness(state) >= 0 }

// strictness orders the states; it is -1 for one that does not exist.
func strictness(state v1alpha1.RealServerState) int {
	switch state {
	case v1alpha1.RealServerEnabled:
		return 0
	case v1alpha1.RealServerDrained:
		return 1
	case v1alpha1.RealServerDisabled:
		return 2
	default:
		return -1
	}
}

// standing is what several people want of one real server. The strictest counts.
type standing struct {
	state v1alpha1.RealServerState
	// by are those who want just that, in the order in which they were asked.
	by []string
	// notes are what else there is to say.
	notes []string
}

func newStanding() standing { return standing{state: v1alpha1.RealServerEnabled} }

// add takes up what somebody wants; by says who it is.
func (s *standing) add(state v1alpha1.RealServerState, by string) {
	switch stricter := strictness(state) - strictness(s.state); {
	case state == v1alpha1.RealServerEnabled || stricter < 0:
	case stricter == 0:
		s.by = append(s.by, by)
	default:
		s.state, s.by = state, []string{by}
	}
}

// why returns who wants it, and the notes: "drained by an annotation of node
// web-3".
func (s *standing) why() string {
	var sentences []string
	switch s.state {
	case v1alpha1.RealServerDrained:
		sentences = append(sentences, "drained by "+strings.Join(s.by, " and "))
	case v1alpha1.RealServerDisabled:
		sentences = append(sentences, "disabled by "+strings.Join(s.by, " and "))
	case v1alpha1.RealServerEnabled:
	}
	return strings.Join(append(sentences, s.notes...), "; ")
}

// drainedServers are what the annotation AnnotationDrainedServers names.
type drainedServers struct {
	addresses map[netip.Addr]struct{}
	// note says which of them cannot be read; empty if all can.
	note string
}

// parseDrained reads the annotation. It is written by hand and in a hurry, so
// whatever can only mean one address is taken for it. What means none takes
// nothing from the others, for they are to be drained, and refuses nothing, for a
// slip in an annotation must not take a VIP down; each real server tells of it.
func parseDrained(text string) drainedServers {
	var drained drainedServers
	unread := 0
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		addr, err := netip.ParseAddr(part)
		if err != nil || addr.Zone() != "" {
			if unread++; unread == 1 {
				drained.note = fmt.Sprintf("annotation %s names %.40q, which is no address", v1alpha1.AnnotationDrainedServers, part)
			}
			continue
		}
		if drained.addresses == nil {
			drained.addresses = map[netip.Addr]struct{}{}
		}
		drained.addresses[addr.Unmap()] = struct{}{}
	}
	if unread > 1 {
		drained.note += fmt.Sprintf(", and %d more", unread-1)
	}
	return drained
}

// apply adds what the annotation wants of a real server.
func (d *drainedServers) apply(addr netip.Addr, to *standing) {
	if _, drained := d.addresses[addr]; drained {
		to.add(v1alpha1.RealServerDrained, "an annotation of the VirtualServer")
	}
	if d.note != "" {
		to.notes = append(to.notes, d.note)
	}
}
