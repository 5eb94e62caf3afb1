package announce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// retryDelay is the time between tries to open a socket or join a group.
const retryDelay = time.Second

// forever is a wait that only an event ends.
const forever = time.Duration(-1)

// session is one run of an Announcer. Only its own goroutine uses it.
type session struct {
	a *Announcer
	// index is the interface that sockets are open on; 0 is none.
	index   int
	groups  *memberships
	readers sync.WaitGroup
	// layout is the Announcer's count that the sockets follow; retry, unless
	// zero, is when they are looked at again because something failed.
	layout  uint64
	retry   time.Time
	pacer   pacer
	errands *errands
}

func newSession(a *Announcer) *session {
	s := &session{a: a, pacer: pacer{spacing: a.cfg.Spacing}, errands: newErrands(a.cfg.Neighbors)}
	s.groups = newMemberships(func() (member, error) { return a.network.member(s.index) })
	return s
}

// run serves until ctx ends.
func (s *session) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		// Before the fence is looked at, or its end could be missed.
		afterGap := s.a.cfg.Fence.afterGap()
		s.equip()
		wait := s.step(ctx)
		if wait == 0 {
			continue
		}
		if !s.retry.IsZero() {
			if until := max(0, s.retry.Sub(s.a.cfg.Now())); wait == forever || until < wait {
				wait = until
			}
		}
		var alarm <-chan time.Time
		if wait != forever {
			timer.Reset(wait)
			alarm = timer.C
		}
		select {
		case <-ctx.Done():
		case <-s.a.changed:
		case <-afterGap:
		case <-alarm:
		}
	}
}

// step does one thing that is due, and returns how long nothing will be.
func (s *session) step(ctx context.Context) time.Duration {
	now := s.a.cfg.Now()
	wait := s.a.nextDue(now)
	if wait == notNow {
		return forever
	}
	if wait != 0 && !s.errands.any(s.a.targets) {
		return wait
	}
	if delay := s.pacer.delay(now); delay > 0 {
		return delay
	}
	s.pacer.spend(now)
	if wait == 0 {
		if vip, ok := s.a.announceDue(now); ok {
			s.errands.add(vip)
		}
		return 0
	}
	vip, to := s.errands.next(ctx, now)
	s.a.direct(vip, to)
	return 0
}

// layoutWanted is what sockets an Announcer needs.
type layoutWanted struct {
	count    uint64
	index    int
	families map[family]bool
	groups   map[netip.Addr]struct{}
	failures []error
}

// equip opens and closes sockets as VIPs and link ask for.
func (s *session) equip() {
	now := s.a.cfg.Now()
	due := !s.retry.IsZero() && !now.Before(s.retry)
	want, changed := s.a.layoutSince(s.layout, due)
	if !changed {
		return
	}
	s.layout = want.count
	failed := errors.Join(want.failures...)
	if failed != nil {
		s.retry, due = now.Add(retryDelay), false
	}
	if want.index != s.index {
		failed = errors.Join(failed, s.closeSockets())
		s.index, s.retry = want.index, time.Time{}
	}
	if s.index != 0 && (s.retry.IsZero() || due) {
		s.retry = time.Time{}
		if err := s.open(want); err != nil {
			failed = errors.Join(failed, err)
			s.retry = now.Add(retryDelay)
		}
	}
	if failed != nil {
		s.a.cfg.Report(fmt.Errorf("announcing on %s: %w", s.a.cfg.Interface, failed))
	}
}

// open opens what is missing and closes what is not needed.
func (s *session) open(want layoutWanted) error {
	var failed error
	for _, f := range []family{ipv4, ipv6} {
		p := s.a.portOf(f)
		switch {
		case want.families[f] && p == nil:
			if err := s.listen(f); err != nil {
				failed = errors.Join(failed, err)
			}
		case !want.families[f] && p != nil:
			failed = errors.Join(failed, s.a.unplug(f, p))
		}
	}
	return errors.Join(failed, s.groups.set(want.groups))
}

// listen opens the socket of a family and has it read.
func (s *session) listen(f family) error {
	p, err := s.a.network.listen(s.index, f)
	if err != nil {
		return fmt.Errorf("opening the packet socket for IPv%d: %w", f, err)
	}
	s.a.plug(f, p)
	s.readers.Go(func() { s.a.read(f, p) })
	return nil
}

// close closes all that is open and waits for the readers.
func (s *session) close() {
	if err := s.closeSockets(); err != nil {
		s.a.cfg.Report(fmt.Errorf("announcing on %s: %w", s.a.cfg.Interface, err))
	}
	s.readers.Wait()
}

func (s *session) closeSockets() error {
	var failed error
	for _, f := range []family{ipv4, ipv6} {
		if p := s.a.portOf(f); p != nil {
			failed = errors.Join(failed, s.a.unplug(f, p))
		}
	}
	return errors.Join(failed, s.groups.close())
}
