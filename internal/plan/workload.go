package plan

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Pod is a pod that may be a real server, with what decides about that.
type Pod struct {
	Name types.NamespacedName
	UID  types.UID
	// Node is the name of its node; empty while it has none.
	Node string
	// Labels are matched by podSelector; Annotations hold its weight and state.
	Labels, Annotations map[string]string
	// Addresses of all families; for a pod in its node's network those of the
	// node.
	Addresses []netip.Addr
	// HostNetwork says that it is in its node's network.
	HostNetwork bool
	// Ready is its condition of that name, Terminating that it is being deleted,
	// Finished that its phase is Succeeded or Failed.
	Ready, Terminating, Finished bool
}

// Endpoint is one address of an EndpointSlice.
type Endpoint struct {
	Addr netip.Addr
	// Ports of its slice.
	Ports []EndpointPort
	// Ready, Serving and Terminating are its conditions, with the defaults of
	// discovery.k8s.io/v1 where the slice says nothing.
	Ready, Serving, Terminating bool
	// Pod is the UID of the pod that it is; empty if it says that it is none. It
	// is believed only if Snapshot.Pods has that pod, in the Service's namespace
	// and with that address, and left out else.
	Pod types.UID
}

// EndpointPort is a port of an EndpointSlice.
type EndpointPort struct {
	// Name is empty if the Service has only one port.
	Name     string
	Protocol netstate.Protocol
	// Number is 0 if the slice says none, which means all ports.
	Number uint16
}

// Preparation is what the agent of a pod's node says of the pod: the VIPs that it
// has, in the network namespace that has these addresses.
type Preparation struct {
	PodAddresses, VIPs []netip.Addr
}

// Reach is how a node gets to an address, by its routes.
type Reach struct {
	// Link is the interface; empty if there is no route.
	Link string
	// Gateway is not valid if the address is on a network that the node is
	// directly connected to, which is where direct routing reaches.
	Gateway netip.Addr
	// Local says that the address is the node's own.
	Local bool
}
