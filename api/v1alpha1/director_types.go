package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Director tells how the director of one node is. It is made and written by
// that director, is named as its node and goes with it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=dir
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.directorPoolName`
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.display.active`
// +kubebuilder:printcolumn:name="VIPs",type=integer,JSONPath=`.status.counts.virtualIPs`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Alive",type=string,JSONPath=`.status.conditions[?(@.type=="Alive")].status`
// +kubebuilder:printcolumn:name="Address",type=string,priority=1,JSONPath=`.status.address`
// +kubebuilder:printcolumn:name="Interface",type=string,priority=1,JSONPath=`.status.interface`
// +kubebuilder:printcolumn:name="Kernel",type=string,priority=1,JSONPath=`.status.kernelVersion`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == self.spec.nodeName",message="a Director must be named as its node"
type Director struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the object's name, labels and annotations.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says which director this is.
	// +required
	Spec DirectorSpec `json:"spec,omitzero"`

	// status is what the director reports of itself.
	// +optional
	Status DirectorStatus `json:"status,omitzero"`
}

// DirectorList is a list of Directors.
//
// +kubebuilder:object:root=true
type DirectorList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []Director `json:"items"`
}

// DirectorSpec says which director this is. It cannot be changed: a director
// that joins another pool makes its Director anew.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec cannot be changed"
type DirectorSpec struct {
	// nodeName is the node that the director runs on.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	NodeName string `json:"nodeName,omitempty"`

	// directorPoolName is the DirectorPool that it belongs to.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	DirectorPoolName string `json:"directorPoolName,omitempty"`
}

// DirectorStatus is what a director reports of itself.
type DirectorStatus struct {
	// conditions are Ready, Candidate, APIReachable, AddressConflict,
	// KernelAnswers, IPVSAvailable, FullyProgrammed and ConnectionsSynced.
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// address is the node's own address on the announcement interface.
	// +kubebuilder:validation:MaxLength=45
	// +optional
	Address string `json:"address,omitempty"`

	// ipv6Address is the node's own IPv6 address on the announcement interface, if
	// it has one.
	// +kubebuilder:validation:MaxLength=45
	// +optional
	IPv6Address string `json:"ipv6Address,omitempty"`

	// syncAddress is the address from which this director sends its connections to
	// the others of the pool, and from which these take them; empty while it does
	// not.
	// +kubebuilder:validation:MaxLength=45
	// +optional
	SyncAddress string `json:"syncAddress,omitempty"`

	// interface is the network interface that VIPs are announced on.
	// +kubebuilder:validation:MaxLength=15
	// +optional
	Interface string `json:"interface,omitempty"`

	// mac is that interface's hardware address.
	// +kubebuilder:validation:MaxLength=59
	// +optional
	MAC string `json:"mac,omitempty"`

	// kernelVersion is the node's kernel release.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	KernelVersion string `json:"kernelVersion,omitempty"`

	// schedulers are the IPVS schedulers that have been found in the kernel.
	// One that is missing here may still be loaded when a VirtualServer needs
	// it.
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=16
	// +optional
	Schedulers []string `json:"schedulers,omitempty"`

	// connectionTableSize is the number of buckets of IPVS's connection table.
	// +kubebuilder:validation:Minimum=0
	// +optional
	ConnectionTableSize int64 `json:"connectionTableSize,omitempty"`

	// groups are the groups of VIPs that this director is active for.
	// +listType=map
	// +listMapKey=group
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Groups []GroupStatus `json:"groups,omitempty"`

	// counts are how much the director has in its kernel.
	// +optional
	Counts *DirectorCounts `json:"counts,omitempty"`

	// lastTransition is the last time that the director became active or
	// stopped being so.
	// +optional
	LastTransition *DirectorTransition `json:"lastTransition,omitempty"`

	// display holds texts for the columns of kubectl get, and nothing that is
	// not said elsewhere.
	// +optional
	Display *DirectorDisplay `json:"display,omitempty"`
}

// GroupStatus tells of a group that a director is active for.
type GroupStatus struct {
	// group is the group's number.
	// +kubebuilder:validation:Minimum=0
	// +required
	Group int32 `json:"group"`

	// epoch counts the group's changes of hands. Of two directors that claim a
	// group the one with the higher epoch is right.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Epoch int64 `json:"epoch,omitempty"`

	// since is when the director became active for the group.
	// +optional
	Since metav1.Time `json:"since,omitzero"`
}

// DirectorCounts are how much a director has in its kernel.
type DirectorCounts struct {
	// virtualIPs is the number of VIPs.
	// +kubebuilder:validation:Minimum=0
	// +required
	VirtualIPs int32 `json:"virtualIPs"`

	// services is the number of IPVS services.
	// +kubebuilder:validation:Minimum=0
	// +required
	Services int32 `json:"services"`

	// destinations is the number of IPVS destinations.
	// +kubebuilder:validation:Minimum=0
	// +required
	Destinations int32 `json:"destinations"`
}

// DirectorTransition tells of a takeover, a handover or a withdrawal.
type DirectorTransition struct {
	// reason says what happened and why.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +required
	Reason string `json:"reason,omitempty"`

	// time is when it happened.
	// +required
	Time metav1.Time `json:"time,omitzero"`

	// gap is how long nobody announced the VIPs, as far as the director could
	// measure it.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Gap *metav1.Duration `json:"gap,omitempty"`
}

// DirectorDisplay holds texts for the columns of kubectl get.
type DirectorDisplay struct {
	// active says how many groups of how many the director is active for:
	// "1/1 groups". Of a director that is not Alive it counts for nothing.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Active string `json:"active,omitempty"`
}
