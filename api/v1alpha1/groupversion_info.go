// Package v1alpha1 is the API of lvs-operator: what users write and what
// directors report. It is data only: types, their validation and the names of
// conditions and reasons.
//
// Within v1alpha1 the API only grows: a field that exists keeps its name, type
// and meaning, and validation may become looser, not tighter.
//
// +kubebuilder:object:generate=true
// +groupName=lvs-operator.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "lvs-operator.io", Version: "v1alpha1"}

// AddToScheme makes a scheme know the kinds of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&VirtualServer{}, &VirtualServerList{},
		&DirectorPool{}, &DirectorPoolList{},
		&Director{}, &DirectorList{},
		&RealServerNode{}, &RealServerNodeList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
