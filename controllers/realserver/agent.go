// Package realserver makes pods of one node real servers: it says which VIPs
// each of them is to have, reports which it has, and sets the readiness gate of
// pods that wait for them.
package realserver

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Agent is what works in the network namespaces of the node's pods.
type Agent interface {
	// Want says which VIPs each pod is to have, of all pods that are to have any.
	// What a pod has of us besides is taken off when it has lingered; before the
	// first call nothing is.
	Want(pods []Pod)
	// Reports tells of each pod that is to have VIPs, or has some, how it was
	// found. An error says that the container runtime does not answer; the reports
	// are then about what it told last, if it ever did.
	Reports() ([]Report, error)
}

// Pod is a pod of the node and the VIPs that it is to have.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	// HostNetwork says that the pod is in the node's network.
	HostNetwork bool
	// VIPs in order.
	VIPs []VIP

	// own are the pod's addresses, by the API.
	own []netip.Addr
}

// VIP is a VIP of a pod.
type VIP struct {
	Addr netip.Addr
	// Linger is how long the VIP stays when it is not wanted any more: connections
	// may still be open.
	Linger time.Duration
}

// Report is how the agent found a pod.
type Report struct {
	UID             types.UID
	Namespace, Name string
	// Sandbox is the container runtime's name of the network namespace; empty while
	// the pod has none.
	Sandbox string
	// PodAddresses are those of the network namespace, VIPs those that are on its
	// lo and that it is silent about.
	PodAddresses, VIPs []netip.Addr
	// Problem says what is wrong; empty if nothing is.
	Problem string
}
