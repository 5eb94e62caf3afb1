package conditions

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// judgement is a condition before it is noted.
type judgement struct {
	status          metav1.ConditionStatus
	reason, message string
}

// tally counts the real servers of one service.
type tally struct {
	service netstate.ServiceKey
	// servers are all that there are, wanted those that are to get new
	// connections. Each of these is one of the following.
	servers, wanted int
	// gets are given new connections, ready are up and given none, unknown have no
	// verdict, down are down; the rest is left out, by reason.
	gets, ready, unknown, down int
	leftOut                    map[string]int
	// example is the first that is left out, with why.
	example string
	// total, up and open are the weights of the wanted that are not left out, of
	// those that are up and of those that are unknown.
	total, up, open uint64
	// lost says that the quorum is, which is a weight.
	lost   bool
	quorum uint64
	// sorry is the sorry server's address, answers says that the kernel sends
	// connections to it.
	sorry   netip.Addr
	answers bool
}

func newTally(address Address, service netstate.ServiceKey) *tally {
	policy := address.Desired.Policies[service]
	_, lost := address.QuorumLost[service]
	scale := uint64(max(1, policy.Scale))
	sorry := address.State.Destinations[netstate.DestinationKey{Service: service, Addr: policy.Sorry, Port: service.Port}]
	return &tally{
		service: service, leftOut: map[string]int{},
		lost: lost, quorum: (policy.Quorum + scale - 1) / scale,
		sorry: policy.Sorry, answers: policy.Sorry.IsValid() && sorry.Weight > 0,
	}
}

// sorryAnswers says whether the sorry server has the new connections that real
// servers which are up would have.
func (t *tally) sorryAnswers() bool { return t.lost && t.answers }

// count puts in a real server.
func (t *tally) count(addr netip.Addr, found standing) {
	t.servers++
	if !found.wanted() {
		return
	}
	weight := uint64(found.server.Weight)
	t.wanted++
	if !found.leftOut().is() {
		t.total += weight
	}
	switch {
	case found.leftOut().is():
		t.leftOut[found.server.Reason]++
		if t.example == "" {
			t.example = fmt.Sprintf("%s: %s", addr, cmp.Or(found.server.Message, found.server.Reason))
		}
	case found.weight > 0:
		t.gets++
		t.up += weight
	case found.verdict == health.Down:
		t.down++
	case found.verdict == health.Up && found.meant:
		t.ready++
		t.up += weight
	default:
		t.unknown++
		t.open += weight
	}
}

// judge says whether the service serves, with the reason and the message of
// Ready.
func (t *tally) judge(spec *v1alpha1.VirtualServerSpec) judgement {
	name := describe(t.service)
	switch {
	case t.servers == 0:
		return no(v1alpha1.ReasonNoRealServers, name+" has no real server: "+t.emptySources(spec))
	case t.wanted == 0:
		return no(v1alpha1.ReasonNoRealServers, name+" has no real server that is enabled and of a weight above 0")
	case t.gets+t.ready+t.unknown == 0:
		reason, message := t.outage()
		return no(reason, message+t.consolation())
	case t.lost && t.up > 0 && t.undecided():
		return judgement{metav1.ConditionUnknown, v1alpha1.ReasonPending, t.strength() + ", and other real servers have no verdict yet"}
	case t.lost && !t.undecided():
		return no(v1alpha1.ReasonQuorumLost, t.strength()+t.consolation())
	case t.gets == 0 && t.unknown == 0:
		return judgement{metav1.ConditionUnknown, v1alpha1.ReasonPending, "no real server of " + name + " is in the kernel yet"}
	case t.gets == 0:
		return judgement{metav1.ConditionUnknown, v1alpha1.ReasonPending, "no real server of " + name + " has a verdict yet"}
	default:
		return judgement{status: metav1.ConditionTrue, reason: v1alpha1.ReasonReady}
	}
}

func no(reason, message string) judgement {
	return judgement{metav1.ConditionFalse, reason, message}
}

// strength says how much of the real servers is up.
func (t *tally) strength() string {
	text := fmt.Sprintf("%s: weight %d of %d is up, the quorum is %d", describe(t.service), t.up, t.total, t.quorum)
	left := 0
	for _, count := range t.leftOut {
		left += count
	}
	if left > 0 {
		text += fmt.Sprintf(", and %d are left out, %s", left, t.example)
	}
	return text
}

// undecided says whether the quorum is lost only for want of verdicts, as when
// the director has just begun, and nobody acts on it.
func (t *tally) undecided() bool {
	return t.open > 0 && t.up+t.open >= t.quorum && !t.answers
}

// outage says why none of the wanted answers.
func (t *tally) outage() (reason, message string) {
	name := describe(t.service)
	reasons := slices.Sorted(maps.Keys(t.leftOut))
	switch {
	case len(reasons) == 0:
		return v1alpha1.ReasonAllRealServersDown, "every real server of " + name + " is down"
	case len(reasons) == 1 && t.down == 0:
		return reasons[0], fmt.Sprintf("every real server of %s is left out; %s", name, t.example)
	}
	var counts []string
	if t.down > 0 {
		counts = append(counts, fmt.Sprintf("%d down", t.down))
	}
	for _, reason := range reasons {
		counts = append(counts, fmt.Sprintf("%d %s", t.leftOut[reason], reason))
	}
	return v1alpha1.ReasonAllRealServersDown,
		fmt.Sprintf("every real server of %s is down or left out: %s; %s", name, strings.Join(counts, ", "), t.example)
}

// consolation says whether the sorry server answers.
func (t *tally) consolation() string {
	switch {
	case t.sorryAnswers():
		return fmt.Sprintf("; the sorry server %s answers", t.sorry)
	case t.lost && t.sorry.IsValid():
		return fmt.Sprintf("; the sorry server %s does not answer yet", t.sorry)
	default:
		return ""
	}
}

// emptySources says where real servers were to come from.
func (t *tally) emptySources(spec *v1alpha1.VirtualServerSpec) string {
	family := "IPv6"
	if t.service.Key.Addr.Is4() {
		family = "IPv4"
	}
	var empty []string
	if spec.PodSelector != nil {
		empty = append(empty, fmt.Sprintf("podSelector selects no pod with an %s address", family))
	}
	if spec.ServiceName != "" {
		empty = append(empty, fmt.Sprintf("Service %s has no endpoints with an %s address", spec.ServiceName, family))
	}
	if len(empty) == 0 {
		return "realServers is empty"
	}
	return strings.Join(empty, ", ")
}

// serving says whether every service has as many real servers that get new
// connections as it is to have. It looks at services, not at the VirtualServer as
// a whole: one with a live port 80 and a dead port 443 does not serve.
func (s survey) serving(spec *v1alpha1.VirtualServerSpec) judgement {
	worst := judgement{status: metav1.ConditionTrue, reason: v1alpha1.ReasonReady}
	for _, service := range s.order {
		found := s.services[service].judge(spec)
		if found.status == metav1.ConditionFalse {
			return found
		}
		if found.status == metav1.ConditionUnknown && worst.status == metav1.ConditionTrue {
			worst = found
		}
	}
	return worst
}
