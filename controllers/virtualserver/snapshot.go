// Package virtualserver turns VirtualServers into the plans of a director, and
// what became of them into their status.
package virtualserver

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// AddressIndex is the field index of VirtualServers by the addresses that they
// name.
const AddressIndex = "spec.addresses"

// The other field indexes of VirtualServers: by the Service that they name, and of
// those that select pods.
const (
	serviceIndex  = "spec.serviceName"
	selectorIndex = "spec.podSelector"
	hasSelector   = "set"
)

// Site is what a plan needs to know of the node that it is for.
type Site struct {
	// Node is the node's name, Pool the DirectorPool that its director is in;
	// empty while it is in none.
	Node, Pool string
	// Interface is the announcement interface, Source the node's IPv4 address
	// on it.
	Interface string
	Source    netip.Addr
	// Reserved are addresses that no VIP may be, and what they are: the node's
	// own, its gateways and the API server's.
	Reserved map[netip.Addr]string
	// Reach tells how the node gets to an address; false says that this is not
	// known. Nil knows nothing.
	Reach func(netip.Addr) (plan.Reach, bool)
}

// virtualServerIndexes returns the field indexes that planning needs.
func virtualServerIndexes() map[string]client.IndexerFunc {
	return map[string]client.IndexerFunc{
		AddressIndex: indexAddresses,
		serviceIndex: func(object client.Object) []string {
			if vs, ok := object.(*v1alpha1.VirtualServer); ok && vs.Spec.ServiceName != "" {
				return []string{vs.Spec.ServiceName}
			}
			return nil
		},
		selectorIndex: func(object client.Object) []string {
			if vs, ok := object.(*v1alpha1.VirtualServer); ok && vs.Spec.PodSelector != nil {
				return []string{hasSelector}
			}
			return nil
		},
	}
}

// indexAddresses returns the index values of a VirtualServer.
func indexAddresses(object client.Object) []string {
	vs, ok := object.(*v1alpha1.VirtualServer)
	if !ok {
		return nil
	}
	addresses := make([]string, len(vs.Spec.Addresses))
	for i, address := range vs.Spec.Addresses {
		addresses[i] = string(address)
	}
	return addresses
}

// component lists, from the cache, the VirtualServers of the pool that share
// the key's address, those that share one with them, and so on.
func component(ctx context.Context, reader client.Reader, pool string, key netstate.Key) ([]v1alpha1.VirtualServer, error) {
	var failed error
	found := plan.Component(key, func(addr netip.Addr) []v1alpha1.VirtualServer {
		var list v1alpha1.VirtualServerList
		if err := reader.List(ctx, &list, client.MatchingFields{AddressIndex: addr.String()}); err != nil {
			failed = err
			return nil
		}
		of := list.Items[:0]
		for _, vs := range list.Items {
			if vs.Spec.DirectorPoolName == pool {
				of = append(of, vs)
			}
		}
		return of
	})
	if failed != nil {
		return nil, fmt.Errorf("listing the VirtualServers that name %s: %w", key, failed)
	}
	return found, nil
}

// snapshot reads all that the plan of a key depends on. Lacking are the kinds that
// it depends on too and that are not there yet: without them nothing can be
// planned, unless there is no DirectorPool, which nothing can be planned without
// either.
func snapshot(
	ctx context.Context, reader client.Reader, workloads *Workloads, site Site, poolName string, key netstate.Key,
) (s plan.Snapshot, lacking kinds, err error) {
	servers, err := component(ctx, reader, poolName, key)
	if err != nil {
		return plan.Snapshot{}, 0, err
	}
	s = plan.Snapshot{
		Key:            key,
		VirtualServers: servers,
		Interface:      site.Interface,
		Source:         site.Source,
		Reach:          site.Reach,
	}
	pool := &v1alpha1.DirectorPool{}
	err = reader.Get(ctx, types.NamespacedName{Name: poolName}, pool)
	switch {
	case err == nil:
		s.Pool = pool
	case client.IgnoreNotFound(err) != nil:
		return plan.Snapshot{}, 0, fmt.Errorf("reading DirectorPool %s: %w", poolName, err)
	}
	if s.NamespaceLabels, err = namespaceLabels(ctx, reader, servers); err != nil {
		return plan.Snapshot{}, 0, err
	}
	if s.Reserved, s.NodeStates, err = fromNodes(ctx, reader, site); err != nil {
		return plan.Snapshot{}, 0, err
	}
	if s.Directors, s.Starting, err = directorsOf(ctx, reader, poolName); err != nil {
		return plan.Snapshot{}, 0, err
	}
	needed := needs(servers)
	if needed == 0 || s.Pool == nil {
		return s, 0, nil
	}
	if lacking = workloads.lacking(needed); lacking != 0 {
		return s, lacking, nil
	}
	return s, 0, workloads.gather(ctx, &s)
}

func namespaceLabels(ctx context.Context, reader client.Reader, servers []v1alpha1.VirtualServer) (map[string]map[string]string, error) {
	labels := map[string]map[string]string{}
	for _, vs := range servers {
		if _, known := labels[vs.Namespace]; known {
			continue
		}
		var namespace corev1.Namespace
		err := reader.Get(ctx, types.NamespacedName{Name: vs.Namespace}, &namespace)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading namespace %s: %w", vs.Namespace, err)
		}
		labels[vs.Namespace] = namespace.Labels
	}
	return labels, nil
}

// fromNodes returns the site's reserved addresses and those of every node, and
// the states that nodes put their pods into.
func fromNodes(ctx context.Context, reader client.Reader, site Site) (all map[netip.Addr]string, states map[string]string, err error) {
	var nodes corev1.NodeList
	if err := reader.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("listing nodes: %w", err)
	}
	all, states = make(map[netip.Addr]string, len(site.Reserved)+len(nodes.Items)), map[string]string{}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if state, set := node.Annotations[v1alpha1.AnnotationState]; set {
			states[node.Name] = state
		}
		for _, address := range node.Status.Addresses {
			if addr, err := netip.ParseAddr(address.Address); err == nil {
				all[addr.Unmap()] = "an address of node " + node.Name
			}
		}
	}
	for addr, what := range site.Reserved {
		if _, known := all[addr]; !known {
			all[addr] = what
		}
	}
	return all, states, nil
}
