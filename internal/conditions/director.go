package conditions

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// DirectorOutcome is how a director finds itself.
type DirectorOutcome struct {
	// Director is the object with the status that it has now.
	Director *v1alpha1.Director
	// Now is the time of new transitions.
	Now time.Time

	// Address and IPv6Address are the node's own on the announcement interface, whose
	// name and hardware address are Interface and MAC.
	Address, IPv6Address netip.Addr
	// SyncAddress is the one from which it sends its connections, if it does.
	SyncAddress         netip.Addr
	Interface           string
	MAC                 string
	KernelVersion       string
	Schedulers          []string
	ConnectionTableSize int64

	// RolePending says that the director has yet to find out whether it is active
	// still, so that Groups does not tell.
	RolePending bool
	// Groups are those that it is active for, of TotalGroups.
	Groups         []v1alpha1.GroupStatus
	TotalGroups    int32
	Counts         v1alpha1.DirectorCounts
	LastTransition *v1alpha1.DirectorTransition
	// Transitions has the last transition of each group that had one, by its number.
	Transitions map[int32]v1alpha1.DirectorTransition

	// Programmed says that everything that it is to serve is in its kernel.
	Programmed bool
	// Failure is what keeps it from serving at all, such as belonging to no
	// DirectorPool; none if it is zero.
	Failure Failure
	// Waiting is why it may not become active, although it could serve; none if
	// it may.
	Waiting Failure
	// Lacking is what the kernel's IPVS lacks for some of the VIPs, such as a
	// scheduler; the others are served. None if it is zero.
	Lacking Failure
	// Refused is why the kernel has refused some of the VIPs for a while; none if
	// it is zero.
	Refused   Failure
	IPVS      IPVS
	API       API
	Answering Answering
	// Conflicts are the VIPs that others answer for.
	Conflicts []Conflict
	Syncing   Syncing
}

// IPVS is what is known of the kernel's IPVS.
type IPVS int

// The zero value is for a director that has not looked yet.
const (
	IPVSUnknown IPVS = iota
	IPVSAvailable
	IPVSMissing
)

// API is what is known of the API server.
type API int

// The zero value is for a director that has not asked yet.
const (
	APIUnknown API = iota
	APIReachable
	APIUnreachable
)

// Answering says whether the kernel answers for the VIPs, and why.
type Answering int

const (
	// AnsweringStandby is not answering: the director is not active.
	AnsweringStandby Answering = iota
	// AnsweringPeer is not answering: a peer could take over.
	AnsweringPeer
	// AnsweringAlone is answering: no peer could take over.
	AnsweringAlone
)

// Conflict is a VIP that another host answers for.
type Conflict struct {
	Addr netip.Addr
	MAC  string
	// Peer is the node of the dead director whose kernel it is that answers;
	// empty if it is anybody else.
	Peer string
}

// Director returns the whole status of a Director. A transition time changes
// only with its condition's status.
func Director(in DirectorOutcome) v1alpha1.DirectorStatus {
	notes := &sheet{previous: in.Director.Status.Conditions, generation: in.Director.Generation, now: in.Now}
	ready := notes.directorReady(in)
	notes.candidate(in, ready)
	notes.apiReachable(in.API)
	notes.addressConflict(in.Conflicts)
	notes.kernelAnswers(in.Answering)
	notes.ipvsAvailable(in.IPVS, in.Lacking)
	notes.fullyProgrammed(ready, in.Refused)
	notes.connectionsSynced(in.Syncing)
	status := v1alpha1.DirectorStatus{
		Conditions:          notes.conditions,
		Interface:           in.Interface,
		MAC:                 in.MAC,
		KernelVersion:       shorten(in.KernelVersion, 64),
		Schedulers:          slices.Compact(slices.Sorted(slices.Values(in.Schedulers))),
		ConnectionTableSize: in.ConnectionTableSize,
		Groups:              groupsOf(in),
		Counts:              &in.Counts,
		LastTransition:      transitionOf(in.LastTransition),
		Display:             &v1alpha1.DirectorDisplay{Active: fmt.Sprintf("%d/%d groups", len(in.Groups), in.TotalGroups)},
	}
	if in.Address.IsValid() {
		status.Address = in.Address.String()
	}
	if in.IPv6Address.IsValid() {
		status.IPv6Address = in.IPv6Address.String()
	}
	if in.SyncAddress.IsValid() {
		status.SyncAddress = in.SyncAddress.String()
	}
	return status
}

func groupsOf(in DirectorOutcome) []v1alpha1.GroupStatus {
	groups := slices.SortedFunc(slices.Values(in.Groups), func(a, b v1alpha1.GroupStatus) int {
		return cmp.Compare(a.Group, b.Group)
	})
	for i := range groups {
		if !groups[i].Since.IsZero() {
			groups[i].Since = seconds(groups[i].Since.Time)
		}
	}
	return groups
}

func transitionOf(last *v1alpha1.DirectorTransition) *v1alpha1.DirectorTransition {
	if last == nil {
		return nil
	}
	transition := *last.DeepCopy()
	transition.Reason = shorten(transition.Reason, 256)
	transition.Time = seconds(transition.Time.Time)
	return &transition
}

func (s *sheet) directorReady(in DirectorOutcome) metav1.Condition {
	const kind = v1alpha1.ConditionReady
	switch {
	case in.IPVS == IPVSMissing:
		return s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonIPVSUnavailable, "the kernel has no IPVS (module ip_vs)")
	case in.Failure.is():
		return s.set(kind, metav1.ConditionFalse, cmp.Or(in.Failure.Reason, v1alpha1.ReasonKernelError), in.Failure.Message)
	case !in.Programmed:
		return s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonStarting, "not everything that is to be served is in the kernel yet")
	default:
		return s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonReady, "everything that is to be served is in the kernel")
	}
}

func (s *sheet) candidate(in DirectorOutcome, ready metav1.Condition) {
	const kind = v1alpha1.ConditionCandidate
	switch {
	case ready.Status != metav1.ConditionTrue:
		s.set(kind, metav1.ConditionFalse, ready.Reason, ready.Message)
	case in.Waiting.is():
		s.set(kind, metav1.ConditionFalse, cmp.Or(in.Waiting.Reason, v1alpha1.ReasonWaitingForVerdicts), in.Waiting.Message)
	default:
		s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonCandidate, "the director may become active")
	}
}

func (s *sheet) fullyProgrammed(ready metav1.Condition, refused Failure) {
	const kind = v1alpha1.ConditionFullyProgrammed
	switch {
	case ready.Status != metav1.ConditionTrue:
		s.set(kind, metav1.ConditionUnknown, v1alpha1.ReasonStarting, "see the condition Ready")
	case refused.is():
		s.set(kind, metav1.ConditionFalse, cmp.Or(refused.Reason, v1alpha1.ReasonKernelError), refused.Message)
	default:
		s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, "the kernel takes all that is to be served")
	}
}

func (s *sheet) apiReachable(api API) {
	const kind = v1alpha1.ConditionAPIReachable
	switch api {
	case APIReachable:
		s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonReachable, "the API server answers")
	case APIUnreachable:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonUnreachable, "the API server does not answer")
	case APIUnknown:
		s.set(kind, metav1.ConditionUnknown, v1alpha1.ReasonStarting, "the API server has not been asked yet")
	}
}

func (s *sheet) addressConflict(conflicts []Conflict) {
	const kind = v1alpha1.ConditionAddressConflict
	if len(conflicts) == 0 {
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonNoConflict, "nobody else answers for a VIP")
		return
	}
	// Whoever nobody knows is the worse one, and gives the reason.
	reason := v1alpha1.ReasonKernelAnswersElsewhere
	claims := make([]string, 0, len(conflicts))
	for _, conflict := range conflicts {
		if conflict.Peer == "" {
			reason = conflict.reason()
		}
		claims = append(claims, conflict.message())
	}
	slices.Sort(claims)
	s.set(kind, metav1.ConditionTrue, reason, some(slices.Compact(claims)))
}

func (c Conflict) reason() string {
	if c.Peer != "" {
		return v1alpha1.ReasonKernelAnswersElsewhere
	}
	return v1alpha1.ReasonAddressClaimed
}

func (c Conflict) message() string {
	mac := strings.ToLower(c.MAC)
	if c.Peer != "" {
		return fmt.Sprintf("%s (%s) is still answered for by the kernel of %s, whose director is dead", c.Addr, mac, c.Peer)
	}
	return fmt.Sprintf("%s is answered for by %s", c.Addr, mac)
}

func (s *sheet) kernelAnswers(answering Answering) {
	const kind = v1alpha1.ConditionKernelAnswers
	switch answering {
	case AnsweringAlone:
		s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonAlone, "no other director could take over, so the kernel answers for the VIPs")
	case AnsweringPeer:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonPeerPresent, "another director could take over")
	case AnsweringStandby:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonStandby, "the director does not announce the VIPs")
	}
}

func (s *sheet) ipvsAvailable(ipvs IPVS, lacking Failure) {
	const kind = v1alpha1.ConditionIPVSAvailable
	if ipvs == IPVSAvailable && lacking.is() {
		s.set(kind, metav1.ConditionFalse, cmp.Or(lacking.Reason, v1alpha1.ReasonSchedulerUnavailable), lacking.Message)
		return
	}
	switch ipvs {
	case IPVSAvailable:
		s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonIPVSAvailable, "the kernel has IPVS")
	case IPVSMissing:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonIPVSUnavailable, "the kernel has no IPVS (module ip_vs)")
	case IPVSUnknown:
		s.set(kind, metav1.ConditionUnknown, v1alpha1.ReasonStarting, "nobody has looked yet")
	}
}
