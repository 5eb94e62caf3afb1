package realserver

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/controllers/virtualserver"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// world is all that decides which VIPs the pods of one node are to have. What it
// holds is shared with the cache: it is only read.
type world struct {
	// pods of the node, as the API has them and as plans see them.
	pods    []corev1.Pod
	planned []plan.Pod

	servers    []v1alpha1.VirtualServer
	pools      map[string]*v1alpha1.DirectorPool
	namespaces map[string]map[string]string
	// directors are the addresses of each pool's directors.
	directors map[string]map[netip.Addr]string
	reserved  map[netip.Addr]string
	// endpoints, of the Services that VirtualServers of the pods' namespaces name,
	// are those alone that are pods of the node.
	endpoints map[types.NamespacedName][]plan.Endpoint
}

// readWorld reads it all, from a cache or from the API server. PodsOf are what
// narrows a list of pods to those of the node, where the reader has others.
func readWorld(ctx context.Context, reader client.Reader, reserved map[netip.Addr]string, podsOf ...client.ListOption) (*world, error) {
	w := &world{}
	var pods corev1.PodList
	if err := list(ctx, reader, &pods, podsOf...); err != nil {
		return nil, fmt.Errorf("listing the pods of the node: %w", err)
	}
	w.pods = pods.Items
	for i := range w.pods {
		w.planned = append(w.planned, virtualserver.PlanPod(&w.pods[i]))
	}
	var servers v1alpha1.VirtualServerList
	if err := list(ctx, reader, &servers); err != nil {
		return nil, fmt.Errorf("listing VirtualServers: %w", err)
	}
	w.servers = servers.Items
	if err := w.readRules(ctx, reader); err != nil {
		return nil, err
	}
	if err := w.readReserved(ctx, reader, reserved); err != nil {
		return nil, err
	}
	w.dropRemoved()
	return w, w.readEndpoints(ctx, reader)
}

// dropRemoved takes out the pools that are marked for removal and have no
// directors any more: nobody sends anything for their VIPs. A mark that an earlier
// installation left says nothing of a pool that has directors.
func (w *world) dropRemoved() {
	for name, pool := range w.pools {
		if pool.Annotations[v1alpha1.AnnotationRemoval] != "" && w.directors[name] == nil {
			delete(w.pools, name)
		}
	}
}

func list(ctx context.Context, reader client.Reader, into client.ObjectList, options ...client.ListOption) error {
	return reader.List(ctx, into, append(options, client.UnsafeDisableDeepCopy)...)
}

// readRules reads who may have which addresses.
func (w *world) readRules(ctx context.Context, reader client.Reader) error {
	var pools v1alpha1.DirectorPoolList
	if err := list(ctx, reader, &pools); err != nil {
		return fmt.Errorf("listing DirectorPools: %w", err)
	}
	w.pools = make(map[string]*v1alpha1.DirectorPool, len(pools.Items))
	for i := range pools.Items {
		w.pools[pools.Items[i].Name] = &pools.Items[i]
	}
	var namespaces corev1.NamespaceList
	if err := list(ctx, reader, &namespaces); err != nil {
		return fmt.Errorf("listing namespaces: %w", err)
	}
	w.namespaces = make(map[string]map[string]string, len(namespaces.Items))
	for _, namespace := range namespaces.Items {
		w.namespaces[namespace.Name] = namespace.Labels
	}
	return nil
}

// readReserved reads which addresses no VIP may be.
func (w *world) readReserved(ctx context.Context, reader client.Reader, more map[netip.Addr]string) error {
	var nodes corev1.NodeList
	if err := list(ctx, reader, &nodes); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	w.reserved = make(map[netip.Addr]string, len(more)+len(nodes.Items))
	for addr, what := range more {
		w.reserved[addr] = what
	}
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			if addr, err := netip.ParseAddr(address.Address); err == nil {
				w.reserved[addr.Unmap()] = "an address of node " + node.Name
			}
		}
	}
	var directors v1alpha1.DirectorList
	if err := list(ctx, reader, &directors); err != nil {
		return fmt.Errorf("listing directors: %w", err)
	}
	w.directors = map[string]map[netip.Addr]string{}
	for _, director := range directors.Items {
		pool := director.Spec.DirectorPoolName
		if w.directors[pool] == nil {
			w.directors[pool] = map[netip.Addr]string{}
		}
		for _, addr := range virtualserver.DirectorAddresses(&director) {
			w.directors[pool][addr] = director.Name
		}
	}
	return nil
}

// readEndpoints reads the endpoints of Services that pods of the node may be
// behind.
func (w *world) readEndpoints(ctx context.Context, reader client.Reader) error {
	own := map[types.UID]struct{}{}
	for _, pod := range w.planned {
		own[pod.UID] = struct{}{}
	}
	w.endpoints = map[types.NamespacedName][]plan.Endpoint{}
	for service := range w.services() {
		var slices discoveryv1.EndpointSliceList
		if err := list(ctx, reader, &slices, client.InNamespace(service.Namespace),
			client.MatchingLabels{discoveryv1.LabelServiceName: service.Name}); err != nil {
			return fmt.Errorf("listing the EndpointSlices of Service %s: %w", service, err)
		}
		for i := range slices.Items {
			for _, endpoint := range virtualserver.PlanEndpoints(&slices.Items[i]) {
				if _, mine := own[endpoint.Pod]; mine {
					w.endpoints[service] = append(w.endpoints[service], endpoint)
				}
			}
		}
	}
	return nil
}

// services are those that VirtualServers name in namespaces with pods of the
// node.
func (w *world) services() map[types.NamespacedName]struct{} {
	populated := w.populated()
	named := map[types.NamespacedName]struct{}{}
	for i := range w.servers {
		if _, ok := populated[w.servers[i].Namespace]; ok && w.servers[i].Spec.ServiceName != "" {
			named[types.NamespacedName{Namespace: w.servers[i].Namespace, Name: w.servers[i].Spec.ServiceName}] = struct{}{}
		}
	}
	return named
}

// populated are the namespaces that have pods on the node.
func (w *world) populated() map[string]struct{} {
	namespaces := map[string]struct{}{}
	for _, pod := range w.planned {
		namespaces[pod.Name.Namespace] = struct{}{}
	}
	return namespaces
}
