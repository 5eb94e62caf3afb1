package virtualserver

import (
	"context"
	"maps"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// touched maps a VirtualServer to every key whose plan may depend on it: its
// own, and those of whoever shares an address with it, and so on.
func (p *Planner) touched(ctx context.Context, object client.Object) []netstate.Key {
	vs, ok := object.(*v1alpha1.VirtualServer)
	if !ok || vs.Spec.DirectorPoolName != p.Director.Site().Pool {
		return nil
	}
	keys := map[netstate.Key]struct{}{}
	for _, key := range plan.Keys(vs) {
		if _, seen := keys[key]; seen {
			continue
		}
		keys[key] = struct{}{}
		neighbors, err := component(ctx, p.Reader, vs.Spec.DirectorPoolName, key)
		if err != nil {
			log.FromContext(ctx).Error(err, "Finding the VirtualServers that share an address", "virtualServer", client.ObjectKeyFromObject(vs))
			continue
		}
		for i := range neighbors {
			for _, other := range plan.Keys(&neighbors[i]) {
				keys[other] = struct{}{}
			}
		}
	}
	return sortedKeys(keys)
}

func (p *Planner) inNamespace(ctx context.Context, object client.Object) []netstate.Key {
	var list v1alpha1.VirtualServerList
	if err := p.Reader.List(ctx, &list, client.InNamespace(object.GetName())); err != nil {
		log.FromContext(ctx).Error(err, "Listing the VirtualServers of a namespace", "namespace", object.GetName())
		return nil
	}
	keys := map[netstate.Key]struct{}{}
	for i := range list.Items {
		for _, key := range p.touched(ctx, &list.Items[i]) {
			keys[key] = struct{}{}
		}
	}
	return sortedKeys(keys)
}

// addressesChanged lets through what changes the addresses that nodes have.
func addressesChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*corev1.Node)
		after, okAfter := e.ObjectNew.(*corev1.Node)
		return !ok || !okAfter || !equality.Semantic.DeepEqual(before.Status.Addresses, after.Status.Addresses)
	}}
}

// directorMoved lets through what changes which addresses are directors'.
func directorMoved() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.Director)
		after, okAfter := e.ObjectNew.(*v1alpha1.Director)
		return !ok || !okAfter || before.Status.Address != after.Status.Address ||
			before.Status.IPv6Address != after.Status.IPv6Address || unready(before) != unready(after)
	}}
}

// wantsChanged lets through what changes what a VirtualServer asks for: its spec,
// and the annotation that drains real servers.
func wantsChanged() predicate.Predicate {
	return predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return annotationChanged(e, v1alpha1.AnnotationDrainedServers)
	}})
}

// stateChanged lets through what changes the state that a node's pods are in.
// A node that comes or goes has everything planned anyway.
func stateChanged() predicate.Predicate {
	never := predicate.NewPredicateFuncs(func(client.Object) bool { return false })
	return predicate.Funcs{
		CreateFunc: never.Create, DeleteFunc: never.Delete, GenericFunc: never.Generic,
		UpdateFunc: func(e event.UpdateEvent) bool { return annotationChanged(e, v1alpha1.AnnotationState) },
	}
}

func annotationChanged(e event.UpdateEvent, name string) bool {
	before, had := e.ObjectOld.GetAnnotations()[name]
	after, has := e.ObjectNew.GetAnnotations()[name]
	return before != after || had != has
}

// source watches a kind that Workloads did not have, and has everything planned
// when all of it is there.
func (p *Planner) source(kind kinds) source.TypedSource[netstate.Key] {
	return source.TypedFunc[netstate.Key](func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[netstate.Key]) error {
		go func() {
			if err := p.Workloads.fill(ctx, kind, p.handler(ctx, kind, queue)); err != nil {
				if ctx.Err() == nil {
					log.FromContext(ctx).Error(err, "Reading what real servers are found by")
				}
				return
			}
			queue.Add(synced)
		}()
		return nil
	})
}

func (p *Planner) handler(ctx context.Context, kind kinds, queue workqueue.TypedRateLimitingInterface[netstate.Key]) toolscache.ResourceEventHandler {
	add := func(keys map[netstate.Key]struct{}) {
		for _, key := range sortedKeys(keys) {
			queue.Add(key)
		}
	}
	switch kind {
	case pods:
		return changes(func(before, after *corev1.Pod) { add(p.podChanged(ctx, before, after)) })
	case endpointSlices:
		return changes(func(before, after *discoveryv1.EndpointSlice) { add(p.sliceChanged(ctx, before, after)) })
	default:
		return changes(func(before, after *v1alpha1.RealServerNode) { add(p.preparationsChanged(ctx, before, after)) })
	}
}

// changes calls changed for each change of an object; before is nil for one that
// is new, after for one that is gone. What there is to begin with is no change:
// everything is planned once all of it is there.
func changes[T any](changed func(before, after *T)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if after, ok := object.(*T); ok && !initial {
				changed(nil, after)
			}
		},
		UpdateFunc: func(before, after any) {
			old, ok := before.(*T)
			current, okToo := after.(*T)
			if ok && okToo {
				changed(old, current)
			}
		},
		DeleteFunc: func(object any) {
			if missed, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = missed.Obj
			}
			if before, ok := object.(*T); ok {
				changed(before, nil)
			}
		},
	}
}

// podChanged returns the keys of the VirtualServers that select the pod, or did,
// and of those whose Service has it as an endpoint; none if nothing changed that
// a plan depends on.
func (p *Planner) podChanged(ctx context.Context, before, after *corev1.Pod) map[netstate.Key]struct{} {
	if before != nil && after != nil && reflect.DeepEqual(PlanPod(before), PlanPod(after)) {
		return nil
	}
	keys := map[netstate.Key]struct{}{}
	pod := after
	if pod == nil {
		pod = before
	}
	p.ofPod(ctx, pod, keys)
	if before != nil && after != nil && !maps.Equal(before.Labels, after.Labels) {
		p.selecting(ctx, before, keys)
	}
	return keys
}

// ofPod adds the keys of the VirtualServers that a pod is a real server of.
func (p *Planner) ofPod(ctx context.Context, pod *corev1.Pod, keys map[netstate.Key]struct{}) {
	p.selecting(ctx, pod, keys)
	if p.Workloads.lacking(endpointSlices) != 0 {
		return // nobody names a Service, or everything is planned soon
	}
	var list discoveryv1.EndpointSliceList
	if err := p.Workloads.reader.List(ctx, &list, client.InNamespace(pod.Namespace), client.MatchingFields{slicePodIndex: pod.Name}); err != nil {
		log.FromContext(ctx).Error(err, "Listing the EndpointSlices that name a pod", "pod", client.ObjectKeyFromObject(pod))
		return
	}
	for i := range list.Items {
		p.naming(ctx, &list.Items[i], keys)
	}
}

// selecting adds the keys of the VirtualServers that select a pod.
func (p *Planner) selecting(ctx context.Context, pod *corev1.Pod, keys map[netstate.Key]struct{}) {
	p.addKeys(ctx, keys, func(vs *v1alpha1.VirtualServer) bool { return selectorOf(vs).Matches(labels.Set(pod.Labels)) },
		client.InNamespace(pod.Namespace), client.MatchingFields{selectorIndex: hasSelector})
}

// naming adds the keys of the VirtualServers that name the Service of a slice.
func (p *Planner) naming(ctx context.Context, slice *discoveryv1.EndpointSlice, keys map[netstate.Key]struct{}) {
	for _, service := range indexSliceService(slice) {
		p.addKeys(ctx, keys, func(*v1alpha1.VirtualServer) bool { return true },
			client.InNamespace(slice.Namespace), client.MatchingFields{serviceIndex: service})
	}
}

// addKeys adds the keys of the pool's VirtualServers that are listed and match.
// What their real servers are changes nothing for those that share an address
// with them: claims are judged without it.
func (p *Planner) addKeys(ctx context.Context, keys map[netstate.Key]struct{}, match func(*v1alpha1.VirtualServer) bool, options ...client.ListOption) {
	var list v1alpha1.VirtualServerList
	if err := p.Reader.List(ctx, &list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "Listing the VirtualServers that a change of workloads touches")
		return
	}
	pool := p.Director.Site().Pool
	for i := range list.Items {
		if vs := &list.Items[i]; vs.Spec.DirectorPoolName == pool && match(vs) {
			for _, key := range plan.Keys(vs) {
				keys[key] = struct{}{}
			}
		}
	}
}

// sliceChanged returns the keys of the VirtualServers that name the Service of an
// EndpointSlice; none if nothing changed that a plan depends on.
func (p *Planner) sliceChanged(ctx context.Context, before, after *discoveryv1.EndpointSlice) map[netstate.Key]struct{} {
	keys := map[netstate.Key]struct{}{}
	if before != nil && after != nil && reflect.DeepEqual(indexSliceService(before), indexSliceService(after)) {
		if !reflect.DeepEqual(PlanEndpoints(before), PlanEndpoints(after)) {
			p.naming(ctx, after, keys)
		}
		return keys
	}
	for _, slice := range []*discoveryv1.EndpointSlice{before, after} {
		if slice != nil {
			p.naming(ctx, slice, keys)
		}
	}
	return keys
}

// preparationsChanged returns the keys that depend on the pods of which an agent
// says something else than before.
func (p *Planner) preparationsChanged(ctx context.Context, before, after *v1alpha1.RealServerNode) map[netstate.Key]struct{} {
	keys := map[netstate.Key]struct{}{}
	if p.Workloads.lacking(pods) != 0 {
		return keys // everything is planned when they are there
	}
	var node string
	var old, current map[types.UID]plan.Preparation
	if before != nil {
		node, old = before.Name, preparations(before)
	}
	if after != nil {
		node, current = after.Name, preparations(after)
	}
	for uid := range old {
		if _, listed := current[uid]; !listed {
			p.ofPodWith(ctx, uid, node, keys)
		}
	}
	for uid, preparation := range current {
		if was, listed := old[uid]; !listed || !reflect.DeepEqual(was, preparation) {
			p.ofPodWith(ctx, uid, node, keys)
		}
	}
	return keys
}

// ofPodWith adds the keys of the VirtualServers that the pod with that UID is a
// real server of, if it is on the node.
func (p *Planner) ofPodWith(ctx context.Context, uid types.UID, node string, keys map[netstate.Key]struct{}) {
	p.ofPods(ctx, client.MatchingFields{podUIDIndex: string(uid)}, func(pod *corev1.Pod) bool { return pod.Spec.NodeName == node }, keys)
}

func (p *Planner) ofPods(ctx context.Context, which client.ListOption, match func(*corev1.Pod) bool, keys map[netstate.Key]struct{}) {
	var list corev1.PodList
	if err := p.Workloads.reader.List(ctx, &list, which); err != nil {
		log.FromContext(ctx).Error(err, "Listing pods that are real servers")
		return
	}
	for i := range list.Items {
		if match(&list.Items[i]) {
			p.ofPod(ctx, &list.Items[i], keys)
		}
	}
}

// onNode returns the keys that depend on the pods of a node.
func (p *Planner) onNode(ctx context.Context, node client.Object) []netstate.Key {
	if p.Workloads.lacking(pods) != 0 {
		return nil
	}
	keys := map[netstate.Key]struct{}{}
	p.ofPods(ctx, client.MatchingFields{podNodeIndex: node.GetName()}, func(*corev1.Pod) bool { return true }, keys)
	return sortedKeys(keys)
}
