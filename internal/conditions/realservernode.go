package conditions

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// RealServerNodeManager is the field manager of a RealServerNode's status and of
// the pods' condition, which only the agent of that node writes.
const RealServerNodeManager = "lvs-realserver"

// What a RealServerNode holds at most.
const (
	mostPods         = 256
	mostVIPs         = 256
	mostPodAddresses = 8
	longestProblem   = 256
	longestSandbox   = 128
)

// NodeOutcome is how the agent of a node finds its pods.
type NodeOutcome struct {
	// RealServerNode is the object with the status that it has now.
	RealServerNode *v1alpha1.RealServerNode
	// Pods are those that are to have VIPs, and those that have some; others do no
	// harm. There is one for each UID; of several the one counts that has the most
	// VIPs.
	Pods []PodReport
	// CRI is why the container runtime does not tell of the pods, for people; empty
	// if it does. Pods then are what was known last.
	CRI string
	// Now is the time of new transitions.
	Now time.Time
}

// PodReport is how the agent finds a pod.
type PodReport struct {
	UID  types.UID
	Name types.NamespacedName
	// Sandbox is the container runtime's name of the pod's network namespace, and
	// PodAddresses are what that has besides VIPs; empty if it was not found.
	Sandbox      string
	PodAddresses []netip.Addr
	// Wanted are the VIPs that it is to have, Have those that it was just seen to
	// have, and to be silent about.
	Wanted, Have []netip.Addr
	// Problem is why a VIP is missing, for people; empty if nobody knows, or none
	// is.
	Problem string
}

// missing lists, in order, the VIPs that it is to have and has not.
func (p PodReport) missing() []netip.Addr { return without(p.Wanted, p.Have) }

// RealServerNode returns the whole status of a RealServerNode. The order of the
// reports makes no difference. A transition time changes only with its
// condition's status. If there are more pods than the status holds, those stay
// listed that were, since directors send nothing to others; then those with VIPs
// come first.
func RealServerNode(in NodeOutcome) v1alpha1.RealServerNodeStatus {
	reports := listed(in)
	shown := slices.Clone(reports[:min(len(reports), mostPods)])
	slices.SortFunc(shown, func(a, b PodReport) int { return cmp.Compare(a.UID, b.UID) })

	status := v1alpha1.RealServerNodeStatus{Counts: &v1alpha1.RealServerNodeCounts{}}
	var lacking []string
	for _, report := range shown {
		status.Pods = append(status.Pods, report.prepared())
		if missing := report.missing(); len(missing) > 0 {
			lacking = append(lacking, report.String())
		} else if len(report.Wanted) > 0 {
			status.Counts.Prepared++
		}
	}
	for _, report := range reports {
		if len(report.Wanted) > 0 {
			status.Counts.Pods++
		}
	}
	notes := &sheet{previous: in.RealServerNode.Status.Conditions, generation: in.RealServerNode.Generation, now: in.Now}
	notes.prepared(in, lacking, len(reports), status.Counts)
	status.Conditions = notes.conditions
	return status
}

func (s *sheet) prepared(in NodeOutcome, lacking []string, pods int, counts *v1alpha1.RealServerNodeCounts) {
	const kind = v1alpha1.ConditionReady
	switch {
	case in.CRI != "":
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonCRIUnavailable, in.CRI)
	case len(lacking) > 0:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonNotPrepared,
			fmt.Sprintf("%d of %d pods lack a VIP: %s", len(lacking), counts.Pods, some(lacking)))
	case pods > mostPods:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonNotPrepared,
			fmt.Sprintf("the node has %d pods with VIPs, and only %d of them can be listed and get connections", pods, mostPods))
	default:
		s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonReady, fmt.Sprintf("%d pods have the VIPs that are wanted", counts.Prepared))
	}
}

// listed returns the reports that have something to tell, one for each pod, with
// those first that are to stay listed.
func listed(in NodeOutcome) []PodReport {
	before := map[types.UID]bool{}
	for _, pod := range in.RealServerNode.Status.Pods {
		before[types.UID(pod.UID)] = len(pod.Addresses) > 0
	}
	rank := func(report PodReport) int {
		switch {
		case len(report.Have) > 0 && before[report.UID]:
			return 0
		case len(report.Have) > 0:
			return 1
		default:
			return 2
		}
	}
	reports := slices.DeleteFunc(slices.Clone(in.Pods), func(report PodReport) bool {
		return report.UID == "" || len(report.Wanted) == 0 && len(report.Have) == 0
	})
	slices.SortFunc(reports, func(a, b PodReport) int {
		return cmp.Or(cmp.Compare(a.UID, b.UID), cmp.Compare(len(b.Have), len(a.Have)), cmp.Compare(a.Sandbox, b.Sandbox),
			cmp.Compare(a.Problem, b.Problem), slices.CompareFunc(ordered(a.Have), ordered(b.Have), netip.Addr.Compare),
			slices.CompareFunc(ordered(a.Wanted), ordered(b.Wanted), netip.Addr.Compare))
	})
	reports = slices.CompactFunc(reports, func(a, b PodReport) bool { return a.UID == b.UID })
	slices.SortStableFunc(reports, func(a, b PodReport) int { return cmp.Compare(rank(a), rank(b)) })
	return reports
}

// prepared returns the report as the API has it.
func (p PodReport) prepared() v1alpha1.PreparedPod {
	pod := v1alpha1.PreparedPod{
		UID: string(p.UID), Namespace: p.Name.Namespace, Name: p.Name.Name,
		Sandbox:      shorten(p.Sandbox, longestSandbox),
		PodAddresses: texts(ordered(p.PodAddresses), mostPodAddresses),
		Addresses:    texts(ordered(p.Have), mostVIPs),
	}
	if missing := p.missing(); len(missing) > 0 {
		pod.Problem = shorten(cmp.Or(p.Problem, "waits for "+some(texts(missing, len(missing)))), longestProblem)
	}
	return pod
}

// String names the pod, and says what is wrong with it.
func (p PodReport) String() string {
	problem := cmp.Or(p.Problem, "waits for "+some(texts(p.missing(), mostVIPs)))
	return fmt.Sprintf("%s (%s)", p.Name, shorten(problem, longestProblem))
}

// ordered returns the addresses in order, each once.
func ordered(addresses []netip.Addr) []netip.Addr {
	sorted := slices.SortedFunc(slices.Values(addresses), netip.Addr.Compare)
	return slices.Compact(sorted)
}

// without returns, in order, the addresses that are not among the others.
func without(addresses, others []netip.Addr) []netip.Addr {
	among := make(map[netip.Addr]struct{}, len(others))
	for _, addr := range others {
		among[addr] = struct{}{}
	}
	return slices.DeleteFunc(ordered(addresses), func(addr netip.Addr) bool {
		_, found := among[addr]
		return found
	})
}

func texts(addresses []netip.Addr, most int) []string {
	var written []string
	for _, addr := range addresses[:min(len(addresses), most)] {
		written = append(written, addr.String())
	}
	return written
}

// RealServerNodeApply returns the apply configuration, for the status
// subresource, of a RealServerNode.
func RealServerNodeApply(node *v1alpha1.RealServerNode, wanted v1alpha1.RealServerNodeStatus) (*unstructured.Unstructured, error) {
	return applyOf("RealServerNode", node.ObjectMeta, &wanted)
}

// RealServerNodeDiffers says whether RealServerNodeApply would change the object.
func RealServerNodeDiffers(cached *v1alpha1.RealServerNode, wanted v1alpha1.RealServerNodeStatus) bool {
	have := cached.Status
	have.Conditions, wanted.Conditions = byType(have.Conditions), byType(wanted.Conditions)
	have.Pods, wanted.Pods = byUID(have.Pods), byUID(wanted.Pods)
	return !equality.Semantic.DeepEqual(have, wanted)
}

// byUID returns the pods ordered by UID.
func byUID(pods []v1alpha1.PreparedPod) []v1alpha1.PreparedPod {
	return slices.SortedFunc(slices.Values(pods), func(a, b v1alpha1.PreparedPod) int { return strings.Compare(a.UID, b.UID) })
}

// Selection says which VirtualServers select a pod.
type Selection int

// The zero value is for a pod that none selects.
const (
	// NotSelected: no VirtualServer selects the pod.
	NotSelected Selection = iota
	// Selected: one at least does, if only one that is refused.
	Selected
)

// Gate is what decides about a pod's readiness gate.
type Gate struct {
	// Existing is the condition that the pod has; nil if it has none.
	Existing *corev1.PodCondition
	// Selection says whether plan.Preparations has the pod.
	Selection Selection
	// Wanted are the VIPs that it is to have, Have those that it has, in the
	// sandbox that runs now.
	Wanted, Have []netip.Addr
	// Problem is why a VIP is missing, for people; empty if nobody knows.
	Problem string
	// Now is the time of a new transition.
	Now time.Time
}

// PodGate returns the condition v1alpha1.PodConditionRealServerReady of a pod
// that declares it as a readiness gate. It is True when the pod has every VIP that
// is wanted of it at that moment, and when none is. Once it is True it stays so
// for the life of the pod, whatever becomes of its VIPs: a VIP that is added would
// else take the pod out of service for those that it serves, and a director sends
// nothing for a VIP to a pod that has not got it anyway. Its text changes only with
// its reason, so that a VIP more or less is no write to the pod.
func PodGate(gate Gate) corev1.PodCondition {
	missing := without(gate.Wanted, gate.Have)
	if len(missing) > 0 && gate.Existing != nil && gate.Existing.Status == corev1.ConditionTrue {
		return *gate.Existing
	}
	condition := corev1.PodCondition{
		Type: v1alpha1.PodConditionRealServerReady, Status: corev1.ConditionTrue, LastTransitionTime: seconds(gate.Now),
	}
	switch {
	case gate.Selection == NotSelected:
		condition.Reason, condition.Message = v1alpha1.ReasonNotSelected, "no VirtualServer selects the pod"
	case len(gate.Wanted) == 0:
		condition.Reason, condition.Message = v1alpha1.ReasonNotNeeded, "no VirtualServer that selects the pod needs a VIP on it"
	case len(missing) == 0:
		condition.Reason, condition.Message = v1alpha1.ReasonPrepared, "the pod has the VIPs"
	default:
		condition.Status, condition.Reason = corev1.ConditionFalse, v1alpha1.ReasonNotPrepared
		condition.Message = "waits for " + some(texts(missing, len(missing)))
		if gate.Problem != "" {
			condition.Message += ": " + shorten(gate.Problem, longestProblem)
		}
	}
	if before := gate.Existing; before != nil && before.Status == condition.Status && !before.LastTransitionTime.IsZero() {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	return condition
}
