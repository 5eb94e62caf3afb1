package director

import (
	"context"
	"fmt"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Join makes the director serve the pool, with these settings from now on.
func (d *Director) Join(pool Pool) {
	d.mu.Lock()
	same := d.pool != nil && d.pool.equal(pool)
	if d.pool != nil && d.pool.Name != pool.Name {
		d.forgetPool()
	}
	if d.pool != nil && d.restored != nil && !d.pool.is(pool) {
		// Its groups were others.
		restored := *d.restored
		restored.Groups = nil
		d.restored = &restored
	}
	d.pool, d.decided, d.marked = &pool, true, true
	d.mu.Unlock()
	if same {
		return
	}
	d.wake()
	d.store.changed()
	d.cfg.Changed(netstate.Key{})
	d.cfg.SiteChanged()
}

// forgetPool forgets all that is known of the pool. d.mu is held.
func (d *Director) forgetPool() {
	d.pool, d.synced, d.confirmed, d.restored = nil, "", false, nil
	d.peers, d.peersKnown = nil, false
}

// Leave makes the director stop announcing, give up its Leases and take away
// all that it has on the node. It serves nothing until it joins a pool again.
// After an error the node is still Marked, and Leave is to be called again. It
// waits for Run to have looked at the node.
func (d *Director) Leave(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("leaving the pool: %w", ctx.Err())
	case <-d.loaded:
	}
	d.mu.Lock()
	s, marked := d.session, d.marked
	d.forgetPool()
	d.decided = true
	d.mu.Unlock()
	d.wake()
	if s != nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("leaving pool %s: %w", s.name, ctx.Err())
		case <-s.ended:
		}
	}
	if !marked {
		return nil
	}
	return d.Cleanup(ctx)
}

// Marked says that there may be something of the operator's on the node.
func (d *Director) Marked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.marked
}

// Decided says that it is known which pool the director is in, or that it is in
// none.
func (d *Director) Decided() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.decided
}

// Cleanup takes away all that the operator owns on the node.
func (d *Director) Cleanup(ctx context.Context) error {
	d.removals.reset()
	for _, key := range d.worker.Forget() {
		d.health.SetFor(key.String(), nil)
	}
	if err := d.cfg.Kernel.Restore(ctx); err != nil {
		return fmt.Errorf("cleaning the node up: %w", err)
	}
	if err := d.store.remove(); err != nil {
		return fmt.Errorf("cleaning the node up: %w", err)
	}
	d.mu.Lock()
	d.marked = d.pool != nil
	d.mu.Unlock()
	d.cfg.Changed(netstate.Key{})
	return nil
}

func (d *Director) wake() {
	select {
	case d.rejoin <- struct{}{}:
	default:
	}
}
