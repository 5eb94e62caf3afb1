package director

import (
	"slices"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// linksIn returns the interfaces that an earlier process had prepared for the
// pool, besides the announcement interface.
func linksIn(c *checkpoint.Checkpoint, pool string) []string {
	if c == nil || c.Pool != pool {
		return nil
	}
	return c.Node.Links
}

// links returns, in order, the interfaces other than the announcement interface
// by which the node gets to real servers: those of all plans. Until all plans are
// known, and while a server is on its way out, or a whole VIP, those of before
// count too.
func (d *Director) links(pool string, before []string) []string {
	d.mu.Lock()
	confirmed := d.confirmed && d.synced == pool
	d.mu.Unlock()
	var all []string
	for _, desired := range d.worker.Plans() {
		all = append(all, desired.Links...)
	}
	if !confirmed || d.worker.leaves() {
		all = append(all, before...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// leaves says whether a server, or a whole VIP, is on its way out.
func (w *Worker) leaves() bool {
	return len(w.keys(func(e *entry) bool { return e.phase == leaving || len(e.draining) > 0 })) > 0
}

// wantsLinks has the node prepared at once for a plan that comes by another
// interface than those before.
func (s *session) wantsLinks(desired plan.Desired) {
	s.mu.Lock()
	missing := slices.ContainsFunc(desired.Links, func(link string) bool { return !slices.Contains(s.links, link) })
	s.mu.Unlock()
	if !missing {
		return
	}
	select {
	case s.relink <- struct{}{}:
	default:
	}
}

// prepared returns the interfaces that the node was last prepared with, besides the
// announcement interface. A session that is nil has prepared nothing.
func (s *session) prepared() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links
}
