package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RealServerNode tells which pods of one node the real-server agent there has
// prepared. It is made and written by that agent, is named as its node and goes
// with it. A director sends nothing for a VIP to a pod that is not listed here
// with it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=rsn
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.counts.pods`
// +kubebuilder:printcolumn:name="Prepared",type=integer,JSONPath=`.status.counts.prepared`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == self.spec.nodeName",message="a RealServerNode must be named as its node"
type RealServerNode struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the object's name, labels and annotations.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says which node this is of.
	// +required
	Spec RealServerNodeSpec `json:"spec,omitzero"`

	// status is what the agent reports of the node's pods.
	// +optional
	Status RealServerNodeStatus `json:"status,omitzero"`
}

// RealServerNodeList is a list of RealServerNodes.
//
// +kubebuilder:object:root=true
type RealServerNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []RealServerNode `json:"items"`
}

// RealServerNodeSpec says which node a RealServerNode is of. It cannot be changed.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec cannot be changed"
type RealServerNodeSpec struct {
	// nodeName is the node that the agent runs on.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	NodeName string `json:"nodeName,omitempty"`
}

// RealServerNodeStatus is what the agent reports of its node's pods.
type RealServerNodeStatus struct {
	// conditions are Ready.
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// pods are the pods that are to have VIPs, or have them, ordered by uid.
	// +listType=map
	// +listMapKey=uid
	// +kubebuilder:validation:MaxItems=256
	// +optional
	Pods []PreparedPod `json:"pods,omitempty"`

	// counts are how many pods there are of each kind.
	// +optional
	Counts *RealServerNodeCounts `json:"counts,omitempty"`
}

// PreparedPod is a pod and the VIPs that it has.
type PreparedPod struct {
	// uid is the pod's UID.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +required
	UID string `json:"uid,omitempty"`

	// namespace is the pod's namespace.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// name is the pod's name.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Name string `json:"name,omitempty"`

	// sandbox is the container runtime's name of the network namespace that was
	// prepared. A pod whose sandbox was made anew is prepared anew.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Sandbox string `json:"sandbox,omitempty"`

	// podAddresses are the addresses of that network namespace. What is sent to
	// another address of the pod would meet a namespace that is not prepared.
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=45
	// +optional
	PodAddresses []string `json:"podAddresses,omitempty"`

	// addresses are the VIPs that the pod has on its lo, and is silent about.
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=45
	// +optional
	Addresses []string `json:"addresses,omitempty"`

	// problem says why a VIP that is wanted is missing above, in words.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Problem string `json:"problem,omitempty"`
}

// RealServerNodeCounts are how many pods there are of each kind.
type RealServerNodeCounts struct {
	// pods is how many are to have VIPs.
	// +kubebuilder:validation:Minimum=0
	// +required
	Pods int32 `json:"pods"`

	// prepared is how many have all of those that they are to have.
	// +kubebuilder:validation:Minimum=0
	// +required
	Prepared int32 `json:"prepared"`
}
