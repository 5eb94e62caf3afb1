package conditions

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// Outcome is what became of a VirtualServer, as the director that reports it
// knows.
type Outcome struct {
	// VirtualServer is the object with the status that it has now.
	VirtualServer *v1alpha1.VirtualServer
	// Rejection is why it is refused; nil if it is accepted.
	Rejection *plan.Rejection
	// Addresses tell of each VIP. One that is missing has not been worked on
	// yet.
	Addresses map[netip.Addr]Address
	// Report tells what is known of a probe. Nil means that nothing is.
	Report func(health.Probe) health.Report
	// Now is the time of new transitions.
	Now time.Time
}

// Address is what became of one VIP.
type Address struct {
	// Group is the group that the VIP is in.
	Group int32
	// Director is the node whose director announces the VIP; empty if none is
	// known to.
	Director string
	// Programmed says that the kernel holds what is wanted, Failure why not. If
	// neither is set nobody knows yet.
	Programmed bool
	Failure    Failure
	// Desired is the VIP's plan, State what the kernel holds, Draining since
	// when each destination that is leaving has been.
	Desired  plan.Desired
	State    netstate.State
	Draining map[netstate.DestinationKey]time.Time
	// QuorumLost has the services whose quorum is lost, by the director's
	// verdicts and its hysteresis.
	QuorumLost map[netstate.ServiceKey]struct{}
}

// VirtualServer returns the whole status. All three conditions are always
// there. A transition time changes only with its condition's status, and a real
// server's since only with its state. ReporterApply and AddressesApply split
// the status among those who write it.
func VirtualServer(in Outcome) v1alpha1.VirtualServerStatus {
	vs := in.VirtualServer
	found := look(in)
	servers := enroll(in, found)
	notes := &sheet{previous: vs.Status.Conditions, generation: vs.Generation, now: in.Now}
	accepted := notes.accepted(in)
	programmed := notes.programmed(in, accepted)
	serves := found.serving(&vs.Spec)
	if serves.status == metav1.ConditionTrue {
		serves.message = fmt.Sprintf("%d of %d real servers get new connections", servers.counts.Ready, servers.counts.Total)
	}
	notes.ready(accepted, programmed, serves)
	status := v1alpha1.VirtualServerStatus{
		Conditions:         notes.conditions,
		ObservedGeneration: vs.Generation,
		Addresses:          addressStatuses(in),
		RealServerCounts:   &servers.counts,
		RealServers:        servers.worst(in),
	}
	status.Display = display(in, servers.counts)
	return status
}

func (s *sheet) accepted(in Outcome) metav1.Condition {
	if in.Rejection != nil {
		return s.set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, in.Rejection.Reason, in.Rejection.Message)
	}
	return s.set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "the spec can be served")
}

func (s *sheet) programmed(in Outcome, accepted metav1.Condition) metav1.Condition {
	const kind = v1alpha1.ConditionProgrammed
	if accepted.Status != metav1.ConditionTrue {
		return s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonNotAccepted, accepted.Message)
	}
	addresses := addressesOf(in.VirtualServer)
	for _, addr := range addresses {
		if failure := in.Addresses[addr].Failure; failure.is() {
			return s.set(kind, metav1.ConditionFalse, cmp.Or(failure.Reason, v1alpha1.ReasonKernelError),
				fmt.Sprintf("%s: %s", addr, failure.Message))
		}
	}
	for _, addr := range addresses {
		if !in.Addresses[addr].Programmed {
			return s.set(kind, metav1.ConditionUnknown, v1alpha1.ReasonPending, fmt.Sprintf("%s is not in the kernel yet", addr))
		}
	}
	for _, addr := range addresses {
		if in.Addresses[addr].Director == "" {
			return s.set(kind, metav1.ConditionUnknown, v1alpha1.ReasonNoDirector, fmt.Sprintf("no director is active for %s", addr))
		}
	}
	return s.set(kind, metav1.ConditionTrue, v1alpha1.ReasonProgrammed,
		"every address is announced, by "+list(directorsOf(in), ", "))
}

func (s *sheet) ready(accepted, programmed metav1.Condition, serves judgement) {
	const kind = v1alpha1.ConditionReady
	switch {
	case accepted.Status != metav1.ConditionTrue:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonNotAccepted, accepted.Message)
	case programmed.Reason == v1alpha1.ReasonPending:
		s.set(kind, metav1.ConditionUnknown, v1alpha1.ReasonPending, programmed.Message)
	case programmed.Status != metav1.ConditionTrue:
		s.set(kind, metav1.ConditionFalse, v1alpha1.ReasonNotProgrammed, programmed.Message)
	default:
		s.set(kind, serves.status, serves.reason, serves.message)
	}
}

// servicesOf lists, in order, the services of the VirtualServer.
func servicesOf(in Outcome) []netstate.ServiceKey {
	var services []netstate.ServiceKey
	for _, addr := range addressesOf(in.VirtualServer) {
		for key, owner := range in.Addresses[addr].Desired.Owners {
			if owner == nameOf(in.VirtualServer) {
				services = append(services, key)
			}
		}
	}
	slices.SortFunc(services, func(a, b netstate.ServiceKey) int {
		return cmp.Or(a.Key.Compare(b.Key), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return services
}

func nameOf(vs *v1alpha1.VirtualServer) types.NamespacedName {
	return types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}
}

// describe returns a service as people write it: 192.168.11.200:80/TCP.
func describe(key netstate.ServiceKey) string {
	return netip.AddrPortFrom(key.Key.Addr, key.Port).String() + "/" + key.Protocol.String()
}

// addressStatuses returns an entry for each VIP that a director announces,
// ordered by address.
func addressStatuses(in Outcome) []v1alpha1.AddressStatus {
	if in.Rejection != nil {
		return nil
	}
	addresses := addressesOf(in.VirtualServer)
	slices.SortFunc(addresses, netip.Addr.Compare)
	var statuses []v1alpha1.AddressStatus
	for _, addr := range addresses {
		if address := in.Addresses[addr]; address.Director != "" {
			statuses = append(statuses, v1alpha1.AddressStatus{
				Address: addr.String(), Group: address.Group, Director: address.Director,
			})
		}
	}
	return statuses
}

// directorsOf lists, in order, the directors that announce a VIP of the
// VirtualServer.
func directorsOf(in Outcome) []string {
	var directors []string
	for _, status := range addressStatuses(in) {
		directors = append(directors, status.Director)
	}
	slices.Sort(directors)
	return slices.Compact(directors)
}

// display returns the texts for kubectl's columns.
func display(in Outcome, counts v1alpha1.RealServerCounts) *v1alpha1.VirtualServerDisplay {
	spec := &in.VirtualServer.Spec
	var addresses, ports []string
	for _, address := range spec.Addresses {
		addresses = append(addresses, string(address))
	}
	for _, p := range spec.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s", p.Port, cmp.Or(p.Protocol, v1alpha1.ProtocolTCP)))
	}
	return &v1alpha1.VirtualServerDisplay{
		Addresses:   list(addresses, ","),
		Ports:       list(ports, ","),
		RealServers: fmt.Sprintf("%d/%d", counts.Ready, counts.Total),
		Directors:   list(directorsOf(in), ","),
	}
}
