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
	snapshot *Snapshot
	allowed  map[string]allowance
	// owners are the oldest accepted claims of each VIP, services those of
	// each service.
	owners   map[netip.Addr]*claim
	services map[netstate.ServiceKey]*claim
}

func newCourt(s *Snapshot) *court {
	return &court{
		snapshot: s,
		allowed:  map[string]allowance{},
		owners:   map[netip.Addr]*claim{},
		services: map[netstate.ServiceKey]*claim{},
	}
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
		if r := c.judgeRealServer(server.addr, &claim, allowed); r != nil {
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

// judgeRealServer says why the claim may not send to the address, if so. Real
// servers are judged whatever their state: to enable one must not be what gets
// a VirtualServer refused.
func (c *court) judgeRealServer(addr netip.Addr, of *claim, allowed allowance) *refusal {
	if !addr.IsGlobalUnicast() {
		return refuse(v1alpha1.ReasonRealServerNotAllowed, "real server %s is no ordinary unicast address", addr)
	}
	if !allowed.realServers.Contains(addr) {
		return refuse(v1alpha1.ReasonRealServerNotAllowed, "DirectorPool %q does not allow real server %s to namespace %s",
			c.snapshot.Pool.Name, addr, of.name.Namespace)
	}
	if director, found := c.snapshot.Directors[addr]; found {
		return refuse(v1alpha1.ReasonRealServerIsDirector, "real server %s is director %s of the same DirectorPool", addr, director)
	}
	if slices.Contains(of.addresses, addr) {
		return refuse(v1alpha1.ReasonRealServerNotAllowed, "real server %s is a VIP of this VirtualServer", addr)
	}
	if owner, found := c.owners[addr]; found {
		return refuse(v1alpha1.ReasonRealServerNotAllowed, "real server %s is a VIP of %s", addr, owner.name)
	}
	return nil
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
