package plan

import (
	"net/netip"
	"slices"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// guarded says whether the pool's directors have the guard.
func (s *Snapshot) guarded() bool {
	return s.Pool != nil && s.Pool.Spec.Guard != v1alpha1.GuardDisabled
}

// judgeDirector says why a director may not be sent to, if so: what says as what.
// Both it and whoever sends schedule new connections, and only the guard tells
// those that another director has scheduled already from those of clients.
func (c *court) judgeDirector(director, what string) *refusal {
	if c.snapshot.guarded() {
		return nil
	}
	return refuse(v1alpha1.ReasonRealServerIsDirector,
		"%s director %s of the same DirectorPool, whose directors cannot be real servers without the guard", what, director)
}

// marked says whether the services of a claim have to be marked: if a director
// may be one of its real servers. Pods in their node's network may come to any
// node, and connections end when services become marked, so with any such pod
// they are.
func (s *sources) marked(c *claim) bool {
	if !s.snapshot.guarded() {
		return false
	}
	if s.isDirector(c.policy.sorry) {
		return true
	}
	for _, server := range c.realServers {
		if s.isDirector(server.addr) {
			return true
		}
	}
	for _, pod := range s.pods.byNamespace[c.name.Namespace] {
		if c.selection.selects(pod) && s.mayBeDirector(pod) {
			return true
		}
	}
	for _, e := range s.serviceEndpoints(c) {
		pod, believed := s.pods.behind(&e, c.name.Namespace)
		if s.isDirector(e.Addr) || believed && s.mayBeDirector(pod) {
			return true
		}
	}
	return false
}

func (s *sources) mayBeDirector(pod *Pod) bool {
	return pod.HostNetwork || slices.ContainsFunc(pod.Addresses, s.isDirector)
}

func (s *sources) isDirector(addr netip.Addr) bool {
	_, found := s.snapshot.Directors[addr]
	return found
}

// local returns, in order, which of the addresses that were asked for are those of
// the director itself.
func (s *sources) local() []netip.Addr {
	var local []netip.Addr
	for addr, reach := range s.reached {
		if reach.Local && s.isDirector(addr) {
			local = append(local, addr)
		}
	}
	slices.SortFunc(local, netip.Addr.Compare)
	return local
}

// unready says why a real server that is another director gets no new connections,
// if so: until it serves it would send them back. Of its own the director need not
// be told.
func (s *sources) unready(addr netip.Addr) string {
	director := s.snapshot.Directors[addr]
	why, starting := s.snapshot.Starting[director]
	if director == "" || !starting || s.reach(addr).Local {
		return ""
	}
	return "director " + director + " is not ready: " + why
}
