package director

import (
	"slices"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
)

// linksIn returns, in order, the interfaces by which an earlier process reached
// real servers of the pool, besides the announcement interface.
func linksIn(c *checkpoint.Checkpoint, pool string) []string {
	if c == nil || c.Pool != pool {
		return nil
	}
	var links []string
	for _, key := range c.Keys {
		links = append(links, key.Links...)
	}
	slices.Sort(links)
	return slices.Compact(links)
}

// links returns, in order, the interfaces other than the announcement interface
// by which the node gets to real servers: those of all plans. Until all plans are
// known, and while a server is on its way out, or a whole VIP, those of before
// count too.
func (d *Director) links(pool string, before []string) []string {
	d.mu.Lock()
	confirmed := d.confirmed && d.synced == pool
	d.mu.Unlock()
	all := d.worker.Links()
	if !confirmed || d.worker.leaves() {
		all = append(all, before...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// leaves says whether a server, or a whole VIP, is on its way out.
func (w *Worker) leaves() bool {
	return len(w.keys(func(e *entry) bool { return e.phase == leaving || len(e.memory.Draining) > 0 })) > 0
}

// relink has the session look again at the links by which real servers are
// reached.
func (d *Director) relink() {
	if s := d.present(); s != nil {
		s.relink()
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

// relink asks for a look at the links by which real servers are reached.
func (s *session) relink() {
	select {
	case s.relinked <- struct{}{}:
	default:
	}
}
