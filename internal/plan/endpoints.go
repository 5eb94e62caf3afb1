package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// endpointKey tells endpoints apart. While a Service changes, one may be in two
// of its slices.
type endpointKey struct {
	addr netip.Addr
	pod  types.UID
}

// endpoint is what all entries of one say together.
type endpoint struct {
	Endpoint
	// ports are those of each entry's slice.
	ports [][]EndpointPort
}

// merged returns each endpoint once: with the ports of all its entries, as ready
// as the least ready of them and terminating if one says so.
func merged(all []Endpoint) map[endpointKey]*endpoint {
	once := make(map[endpointKey]*endpoint, len(all))
	for _, e := range all {
		key := endpointKey{e.Addr, e.Pod}
		known, again := once[key]
		if !again {
			once[key] = &endpoint{e, [][]EndpointPort{e.Ports}}
			continue
		}
		known.ports = append(known.ports, e.Ports)
		known.Ready = known.Ready && e.Ready
		known.Terminating = known.Terminating || e.Terminating
	}
	return once
}

// endpoints offers the endpoints of the Service. A pod that the podSelector
// selects too is a pod that it selects: its own word counts, and the Service's
// port does not.
func (s *sources) endpoints(c *claim, offer func(*candidate)) {
	if c.selection.service == "" {
		return
	}
	for _, e := range merged(s.serviceEndpoints(c)) {
		if !s.ofFamily(e.Addr) {
			continue
		}
		var next *candidate
		switch pod, believed := s.pods.behind(&e.Endpoint, c.name.Namespace); {
		case believed && c.selection.selects(pod):
			continue
		case believed:
			next = s.podCandidate(e.Addr, pod, c)
		default:
			next = s.bareCandidate(&e.Endpoint, c)
		}
		next.ports = e.ports
		if e.Terminating && next.leaving == "" {
			next.leaving = "the Service says that it is being deleted"
		}
		if !e.Ready {
			next.unready = "the Service says that it is not ready"
		}
		offer(next)
	}
}

// serviceEndpoints returns what the Service's slices list, if the claim names one.
func (s *sources) serviceEndpoints(c *claim) []Endpoint {
	if c.selection.service == "" {
		return nil
	}
	return s.snapshot.Endpoints[types.NamespacedName{Namespace: c.name.Namespace, Name: c.selection.service}]
}

// behind returns the pod that the endpoint says it is, if that is true. Whoever
// may write EndpointSlices could name any.
func (i *podIndex) behind(e *Endpoint, namespace string) (*Pod, bool) {
	pod, known := i.byUID[e.Pod]
	if !known || pod.Name.Namespace != namespace || !slices.Contains(pod.Addresses, e.Addr) {
		return nil, false
	}
	return pod, true
}

// bareCandidate returns an endpoint that is no pod as a real server. It is judged
// as those that are written down are, but only it is left out: a Service's
// endpoints must not be able to take a VirtualServer down.
//
// One that says it is a pod and is not found to be one is left out whatever the
// DirectorPool allows. It need not be a lie: the pod may be gone already, or not
// be heard of yet, and then it is not known to have the VIP.
func (s *sources) bareCandidate(e *Endpoint, c *claim) *candidate {
	next := &candidate{addr: e.Addr, source: bare, uid: e.Pod, weight: defaultWeight, standing: newStanding(), unready: s.unready(e.Addr)}
	c.drained.apply(e.Addr, &next.standing)
	switch {
	case e.Pod != "":
		next.left = refuse(v1alpha1.ReasonPodNotUsable, "the Service says that it is a pod, and no such pod runs in the namespace with the address %s", e.Addr)
	case e.Addr == c.policy.sorry:
		next.left = refuse(v1alpha1.ReasonRealServerNotAllowed, "endpoint %s is the sorry server", e.Addr)
	default:
		next.left = s.court.judgeRealServer("endpoint", e.Addr, c)
	}
	if next.left == nil {
		next.left = s.adjacent(e.Addr)
	}
	return next
}

// listens says why the candidate does not serve the port, if so. A port of the
// same name is the one that is meant, whatever others there are.
func (c *candidate) listens(p port) *refusal {
	if c.anyPort {
		return nil
	}
	ports := c.portsOf(p, func(e EndpointPort) bool { return p.name != "" && e.Name == p.name })
	if len(ports) == 0 {
		ports = c.portsOf(p, func(EndpointPort) bool { return true })
	}
	switch {
	case slices.ContainsFunc(ports, func(e EndpointPort) bool { return e.Number == p.number || e.Number == 0 }):
		return nil
	case len(ports) == 0:
		return refuse(v1alpha1.ReasonServicePortMismatch, "the Service has no %s port, and clients connect to %s", p.protocol, p)
	default:
		return refuse(v1alpha1.ReasonServicePortMismatch, "the Service sends to port %s, and clients connect to %s, which direct routing does not change",
			describePorts(ports), p)
	}
}

// portsOf returns those of the port's protocol that match.
func (c *candidate) portsOf(p port, match func(EndpointPort) bool) []EndpointPort {
	var found []EndpointPort
	for _, of := range c.ports {
		for _, e := range of {
			if e.Protocol == p.protocol && match(e) {
				found = append(found, e)
			}
		}
	}
	return found
}

// describePorts returns ports as people write them, in order: 8080/TCP (http).
func describePorts(ports []EndpointPort) string {
	slices.SortFunc(ports, func(a, b EndpointPort) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Name, b.Name))
	})
	var texts []string
	for _, p := range slices.Compact(ports) {
		text := port{protocol: p.Protocol, number: p.Number}.String()
		if p.Name != "" {
			text += fmt.Sprintf(" (%s)", p.Name)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " or ")
}
