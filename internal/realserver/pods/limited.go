package pods

import (
	"context"
	"net/netip"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

// limited is a host that waits for a slot before each work: code that enters a
// namespace takes a thread, and a node has hundreds of pods.
type limited struct {
	Host
	slots chan struct{}
}

func (l limited) with(ctx context.Context, work func() error) error {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.slots }()
	return work()
}

// Observe waits for a slot.
func (l limited) Observe(ctx context.Context) (state kernel.RealServerState, err error) {
	err = l.with(ctx, func() error {
		state, err = l.Host.Observe(ctx)
		return err
	})
	return state, err
}

// Configure waits for a slot.
func (l limited) Configure(ctx context.Context, settings []kernel.Setting) error {
	return l.with(ctx, func() error { return l.Host.Configure(ctx, settings) })
}

// Prepare waits for a slot.
func (l limited) Prepare(ctx context.Context, vips []netip.Addr) error {
	return l.with(ctx, func() error { return l.Host.Prepare(ctx, vips) })
}

// Restore waits for a slot.
func (l limited) Restore(ctx context.Context) error {
	return l.with(ctx, func() error { return l.Host.Restore(ctx) })
}
