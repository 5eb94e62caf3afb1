package announce

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

const (
	// probeQuestions are asked for each target, probeSpacing apart: one may be
	// lost, and its answer too.
	probeQuestions = 3
	probeSpacing   = 30 * time.Millisecond
	// probeTime is how long after the first question answers are awaited, and
	// probeTail how long after the last one at least.
	probeTime = 100 * time.Millisecond
	probeTail = probeTime - (probeQuestions-1)*probeSpacing
	// probesAtOnce is how many probes run side by side; more wait their turn.
	probesAtOnce = 8
	// plugPatience is how long a probe waits for the socket of its family.
	plugPatience = 200 * time.Millisecond
)

// ProbeLimit is how many targets one probe can have. Each is asked for by
// broadcast, three times.
const ProbeLimit = 64

// ErrStalled says that a probe came to nothing because this process stood still
// in between, for longer than StallLimit: silence is no sign then.
var ErrStalled = errors.New("stood still while probing")

// Probed is what a probe found.
type Probed struct {
	// Answers are the stations that answered for each target, in order. A target
	// that nobody answered for is not in it.
	Answers map[netip.Addr][]MAC
	// Begun and Ended are when the probe was, by Fence.Now: it was sent and
	// answered in between.
	Begun, Ended time.Duration
}

// Answered says whether the station answered for the target.
func (p Probed) Answered(target netip.Addr, by MAC) bool {
	target, _ = normalize(target)
	return slices.Contains(p.Answers[target], by)
}

// SetOwn says which addresses the node itself has on the interface, with their
// networks. A probe is sent from one of them, never from a VIP.
func (a *Announcer) SetOwn(own []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own = slices.Clone(own)
}

// Probe asks the segment who has each of the targets, VIPs or any others, three
// times within 60 ms, and returns who answered within 100 ms. It may be called
// whether or not anything is announced, and whatever the fence says: it claims
// nothing. This machine's own answers do not count.
//
// Questions are sent from an address of the node that SetOwn named, since
// switches that inspect ARP drop those from 0.0.0.0, and hosts that have just
// begun to use a target would take those for a rival's. Whoever hears one
// learns where the node is, which is true. Only a node without any address of
// the family on the interface asks without a sender (RFC 5227, 2.1.1; RFC 4862,
// 5.4.2).
//
// The error is ErrSilent if the interface is or was not ready, ErrStalled, the
// kernel's if it did not send a frame, or the context's. An answer that is
// missing means silence only if it is nil.
func (a *Announcer) Probe(ctx context.Context, targets []netip.Addr) (Probed, error) {
	p, err := newProbing(targets)
	if err != nil {
		return Probed{}, fmt.Errorf("probing on %s: %w", a.cfg.Interface, err)
	}
	select {
	case <-ctx.Done():
		return Probed{}, ctx.Err()
	case a.probeSlots <- struct{}{}:
		defer func() { <-a.probeSlots }()
	}
	found, err := a.probe(ctx, p)
	if err != nil {
		return Probed{}, fmt.Errorf("probing on %s: %w", a.cfg.Interface, err)
	}
	return found, nil
}

func (a *Announcer) probe(ctx context.Context, p *probing) (Probed, error) {
	if err := a.beginProbe(ctx, p); err != nil {
		return Probed{}, err
	}
	defer a.dropProbe(p)
	due := p.begun
	for i := range probeQuestions {
		due = max(due, p.begun+time.Duration(i)*probeSpacing)
		if err := a.until(ctx, due); err != nil {
			return Probed{}, err
		}
		if err := a.askAll(p); err != nil {
			return Probed{}, err
		}
		now := a.cfg.Fence.Now()
		if now-due > StallLimit {
			return Probed{}, ErrStalled
		}
		due = now
	}
	due = max(p.begun+probeTime, due+probeTail)
	if err := a.until(ctx, due); err != nil {
		return Probed{}, err
	}
	return a.endProbe(p, due)
}

// until waits for a time of the fence's clock.
func (a *Announcer) until(ctx context.Context, due time.Duration) error {
	timer := time.NewTimer(due - a.cfg.Fence.Now())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// probing is a probe under way. Announcer.mu guards its answers.
type probing struct {
	targets  map[netip.Addr]struct{}
	families map[family]port
	// changes is the Announcer's count at the beginning.
	changes uint64
	begun   time.Duration
	answers map[netip.Addr]map[MAC]struct{}
}

func newProbing(targets []netip.Addr) (*probing, error) {
	if len(targets) > ProbeLimit {
		return nil, fmt.Errorf("%d targets at once, of %d", len(targets), ProbeLimit)
	}
	p := &probing{targets: setOf(targets), families: map[family]port{}, answers: map[netip.Addr]map[MAC]struct{}{}}
	for target := range p.targets {
		p.families[familyOf(target)] = nil
	}
	if len(p.targets) == 0 {
		return nil, errors.New("no address that a station can have")
	}
	return p, nil
}

// beginProbe has answers noted from now on. It waits a moment for a socket
// that was not needed before.
func (a *Announcer) beginProbe(ctx context.Context, p *probing) error {
	patience := time.NewTimer(plugPatience)
	defer patience.Stop()
	for {
		begun, plugged, err := a.tryProbe(p)
		if begun || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			return ErrSilent
		case <-plugged:
		}
	}
}

// tryProbe begins a probe if its sockets are open. Else it has them opened, and
// returns a channel that is closed when one more is.
func (a *Announcer) tryProbe(p *probing) (begun bool, plugged <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ready() {
		return false, nil, ErrSilent
	}
	missing := false
	for f := range p.families {
		if !a.probed[f] {
			a.probed[f] = true
			a.layout++
			a.wake()
		}
		p.families[f] = a.ports[f]
		missing = missing || a.ports[f] == nil
	}
	if missing {
		return false, a.plugged, nil
	}
	// What waits in the sockets is older than the probe.
	a.hearOut()
	p.changes, p.begun = a.changes, a.cfg.Fence.Now()
	a.probes[p] = struct{}{}
	return true, nil, nil
}

// undisturbed says why the silence of targets means nothing, if so: there was no
// interface, or another one, at some time since the beginning. Needs mu.
func (a *Announcer) undisturbed(p *probing) error {
	for f, port := range p.families {
		if a.ports[f] != port {
			return ErrSilent
		}
	}
	if !a.ready() || a.changes != p.changes {
		return ErrSilent
	}
	return nil
}

// askAll asks once for each target.
func (a *Announcer) askAll(p *probing) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.undisturbed(p); err != nil {
		return err
	}
	for target := range p.targets {
		if err := a.ask(target); err != nil {
			return err
		}
	}
	return nil
}

// ask sends one question for an address. Needs mu.
func (a *Announcer) ask(target netip.Addr) error {
	frame := question(a.link.MAC, a.sourceFor(target), target)
	if err := a.ports[familyOf(target)].send(frame); err != nil {
		a.stats.SendErrors++
		return err
	}
	a.stats.Asked++
	return nil
}

// sourceFor returns the node's address to ask for the target from: one of a
// network that the target is in, else any of its family, else the zero Addr.
// Needs mu.
func (a *Announcer) sourceFor(target netip.Addr) netip.Addr {
	var source netip.Addr
	for _, own := range a.own {
		addr, ok := normalize(own.Addr())
		if !ok || familyOf(addr) != familyOf(target) || addr == target || a.roles.holds(addr) {
			continue
		}
		if own.Contains(target) {
			return addr
		}
		if !source.IsValid() {
			source = addr
		}
	}
	return source
}

// endProbe returns what came of a probe. What still waits in the sockets came
// in time.
func (a *Announcer) endProbe(p *probing, due time.Duration) (Probed, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hearOut()
	if err := a.undisturbed(p); err != nil {
		return Probed{}, err
	}
	found := Probed{Answers: map[netip.Addr][]MAC{}, Begun: p.begun, Ended: a.cfg.Fence.Now()}
	if found.Ended-due > StallLimit {
		return Probed{}, ErrStalled
	}
	for target, by := range p.answers {
		found.Answers[target] = slices.SortedFunc(maps.Keys(by), MAC.compare)
	}
	return found, nil
}

func (a *Announcer) dropProbe(p *probing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.probes, p)
}

// hearOut deals with all frames that wait in the sockets. Needs mu.
func (a *Announcer) hearOut() {
	buf := make([]byte, frameLimit)
	for f, p := range a.ports {
		for range drainLimit {
			awake := a.awake()
			n, ok, err := p.receive(buf)
			if err != nil || !ok {
				break // Its reader sees the error too.
			}
			a.takeIn(f, buf[:n], awake)
		}
	}
}

// noteAnswer notes for the probes under way that a station answered for an
// address, if it is valid. Needs mu.
func (a *Announcer) noteAnswer(addr netip.Addr, station MAC) {
	for p := range a.probes {
		if _, asked := p.targets[addr]; !asked {
			continue
		}
		if p.answers[addr] == nil {
			p.answers[addr] = map[MAC]struct{}{}
		}
		p.answers[addr][station] = struct{}{}
	}
}

// answerTo returns the address that p gives in answer to a question of the
// station mac, and who does; the zero Addr if it is none. What comes from mac
// itself, reflected by the segment, is none.
func (p arpPacket) answerTo(mac MAC) (netip.Addr, MAC) {
	ours := p.senderMAC == mac || p.source == mac
	asked := p.destination == mac || p.targetMAC == mac
	if p.op != arpReply || ours || !asked || !p.senderMAC.isStation() {
		return netip.Addr{}, MAC{}
	}
	return p.senderIP, p.senderMAC
}

// answerTo is the same for neighbour advertisements. A question without a sender
// is answered to all (RFC 4861, 7.2.4), as by somebody whom nobody asked.
func (p ndpPacket) answerTo(mac MAC, senderless bool) (netip.Addr, MAC) {
	station := p.linkLayer
	if station.IsZero() {
		station = p.source
	}
	ours := station == mac || p.source == mac
	asked := p.destination == mac && p.flags&ndpSolicited != 0 || senderless && p.to == allNodes
	if p.kind != ndpAdvertisement || ours || !asked || !station.isStation() {
		return netip.Addr{}, MAC{}
	}
	return p.target, station
}
