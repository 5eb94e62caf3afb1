package scenarios

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// workload is what real servers are found by.
type workload struct {
	pods       []plan.Pod
	endpoints  map[types.NamespacedName][]plan.Endpoint
	nodeStates map[string]string
	prepared   map[types.UID]plan.Preparation
}

func newWorkload() workload {
	return workload{
		endpoints:  map[types.NamespacedName][]plan.Endpoint{},
		nodeStates: map[string]string{},
		prepared:   map[types.UID]plan.Preparation{},
	}
}

func (w *workload) addTo(s *plan.Snapshot) {
	s.Pods, s.Endpoints, s.NodeStates, s.Prepared = w.pods, w.endpoints, w.nodeStates, w.prepared
}

// readObject takes up an object of one of the kinds that real servers are found
// by, and says whether it is one.
func (w *workload) readObject(t *testing.T, kind, document string) bool {
	t.Helper()
	switch kind {
	case "Pod":
		var pod corev1.Pod
		decode(t, document, &pod)
		w.pods = append(w.pods, podOf(&pod))
	case "EndpointSlice":
		var slice discoveryv1.EndpointSlice
		decode(t, document, &slice)
		service := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
		w.endpoints[service] = append(w.endpoints[service], endpointsOf(&slice)...)
	case "Node":
		var node metav1.PartialObjectMetadata
		decode(t, document, &node)
		if state, ok := node.Annotations[v1alpha1.AnnotationState]; ok {
			w.nodeStates[node.Name] = state
		}
	case "RealServerNode":
		var node v1alpha1.RealServerNode
		decode(t, document, &node)
		for _, pod := range node.Status.Pods {
			w.prepared[types.UID(pod.UID)] = plan.Preparation{PodAddresses: addresses(pod.PodAddresses), VIPs: addresses(pod.Addresses)}
		}
	default:
		return false
	}
	return true
}

// podOf returns the pod, whose UID is its name if it says none.
func podOf(pod *corev1.Pod) plan.Pod {
	p := plan.Pod{
		Name:        types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name},
		UID:         cmp.Or(pod.UID, types.UID(pod.Name)),
		Node:        pod.Spec.NodeName,
		Labels:      pod.Labels,
		Annotations: pod.Annotations,
		HostNetwork: pod.Spec.HostNetwork,
		Terminating: pod.DeletionTimestamp != nil,
		Finished:    pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
	}
	for _, ip := range pod.Status.PodIPs {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(ip.IP))
	}
	for _, condition := range pod.Status.Conditions {
		p.Ready = p.Ready || condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
	}
	return p
}

func endpointsOf(slice *discoveryv1.EndpointSlice) []plan.Endpoint {
	isTrue := func(condition *bool, otherwise bool) bool {
		if condition == nil {
			return otherwise
		}
		return *condition
	}
	var ports []plan.EndpointPort
	for _, p := range slice.Ports {
		of := plan.EndpointPort{Protocol: netstate.TCP}
		if p.Protocol != nil {
			of.Protocol = map[corev1.Protocol]netstate.Protocol{
				corev1.ProtocolTCP: netstate.TCP, corev1.ProtocolUDP: netstate.UDP, corev1.ProtocolSCTP: netstate.SCTP,
			}[*p.Protocol]
		}
		if p.Name != nil {
			of.Name = *p.Name
		}
		if p.Port != nil {
			of.Number = uint16(*p.Port)
		}
		ports = append(ports, of)
	}
	var all []plan.Endpoint
	for _, e := range slice.Endpoints {
		ready := isTrue(e.Conditions.Ready, true)
		of := plan.Endpoint{
			Addr: netip.MustParseAddr(e.Addresses[0]), Ports: ports,
			Ready: ready, Serving: isTrue(e.Conditions.Serving, ready), Terminating: isTrue(e.Conditions.Terminating, false),
		}
		if e.TargetRef != nil {
			of.Pod = cmp.Or(e.TargetRef.UID, types.UID(e.TargetRef.Name))
		}
		all = append(all, of)
	}
	return all
}

func addresses(texts []string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// reach looks an address up in the site's gateways.
func (s *site) reach(addr netip.Addr) (plan.Reach, bool) {
	for network, gateway := range s.Gateways {
		if netip.MustParsePrefix(network).Contains(addr) {
			return plan.Reach{Link: "eth0", Gateway: netip.MustParseAddr(gateway)}, true
		}
	}
	return plan.Reach{Link: "eth0"}, true
}

// tell adds a line for each real server of which there is something to tell.
func tell(lines map[string]struct{}, desired plan.Desired) {
	for key, server := range desired.Servers {
		parts := []string{server.Why, desired.Unready[key]}
		if server.Reason != "" {
			parts = append(parts, server.Reason+": "+server.Message)
		}
		var told []string
		for _, part := range parts {
			if part != "" {
				told = append(told, part)
			}
		}
		if len(told) == 0 {
			continue
		}
		pod := ""
		if server.Pod != "" {
			pod = " (pod " + server.Pod + ")"
		}
		lines[fmt.Sprintf("%s%s: %s", key, pod, strings.Join(told, "; "))] = struct{}{}
	}
	for key, policy := range desired.Policies {
		if policy.SorryProblem != "" {
			lines[fmt.Sprintf("%s: no sorry server, %s", key, policy.SorryProblem)] = struct{}{}
		}
	}
}
