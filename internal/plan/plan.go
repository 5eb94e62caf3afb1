// Package plan turns API objects into the state that a director is to bring
// about. It is pure: equal snapshots give equal plans, whatever the order of
// their lists, and it knows no client, no clock and no log.
package plan

import (
	"net/netip"

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
	// Directors are the addresses of the directors of the pool: no real server
	// may be one of them.
	Directors map[netip.Addr]string
	// Interface is the announcement interface; Source the node's address on it,
	// from which the node's own packets to an IPv4 VIP are sent.
	Interface string
	Source    netip.Addr
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
