package virtualserver

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// needs returns the kinds that real servers of the VirtualServers are found by.
func needs(servers []v1alpha1.VirtualServer) kinds {
	var needed kinds
	for i := range servers {
		if servers[i].Spec.PodSelector != nil {
			needed |= pods | realServerNodes
		}
		if servers[i].Spec.ServiceName != "" {
			needed |= pods | realServerNodes | endpointSlices
		}
	}
	return needed
}

// gathering collects what the real servers of one snapshot are found by.
type gathering struct {
	reader    client.Reader
	pods      map[types.UID]plan.Pod
	endpoints map[types.NamespacedName][]plan.Endpoint
}

// gather adds to a snapshot the pods and endpoints of its VirtualServers. All
// kinds that they need must be there.
func (w *Workloads) gather(ctx context.Context, s *plan.Snapshot) error {
	g := gathering{reader: w.reader, pods: map[types.UID]plan.Pod{}, endpoints: map[types.NamespacedName][]plan.Endpoint{}}
	for i := range s.VirtualServers {
		vs := &s.VirtualServers[i]
		if err := g.selected(ctx, vs); err != nil {
			return err
		}
		if err := g.ofService(ctx, vs); err != nil {
			return err
		}
	}
	for _, pod := range g.pods {
		s.Pods = append(s.Pods, pod)
	}
	slices.SortFunc(s.Pods, func(a, b plan.Pod) int {
		return cmp.Or(cmp.Compare(a.Name.String(), b.Name.String()), cmp.Compare(a.UID, b.UID))
	})
	s.Endpoints = g.endpoints
	var err error
	s.Prepared, err = g.prepared(ctx, s.Pods)
	return err
}

// selected adds the pods that a VirtualServer selects.
func (g *gathering) selected(ctx context.Context, vs *v1alpha1.VirtualServer) error {
	if vs.Spec.PodSelector == nil {
		return nil
	}
	var list corev1.PodList
	if err := g.reader.List(ctx, &list, client.InNamespace(vs.Namespace), client.MatchingLabelsSelector{Selector: selectorOf(vs)}); err != nil {
		return fmt.Errorf("listing the pods that VirtualServer %s/%s selects: %w", vs.Namespace, vs.Name, err)
	}
	for i := range list.Items {
		g.pods[list.Items[i].UID] = PlanPod(&list.Items[i])
	}
	return nil
}

// selectorOf returns what a VirtualServer's podSelector matches: nothing if there
// is none, or if it cannot be understood, which the plan refuses.
func selectorOf(vs *v1alpha1.VirtualServer) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(vs.Spec.PodSelector)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

// ofService adds the endpoints of the Service that a VirtualServer names, and the
// pods that they say they are.
func (g *gathering) ofService(ctx context.Context, vs *v1alpha1.VirtualServer) error {
	service := types.NamespacedName{Namespace: vs.Namespace, Name: vs.Spec.ServiceName}
	if _, known := g.endpoints[service]; known || service.Name == "" {
		return nil
	}
	var list discoveryv1.EndpointSliceList
	if err := g.reader.List(ctx, &list, client.InNamespace(vs.Namespace), client.MatchingFields{sliceServiceIndex: service.Name}); err != nil {
		return fmt.Errorf("listing the EndpointSlices of Service %s: %w", service, err)
	}
	slices.SortFunc(list.Items, func(a, b discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	g.endpoints[service] = nil
	for i := range list.Items {
		g.endpoints[service] = append(g.endpoints[service], PlanEndpoints(&list.Items[i])...)
		if err := g.named(ctx, &list.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// named adds the pods that a slice's endpoints say they are.
func (g *gathering) named(ctx context.Context, slice *discoveryv1.EndpointSlice) error {
	for _, endpoint := range slice.Endpoints {
		ref := podOf(endpoint)
		if _, known := g.pods[ref.UID]; known || ref.Name == "" {
			continue
		}
		var pod corev1.Pod
		err := g.reader.Get(ctx, types.NamespacedName{Namespace: slice.Namespace, Name: ref.Name}, &pod)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading pod %s/%s: %w", slice.Namespace, ref.Name, err)
		}
		// It may be one of the same name that came later; the plan looks at the UID.
		g.pods[pod.UID] = PlanPod(&pod)
	}
	return nil
}

// prepared returns what the agents say of pods of their own nodes. No agent is
// believed about others'.
func (g *gathering) prepared(ctx context.Context, of []plan.Pod) (map[types.UID]plan.Preparation, error) {
	byNode := map[string]map[types.UID]plan.Preparation{}
	all := map[types.UID]plan.Preparation{}
	for _, pod := range of {
		if pod.Node == "" {
			continue
		}
		if _, known := byNode[pod.Node]; !known {
			var node v1alpha1.RealServerNode
			if err := g.reader.Get(ctx, types.NamespacedName{Name: pod.Node}, &node); client.IgnoreNotFound(err) != nil {
				return nil, fmt.Errorf("reading RealServerNode %s: %w", pod.Node, err)
			}
			byNode[pod.Node] = preparations(&node)
		}
		if p, listed := byNode[pod.Node][pod.UID]; listed {
			all[pod.UID] = p
		}
	}
	return all, nil
}

// PlanPod returns what plans depend on of a pod.
func PlanPod(pod *corev1.Pod) plan.Pod {
	p := plan.Pod{
		Name: client.ObjectKeyFromObject(pod), UID: pod.UID, Node: pod.Spec.NodeName, Labels: pod.Labels,
		HostNetwork: pod.Spec.HostNetwork,
		Terminating: pod.DeletionTimestamp != nil,
		Finished:    pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
	}
	for name, value := range pod.Annotations {
		if strings.HasPrefix(name, ownAnnotations) {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[name] = value
		}
	}
	for _, ip := range pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			p.Addresses = append(p.Addresses, addr.Unmap())
		}
	}
	for _, condition := range pod.Status.Conditions {
		p.Ready = p.Ready || condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
	}
	return p
}

// PlanEndpoints returns the endpoints of a slice, one for each: further addresses of
// an endpoint have no meaning that is defined (discovery.k8s.io/v1).
func PlanEndpoints(slice *discoveryv1.EndpointSlice) []plan.Endpoint {
	ports := planPorts(slice.Ports)
	var all []plan.Endpoint
	for _, endpoint := range slice.Endpoints {
		if len(endpoint.Addresses) == 0 {
			continue
		}
		addr, err := netip.ParseAddr(endpoint.Addresses[0])
		if err != nil { // a name, in a slice of address type FQDN
			continue
		}
		conditions := endpoint.Conditions
		ready := conditions.Ready == nil || *conditions.Ready
		e := plan.Endpoint{Addr: addr.Unmap(), Ports: ports, Ready: ready, Serving: ready, Pod: podOf(endpoint).UID}
		if conditions.Serving != nil {
			e.Serving = *conditions.Serving
		}
		e.Terminating = conditions.Terminating != nil && *conditions.Terminating
		all = append(all, e)
	}
	return all
}

func planPorts(ports []discoveryv1.EndpointPort) []plan.EndpointPort {
	var all []plan.EndpointPort
	for _, port := range ports {
		p := plan.EndpointPort{Protocol: netstate.TCP}
		if port.Protocol != nil {
			switch *port.Protocol {
			case corev1.ProtocolTCP:
			case corev1.ProtocolUDP:
				p.Protocol = netstate.UDP
			case corev1.ProtocolSCTP:
				p.Protocol = netstate.SCTP
			default:
				continue
			}
		}
		if port.Name != nil {
			p.Name = *port.Name
		}
		if port.Port != nil {
			p.Number = uint16(*port.Port)
		}
		all = append(all, p)
	}
	return all
}

// preparations returns what a node's agent says of each pod.
func preparations(node *v1alpha1.RealServerNode) map[types.UID]plan.Preparation {
	all := make(map[types.UID]plan.Preparation, len(node.Status.Pods))
	for _, pod := range node.Status.Pods {
		all[types.UID(pod.UID)] = plan.Preparation{PodAddresses: parsed(pod.PodAddresses), VIPs: parsed(pod.Addresses)}
	}
	return all
}

// parsed returns the texts that are addresses.
func parsed(texts []string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}
