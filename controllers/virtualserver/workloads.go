package virtualserver

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// kinds is a set of the kinds of objects that real servers are found by.
type kinds uint8

const (
	pods kinds = 1 << iota
	endpointSlices
	realServerNodes
)

// every lists the kinds one by one.
var every = [...]kinds{pods, endpointSlices, realServerNodes}

// The indexes of what Workloads holds.
const (
	podNodeIndex      = "spec.nodeName"
	podUIDIndex       = "metadata.uid"
	sliceServiceIndex = "serviceName"
	slicePodIndex     = "endpoints.targetRef.name"
)

// informerRetry is how soon a kind is asked for again that the API server does
// not have.
const informerRetry = 10 * time.Second

// Workloads holds what real servers are found by when they are not written down:
// the pods, EndpointSlices and RealServerNodes of the whole cluster. None of
// them is asked for before a plan needs it, for most of it is nobody's business
// here. Its methods may be called concurrently; a nil Workloads never has
// anything.
type Workloads struct {
	// reader reads what has been filled. What it returns is shared: it must not be
	// changed.
	reader client.Reader
	cache  cache.Cache

	mu            sync.Mutex
	asked, filled kinds
}

// NewWorkloads returns an empty Workloads, which the manager starts and stops.
func NewWorkloads(mgr manager.Manager) (*Workloads, error) {
	shared := true
	c, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(),
		Scheme:     mgr.GetScheme(),
		Mapper:     mgr.GetRESTMapper(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                {Transform: slimPod},
			&discoveryv1.EndpointSlice{}: {Transform: slimSlice},
			&v1alpha1.RealServerNode{}:   {Transform: slimRealServerNode},
		},
		DefaultUnsafeDisableDeepCopy: &shared,
		// Whoever reads too early gets an error, and does not start a watch.
		ReaderFailOnMissingInformer: true,
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of workloads: %w", err)
	}
	if err := mgr.Add(c); err != nil {
		return nil, fmt.Errorf("adding the cache of workloads: %w", err)
	}
	return &Workloads{reader: c, cache: c}, nil
}

// lacking returns which of the kinds it does not have, or not all of yet.
func (w *Workloads) lacking(needed kinds) kinds {
	if w == nil {
		return needed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return needed &^ w.filled
}

// ask notes that the kinds are needed, and returns those that were not until
// now.
func (w *Workloads) ask(needed kinds) []kinds {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var fresh []kinds
	for _, kind := range every {
		if needed&kind != 0 && w.asked&kind == 0 {
			fresh = append(fresh, kind)
		}
	}
	w.asked |= needed
	return fresh
}

// fill watches a kind and returns once all of it is there, or with ctx's end as
// an error. The handler is told of every change until ctx ends, and of what
// there is to begin with.
func (w *Workloads) fill(ctx context.Context, kind kinds, handler toolscache.ResourceEventHandler) error {
	object, indexes := watched(kind)
	informer, err := w.informer(ctx, object)
	if err != nil {
		return err
	}
	for name, index := range indexes {
		if err := w.cache.IndexField(ctx, object, name, index); err != nil {
			return fmt.Errorf("indexing by %s: %w", name, err)
		}
	}
	registration, err := informer.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return fmt.Errorf("waiting for all there is: %w", ctx.Err())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filled |= kind
	return nil
}

// informer begins to watch a kind. A cluster that does not have it may get it.
func (w *Workloads) informer(ctx context.Context, object client.Object) (cache.Informer, error) {
	for {
		informer, err := w.cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err == nil {
			return informer, nil
		}
		log.FromContext(ctx).Error(err, "Watching what real servers are found by; trying again", "kind", fmt.Sprintf("%T", object))
		timer := time.NewTimer(informerRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("beginning to watch: %w", ctx.Err())
		case <-timer.C:
		}
	}
}

// watched returns an object of a kind, and its indexes.
func watched(kind kinds) (client.Object, map[string]client.IndexerFunc) {
	switch kind {
	case pods:
		return &corev1.Pod{}, map[string]client.IndexerFunc{podNodeIndex: indexPodNode, podUIDIndex: indexPodUID}
	case endpointSlices:
		return &discoveryv1.EndpointSlice{}, map[string]client.IndexerFunc{sliceServiceIndex: indexSliceService, slicePodIndex: indexSlicePods}
	default:
		return &v1alpha1.RealServerNode{}, nil
	}
}

func indexPodNode(object client.Object) []string {
	if pod, ok := object.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
		return []string{pod.Spec.NodeName}
	}
	return nil
}

func indexPodUID(object client.Object) []string { return []string{string(object.GetUID())} }

func indexSliceService(object client.Object) []string {
	if service := object.GetLabels()[discoveryv1.LabelServiceName]; service != "" {
		return []string{service}
	}
	return nil
}

// indexSlicePods returns the names of the pods that the slice's endpoints say
// that they are, each once.
func indexSlicePods(object client.Object) []string {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	var names []string
	for _, endpoint := range slice.Endpoints {
		if name := podOf(endpoint).Name; name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// identity is what is kept of every object's metadata.
func identity(from metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: from.Namespace, Name: from.Name, UID: from.UID, ResourceVersion: from.ResourceVersion,
		DeletionTimestamp: from.DeletionTimestamp,
	}
}

// ownAnnotations begins the names of the annotations that mean something here.
const ownAnnotations = "lvs-operator.io/"

// slimPod keeps of a pod what plans depend on.
func slimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	slim := &corev1.Pod{ObjectMeta: identity(pod.ObjectMeta)}
	slim.Labels = pod.Labels
	for name, value := range pod.Annotations {
		if strings.HasPrefix(name, ownAnnotations) {
			if slim.Annotations == nil {
				slim.Annotations = map[string]string{}
			}
			slim.Annotations[name] = value
		}
	}
	slim.Spec.NodeName, slim.Spec.HostNetwork = pod.Spec.NodeName, pod.Spec.HostNetwork
	slim.Status.Phase, slim.Status.PodIPs = pod.Status.Phase, pod.Status.PodIPs
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			slim.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: condition.Status}}
		}
	}
	return slim, nil
}

// slimSlice keeps of an EndpointSlice what plans depend on.
func slimSlice(object any) (any, error) {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return object, nil
	}
	slim := &discoveryv1.EndpointSlice{ObjectMeta: identity(slice.ObjectMeta), AddressType: slice.AddressType}
	if service := slice.Labels[discoveryv1.LabelServiceName]; service != "" {
		slim.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	}
	for _, port := range slice.Ports {
		slim.Ports = append(slim.Ports, discoveryv1.EndpointPort{Name: port.Name, Protocol: port.Protocol, Port: port.Port})
	}
	for _, endpoint := range slice.Endpoints {
		kept := discoveryv1.Endpoint{Addresses: endpoint.Addresses, Conditions: endpoint.Conditions}
		if pod := podOf(endpoint); pod.Name != "" {
			kept.TargetRef = &pod
		}
		slim.Endpoints = append(slim.Endpoints, kept)
	}
	return slim, nil
}

// podOf returns the pod that an endpoint says it is, with no name if none.
func podOf(endpoint discoveryv1.Endpoint) corev1.ObjectReference {
	if endpoint.TargetRef == nil || endpoint.TargetRef.Kind != "Pod" {
		return corev1.ObjectReference{}
	}
	return corev1.ObjectReference{Kind: "Pod", Name: endpoint.TargetRef.Name, UID: endpoint.TargetRef.UID}
}

// slimRealServerNode keeps of a RealServerNode which pods have which VIPs.
func slimRealServerNode(object any) (any, error) {
	node, ok := object.(*v1alpha1.RealServerNode)
	if !ok {
		return object, nil
	}
	slim := &v1alpha1.RealServerNode{ObjectMeta: identity(node.ObjectMeta), Spec: node.Spec}
	for _, pod := range node.Status.Pods {
		slim.Status.Pods = append(slim.Status.Pods, v1alpha1.PreparedPod{
			UID: pod.UID, PodAddresses: pod.PodAddresses, Addresses: pod.Addresses,
		})
	}
	return slim, nil
}
