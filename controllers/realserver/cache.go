package realserver

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// CacheOptions are what a node's Controller has in its cache: of pods those of
// the node alone, and of all objects what it goes by and no more.
func CacheOptions(node string) map[client.Object]cache.ByObject {
	strip := cache.TransformStripManagedFields()
	return map[client.Object]cache.ByObject{
		&corev1.Pod{}: {
			Field:     fields.OneTermEqualSelector("spec.nodeName", node),
			Transform: slim(slimPod),
		},
		&corev1.Node{}:               {Transform: slim(slimNode)},
		&corev1.Namespace{}:          {Transform: strip},
		&v1alpha1.VirtualServer{}:    {Transform: slim(slimVirtualServer)},
		&v1alpha1.Director{}:         {Transform: slim(slimDirector)},
		&v1alpha1.DirectorPool{}:     {Transform: strip},
		&v1alpha1.RealServerNode{}:   {Field: fields.OneTermEqualSelector("metadata.name", node), Transform: strip},
		&discoveryv1.EndpointSlice{}: {Transform: slim(func(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice { return slimSlice(slice, node) })},
	}
}

func slim[T any](cut func(T) T) func(any) (any, error) {
	return func(object any) (any, error) {
		if of, ok := object.(T); ok {
			return cut(of), nil
		}
		return object, nil
	}
}

// identity is what is kept of all metadata that is not asked for.
func identity(of metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: of.Name, Namespace: of.Namespace, UID: of.UID, ResourceVersion: of.ResourceVersion, Generation: of.Generation,
		CreationTimestamp: of.CreationTimestamp, DeletionTimestamp: of.DeletionTimestamp,
	}
}

func slimPod(pod *corev1.Pod) *corev1.Pod {
	slim := &corev1.Pod{ObjectMeta: identity(pod.ObjectMeta)}
	slim.Labels = pod.Labels
	for _, name := range []string{v1alpha1.AnnotationWeight, v1alpha1.AnnotationState} {
		if value, ok := pod.Annotations[name]; ok {
			metav1.SetMetaDataAnnotation(&slim.ObjectMeta, name, value)
		}
	}
	slim.Spec.NodeName, slim.Spec.HostNetwork = pod.Spec.NodeName, pod.Spec.HostNetwork
	slim.Spec.ReadinessGates = pod.Spec.ReadinessGates
	slim.Status.Phase, slim.Status.PodIPs = pod.Status.Phase, pod.Status.PodIPs
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady || condition.Type == v1alpha1.PodConditionRealServerReady {
			slim.Status.Conditions = append(slim.Status.Conditions, condition)
		}
	}
	return slim
}

func slimNode(node *corev1.Node) *corev1.Node {
	slim := &corev1.Node{ObjectMeta: identity(node.ObjectMeta)}
	slim.Status.Addresses = node.Status.Addresses
	return slim
}

func slimVirtualServer(vs *v1alpha1.VirtualServer) *v1alpha1.VirtualServer {
	return &v1alpha1.VirtualServer{ObjectMeta: identity(vs.ObjectMeta), Spec: vs.Spec}
}

func slimDirector(director *v1alpha1.Director) *v1alpha1.Director {
	slim := &v1alpha1.Director{ObjectMeta: identity(director.ObjectMeta), Spec: director.Spec}
	slim.Status.Address, slim.Status.IPv6Address = director.Status.Address, director.Status.IPv6Address
	return slim
}

// slimSlice keeps the endpoints of the node, and those of which nobody says
// where they are.
func slimSlice(slice *discoveryv1.EndpointSlice, node string) *discoveryv1.EndpointSlice {
	slim := &discoveryv1.EndpointSlice{ObjectMeta: identity(slice.ObjectMeta), AddressType: slice.AddressType, Ports: slice.Ports}
	slim.Labels = map[string]string{discoveryv1.LabelServiceName: slice.Labels[discoveryv1.LabelServiceName]}
	for _, endpoint := range slice.Endpoints {
		if endpoint.NodeName == nil || *endpoint.NodeName == node {
			slim.Endpoints = append(slim.Endpoints, endpoint)
		}
	}
	return slim
}
