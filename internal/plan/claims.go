package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// refusal is a Rejection before it is known of whom.
type refusal struct {
	reason, message string
}

func refuse(reason, format string, args ...any) *refusal {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// court judges VirtualServers, which must be brought before it oldest first:
// what it accepts is a claim against all that come later. What it refuses
// claims nothing.
type court struct {
	snapshot      *Snapshot
	allowed       map[string]allowance
	directorNodes map[string]struct{}
	// owners are the oldest accepted claims of each VIP, services those of
	// each service.
	owners   map[netip.Addr]*claim
	services map[netstate.ServiceKey]*claim
}

func newCourt(s *Snapshot) *court {
	c := &court{
		snapshot:      s,
		allowed:       map[string]allowance{},
		directorNodes: map[string]struct{}{},
		owners:        map[netip.Addr]*claim{},
		services:      map[netstate.ServiceKey]*claim{},
	}
	for _, director := range s.Directors {
		c.directorNodes[director] = struct{}{}
	}
	return c
}

// judge accepts the VirtualServer and enters its claims, or says why not.
func (c *court) judge(vs *v1alpha1.VirtualServer) (*claim, *refusal) {
	if c.snapshot.Pool == nil {
		return nil, refuse(v1alpha1.ReasonNoDirectorPool, "there is no DirectorPool %q",
			cmp.Or(vs.Spec.DirectorPoolName, "default"))
	}
	claim, err := parse(vs)
	if err != nil {
		return nil, refuse(v1alpha1.ReasonInvalid, "%v", err)
	}
	allowed := c.allowance(vs.Namespace)
	for _, addr := range claim.addresses {
		if r := c.judgeAddress(addr, vs.Namespace, allowed); r != nil {
			return nil, r
		}
	}
	for _, server := range claim.realServers {
		if r := c.judgeRealServer("real server", server.addr, &claim); r != nil {
			return nil, r
		}
	}
	if claim.policy.sorry.IsValid() {
		if r := c.judgeRealServer("sorry server", claim.policy.sorry, &claim); r != nil {
			return nil, r
		}
	}
	if r := c.judgeClaims(&claim); r != nil {
		return nil, r
	}
	c.enter(&claim)
	return &claim, nil
}

// judgeAddress says why the namespace may not have the VIP, if so. What an
// address is in truth is told only to those who may have it.
func (c *court) judgeAddress(addr netip.Addr, namespace string, allowed allowance) *refusal {
	if !allowed.addresses.Contains(addr) {
		return refuse(v1alpha1.ReasonAddressNotAllowed, "DirectorPool %q does not allow %s to namespace %s",
			c.snapshot.Pool.Name, addr, namespace)
	}
	if what, reserved := c.snapshot.Reserved[addr]; reserved {
		return refuse(v1alpha1.ReasonAddressReserved, "%s is %s", addr, what)
	}
	if what, reserved := c.snapshot.Directors[addr]; reserved {
		return refuse(v1alpha1.ReasonAddressReserved, "%s is the address of director %s", addr, what)
	}
	return nil
}

// judgeRealServer says why the claim may not send to an address that a user
// gave, if so: what says as what. Real servers are judged whatever their state:
// to enable one must not be what gets a VirtualServer refused.
func (c *court) judgeRealServer(what string, addr netip.Addr, of *claim) *refusal {
	if !isUnicast(addr) {
		return refuse(v1alpha1.ReasonRealServerNotAllowed, "%s %s is no ordinary unicast address", what, addr)
	}
	if !c.allowance(of.name.Namespace).realServers.Contains(addr) {
		return refuse(v1alpha1.ReasonRealServerNotAllowed, "DirectorPool %q does not allow %s %s to namespace %s",
			c.snapshot.Pool.Name, what, addr, of.name.Namespace)
	}
	if director, found := c.snapshot.Directors[addr]; found {
		if r := c.judgeDirector(director, fmt.Sprintf("%s %s is", what, addr)); r != nil {
			return r
		}
	}
	if owner := c.ownerOf(addr, of); owner != "" {
		return refuse(v1alpha1.ReasonRealServerNotAllowed, "%s %s is a VIP of %s", what, addr, owner)
	}
	return nil
}

// judgePod says why the claim may not send to an address of a pod of its own
// namespace, if so. Such pods need nobody's leave: they are the namespace's own.
func (c *court) judgePod(addr netip.Addr, pod *Pod, of *claim) *refusal {
	if !isUnicast(addr) {
		return refuse(v1alpha1.ReasonPodNotUsable, "its address %s is no ordinary unicast address", addr)
	}
	if director := c.directorOf(addr, pod); director != "" {
		if r := c.judgeDirector(director, fmt.Sprintf("pod %s has the addresses of", pod.Name.Name)); r != nil {
			return r
		}
		if _, known := c.snapshot.Directors[addr]; !known {
			return refuse(v1alpha1.ReasonRealServerIsDirector,
				"pod %s is in the network of director %s, and %s is not its address on the announcement interface", pod.Name.Name, director, addr)
		}
	}
	if owner := c.ownerOf(addr, of); owner != "" {
		return refuse(v1alpha1.ReasonPodNotUsable, "its address %s is a VIP of %s", addr, owner)
	}
	return nil
}

// directorOf returns which director's network the pod is in, or "". A director
// has more addresses than the one that it tells of, and is named as its node.
func (c *court) directorOf(addr netip.Addr, pod *Pod) string {
	if director, found := c.snapshot.Directors[addr]; found {
		return director
	}
	if _, found := c.directorNodes[pod.Node]; found && pod.HostNetwork {
		return pod.Node
	}
	return ""
}

// ownerOf returns, in words, whose VIP the address is, as far as the claim has to
// mind: its own or that of an older one; "" if it is none.
func (c *court) ownerOf(addr netip.Addr, of *claim) string {
	if slices.Contains(of.addresses, addr) {
		return "this VirtualServer"
	}
	if owner, found := c.owners[addr]; found {
		return owner.name.String()
	}
	return ""
}

// isUnicast says whether the address can be that of a real server.
func isUnicast(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.Is4In6() && addr.Zone() == ""
}

// judgeClaims says which older claim stands in the way, if one does.
func (c *court) judgeClaims(of *claim) *refusal {
	for _, addr := range of.addresses {
		owner, taken := c.owners[addr]
		if taken && owner.name.Namespace != of.name.Namespace {
			return refuse(v1alpha1.ReasonAddressInUse, "%s belongs to namespace %s, by %s, which comes first",
				addr, owner.name.Namespace, owner.name)
		}
	}
	for _, key := range of.services() {
		if other, taken := c.services[key]; taken {
			return refuse(v1alpha1.ReasonConflict, "%s is served by %s, which comes first", describe(key), other.name)
		}
	}
	return nil
}

func (c *court) enter(of *claim) {
	for _, addr := range of.addresses {
		if _, taken := c.owners[addr]; !taken {
			c.owners[addr] = of
		}
	}
	for _, key := range of.services() {
		c.services[key] = of
	}
}

// services lists what the claim serves, in order.
func (c *claim) services() []netstate.ServiceKey {
	keys := make([]netstate.ServiceKey, 0, len(c.addresses)*len(c.ports))
	for _, addr := range c.addresses {
		for _, p := range c.ports {
			keys = append(keys, netstate.ServiceKey{Key: netstate.Key{Addr: addr}, Protocol: p.protocol, Port: p.number})
		}
	}
	return keys
}

// describe returns a service as people write it: 192.168.11.200:80/TCP.
func describe(key netstate.ServiceKey) string {
	return netip.AddrPortFrom(key.Key.Addr, key.Port).String() + "/" + key.Protocol.String()
}

// allowance is what a DirectorPool allows to one namespace.
type allowance struct {
	addresses, realServers Ranges
}

// allowance returns what the pool allows to the namespace: what any of its
// entries that select the namespace allows. Entries add up, as roles do; a VIP
// and its real servers need not come from the same one.
func (c *court) allowance(namespace string) allowance {
	if known, ok := c.allowed[namespace]; ok {
		return known
	}
	var sum allowance
	for i := range c.snapshot.Pool.Spec.Allow {
		rule := &c.snapshot.Pool.Spec.Allow[i]
		if !c.selects(&rule.NamespaceSelector, namespace) {
			continue
		}
		sum.addresses = append(sum.addresses, parseRanges(rule.Addresses)...)
		sum.realServers = append(sum.realServers, parseRanges(rule.RealServers)...)
	}
	c.allowed[namespace] = sum
	return sum
}

// selects says whether the selector selects the namespace. A namespace whose
// labels are not known is selected only by one that selects all: otherwise
// "has no such label" would be true of it out of ignorance.
func (c *court) selects(selector *metav1.LabelSelector, namespace string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false
	}
	known, ok := c.snapshot.NamespaceLabels[namespace]
	return parsed.Empty() || ok && parsed.Matches(labels.Set(known))
}

// oldestFirst returns the VirtualServers in the order in which their claims
// count: by age, then by namespace and name, as the API server's clock has a
// resolution of a second. Those that are being deleted have no claims any
// more.
func oldestFirst(all []v1alpha1.VirtualServer) []*v1alpha1.VirtualServer {
	ordered := make([]*v1alpha1.VirtualServer, 0, len(all))
	for i := range all {
		if all[i].DeletionTimestamp == nil {
			ordered = append(ordered, &all[i])
		}
	}
	slices.SortStableFunc(ordered, func(a, b *v1alpha1.VirtualServer) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return ordered
}
