// Package plan turns API objects into the state that a director is to bring
// about. It is pure: equal snapshots give equal plans, whatever the order of
// their lists, and it knows no client, no clock and no log.
package plan

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Snapshot is all that the plan of one key depends on.
type Snapshot struct {
	Key netstate.Key
	// VirtualServers are those of the pool that name the key's address, and
	// whoever shares an address with one of them, and so on: a claim is judged
	// with all that it touches.
	VirtualServers []v1alpha1.VirtualServer
	// Pool is nil if there is no such DirectorPool.
	Pool *v1alpha1.DirectorPool
	// NamespaceLabels of every namespace that a VirtualServer above is in.
	NamespaceLabels map[string]map[string]string
	// Reserved are addresses that no VIP may be, with what they are ("an address
	// of node web-3", "the API server's address", "a gateway of node lb-1").
	Reserved map[netip.Addr]string
	// Directors are the addresses of the directors of the pool on their announcement
	// interfaces: a real server that is one of them needs the guard.
	Directors map[netip.Addr]string
	// Starting are those of them that cannot serve yet, or no more, with why.
	Starting map[string]string
	// Interface is the announcement interface; Source the node's address on it,
	// from which the node's own packets to an IPv4 VIP are sent.
	Interface string
	Source    netip.Addr
	// Pods are those that a VirtualServer above selects, and those that an
	// endpoint of its Service says it is; others do no harm.
	Pods []Pod
	// Endpoints of each Service that a VirtualServer above names.
	Endpoints map[types.NamespacedName][]Endpoint
	// NodeStates is the annotation v1alpha1.AnnotationState of each node that has
	// it, by the node's name.
	NodeStates map[string]string
	// Prepared is what the agents say of the pods above.
	Prepared map[types.UID]Preparation
	// Reach tells how the node gets to a real server; false says that this is not
	// known, which counts as adjacent. Nil knows nothing. It is called once for
	// each address at most.
	Reach func(netip.Addr) (Reach, bool)
}

// Desired is what one key is to be like. It holds all that a director needs to
// go on without the API server, so it is what a checkpoint keeps.
type Desired struct {
	Key netstate.Key
	// State has every enabled real server with its full weight; Weigh makes of
	// it what the kernel is to hold.
	State netstate.State
	// Checks of each destination; one without any is always up.
	Checks map[netstate.DestinationKey][]Check
	// Owners says which VirtualServer each service is of.
	Owners map[netstate.ServiceKey]types.NamespacedName
	// Policies of each service.
	Policies map[netstate.ServiceKey]Policy
	// Unready are destinations that are to get no new connections although
	// their checks may pass, since their pod is not ready, with why.
	Unready map[netstate.DestinationKey]string
	// Links are, in order, the interfaces other than the announcement interface
	// by which the node gets to real servers: those of its own pods. Real servers
	// that wait or drain count too.
	Links []string
	// Local are, in order, the addresses of the director itself that are among its
	// real servers. A checkpoint does not keep them: without the API no service changes.
	Local []netip.Addr
	// Servers are all real servers of each service, those too that are not in State,
	// with what there is to tell of them. What is served is not decided from it
	// and a checkpoint does not keep it.
	Servers map[netstate.DestinationKey]Server
}

// Policy is how a service deals with real servers that are down, come up or
// leave.
type Policy struct {
	// Quiesce keeps a server that is down at weight 0 instead of removing it.
	Quiesce bool
	// DrainTimeout is how long a server that leaves keeps its connections.
	DrainTimeout time.Duration
	// SlowStart is how long a server that comes up takes to get to its weight; 0
	// is at once. Where it is set the weights in State are Scale times those of
	// the spec.
	SlowStart time.Duration
	Scale     uint32
	// Quorum is what must be up for the service to be in order, Hysteresis by how
	// much less it is lost and by how much more it is there again. They are sums of
	// weights as State has them; Quorum is at least 1.
	Quorum, Hysteresis uint64
	// Sorry is the address of the server that answers while the quorum is lost;
	// not valid if there is none. It is not in State.
	Sorry netip.Addr
	// SorryProblem says why there is none although the spec names one; empty else.
	SorryProblem string `json:",omitempty"`
}

// Server is a real server of a service as status shows it.
type Server struct {
	// Pod is the name of the pod that it is; empty if it is none.
	Pod string
	// Weight is that of the spec or the pod's annotation, whatever its state.
	Weight uint32
	// State is what is wanted of it, Why who wants it: "drained by an annotation
	// of node web-3". A pod that is being deleted is Disabled.
	State v1alpha1.RealServerState
	Why   string
	// Reason is one of the constants of v1alpha1 for a server that is left
	// out, Message says more; both are empty for all others.
	Reason, Message string
}

// Check is one probe that a destination depends on.
type Check struct {
	Name  string
	Probe health.Probe
	// InitiallyUp says that a server that is not in the kernel yet is put into
	// service before its first verdict.
	InitiallyUp bool
}

// Rejection says why a VirtualServer is refused. Reason is a constant of
// v1alpha1, Message names the other object or the address.
type Rejection struct {
	VirtualServer types.NamespacedName
	Reason        string
	Message       string
}
