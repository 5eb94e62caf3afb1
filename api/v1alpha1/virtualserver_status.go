package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// VirtualServerStatus is what the directors report.
type VirtualServerStatus struct {
	// conditions are Accepted, Programmed and Ready.
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that the status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// addresses say which director is active for each VIP. The active director
	// of a group writes the entries of that group, and nobody else does.
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Addresses []AddressStatus `json:"addresses,omitempty"`

	// realServerCounts count the real servers.
	// +optional
	RealServerCounts *RealServerCounts `json:"realServerCounts,omitempty"`

	// realServers say how the real servers are, those that are worst off
	// first: at most 64 of them.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +optional
	RealServers []RealServerStatus `json:"realServers,omitempty"`

	// display holds texts for the columns of kubectl get, and nothing that is
	// not said elsewhere.
	// +optional
	Display *VirtualServerDisplay `json:"display,omitempty"`
}

// AddressStatus says who serves a VIP.
type AddressStatus struct {
	// address is the VIP.
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=45
	// +required
	Address string `json:"address,omitempty"`

	// group is the number of the group that the VIP is in: VIPs of one group
	// are announced by the same director.
	// +kubebuilder:validation:Minimum=0
	// +required
	Group int32 `json:"group"`

	// director is the node whose director announces the VIP.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Director string `json:"director,omitempty"`
}

// RealServerCounts count the real servers of a VirtualServer. A pod that has
// addresses of both families is one real server.
type RealServerCounts struct {
	// total is how many there are, whatever their state, without those that are
	// on their way out: pods that are being deleted, endpoints that go, and what
	// was taken off the list.
	// +kubebuilder:validation:Minimum=0
	// +required
	Total int32 `json:"total"`

	// ready is how many get new connections.
	// +kubebuilder:validation:Minimum=0
	// +required
	Ready int32 `json:"ready"`

	// draining is how many get no new connections and keep those they have.
	// +kubebuilder:validation:Minimum=0
	// +required
	Draining int32 `json:"draining"`

	// readyWeight is the sum of the weights of those that are ready.
	// +kubebuilder:validation:Minimum=0
	// +required
	ReadyWeight int32 `json:"readyWeight"`
}

// RealServerStatus says how a real server is.
type RealServerStatus struct {
	// address is the real server's own address.
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=45
	// +required
	Address string `json:"address,omitempty"`

	// port is where the real server listens; 0 means on the ports that are
	// served.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port"`

	// weight is its weight while it is up.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +required
	Weight int32 `json:"weight"`

	// state is how the active director found it. Up: it gets new connections.
	// Down: a health check says that it does not answer, its pod is not ready, or
	// it is left out for what reason says. Unknown: no verdict yet, or its pod has
	// not been given the VIPs yet. Draining: it gets no new connections and keeps
	// those it has. Disabled: it was removed by hand, or its pod is being deleted
	// and has no connection any more.
	// +required
	State ObservedState `json:"state,omitempty"`

	// reason says why, in words. Of a real server that is left out it begins with
	// NotPrepared, NotAdjacent, ServicePortMismatch or another reason of that kind.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Reason string `json:"reason,omitempty"`

	// since is when it came into this state, as far as the reporting director
	// knows.
	// +optional
	Since metav1.Time `json:"since,omitzero"`

	// pod is the name of the pod that it is, in the VirtualServer's namespace.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Pod string `json:"pod,omitempty"`
}

// ObservedState is how a director found a real server.
//
// +kubebuilder:validation:Enum=Up;Down;Unknown;Draining;Disabled
type ObservedState string

// The states that a director finds real servers in.
const (
	ObservedUp       ObservedState = "Up"
	ObservedDown     ObservedState = "Down"
	ObservedUnknown  ObservedState = "Unknown"
	ObservedDraining ObservedState = "Draining"
	ObservedDisabled ObservedState = "Disabled"
)

// VirtualServerDisplay holds texts for the columns of kubectl get.
type VirtualServerDisplay struct {
	// addresses are all VIPs: "192.168.11.200,fd00:11::200".
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Addresses string `json:"addresses,omitempty"`

	// ports are the ports with their protocols: "80/TCP,53/UDP".
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Ports string `json:"ports,omitempty"`

	// realServers says how many real servers of how many are ready: "2/2".
	// +kubebuilder:validation:MaxLength=32
	// +optional
	RealServers string `json:"realServers,omitempty"`

	// directors are the nodes whose directors announce the VIPs.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Directors string `json:"directors,omitempty"`
}
