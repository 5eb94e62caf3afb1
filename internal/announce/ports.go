package announce

import (
	"fmt"
	"net/netip"
)

// layoutSince returns what sockets are needed, and whether that may be another
// than at the given count; always says to return it anyhow.
func (a *Announcer) layoutSince(count uint64, always bool) (layoutWanted, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.layout == count && !always {
		return layoutWanted{}, false
	}
	want := layoutWanted{
		count:    a.layout,
		index:    a.link.Index,
		families: map[family]bool{},
		groups:   map[netip.Addr]struct{}{},
		failures: a.failures,
	}
	a.failures = nil
	for f := range a.probed {
		want.families[f] = true
	}
	for vip := range a.roles.held {
		want.families[familyOf(vip)] = true
		if vip.Is6() {
			want.groups[solicitedNode(vip)] = struct{}{}
		}
	}
	return want, true
}

func (a *Announcer) portOf(f family) port {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ports[f]
}

// plug puts a port to use. What was announced without one was not heard.
func (a *Announcer) plug(f family, p port) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ports[f] = p
	close(a.plugged)
	a.plugged = make(chan struct{})
	a.beginAll(func(vip netip.Addr) bool { return familyOf(vip) == f })
}

// unplug takes a port out of use, if it still is in it, and closes it.
func (a *Announcer) unplug(f family, p port) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ports[f] == p {
		delete(a.ports, f)
	}
	if err := p.close(); err != nil {
		return fmt.Errorf("closing the packet socket for IPv%d: %w", f, err)
	}
	return nil
}

// read deals with the frames of a port until it is closed or fails.
func (a *Announcer) read(f family, p port) {
	buf := make([]byte, frameLimit)
	for {
		err := p.wait()
		for more := err == nil; more; {
			more, err = a.receive(f, p, buf)
		}
		if err != nil {
			a.lost(f, p, err)
			return
		}
	}
}

// lost takes a port out of use that can't be read any more, unless that is
// because it was closed on purpose.
func (a *Announcer) lost(f family, p port, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ports[f] != p {
		return
	}
	delete(a.ports, f)
	if closing := p.close(); closing != nil {
		err = fmt.Errorf("%w (and closing it: %w)", err, closing)
	}
	a.failures = append(a.failures, fmt.Errorf("reading the packet socket for IPv%d: %w", f, err))
	a.layout++
	a.wake()
}
