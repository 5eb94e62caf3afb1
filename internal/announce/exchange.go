package announce

import (
	"errors"
	"net/netip"
)

// drainLimit is how many frames are taken from a socket at most when it is
// emptied: more than its buffer holds.
const drainLimit = 4096

// frameLimit is the longest frame that is read. Neighbour discovery is never
// near it.
const frameLimit = 2048

// awake says whether anything may be sent. After a gap it first empties the
// sockets: what waits there was asked while nobody decided, and its answer
// could bring a client back from the peer that it has moved to. Needs mu.
func (a *Announcer) awake() bool {
	fresh, gaps := a.cfg.Fence.state()
	if !fresh {
		return false
	}
	if gaps == a.gaps {
		return true
	}
	a.gaps = gaps
	buf := make([]byte, frameLimit)
	for f, p := range a.ports {
		for range drainLimit {
			n, ok, err := p.receive(buf)
			if err != nil || !ok {
				break // Its reader sees the error too.
			}
			a.takeIn(f, buf[:n], false)
		}
	}
	return a.cfg.Fence.Fresh()
}

// maySpeak says why nothing may be sent for vip, if so. Needs mu.
func (a *Announcer) maySpeak(vip netip.Addr) error {
	switch {
	case !a.canSpeak() || a.ports[familyOf(vip)] == nil:
		return ErrSilent
	case !a.awake():
		return ErrStale
	default:
		return nil
	}
}

// send sends a frame on behalf of vip. The fence is looked at last of all.
// Needs mu.
func (a *Announcer) send(vip netip.Addr, frame []byte) error {
	port := a.ports[familyOf(vip)]
	if port == nil || !a.canSpeak() {
		return ErrSilent
	}
	if fresh, gaps := a.cfg.Fence.state(); !fresh || gaps != a.gaps {
		return ErrStale
	}
	if err := port.send(frame); err != nil {
		a.stats.SendErrors++
		return err
	}
	return nil
}

// sayGratuitous sends the gratuitous frames of vip. Needs mu.
func (a *Announcer) sayGratuitous(vip netip.Addr) error {
	for _, frame := range gratuitous(a.link.MAC, vip) {
		if err := a.send(vip, frame); err != nil {
			return err
		}
	}
	a.stats.Announced++
	return nil
}

// receive deals with one frame of a socket, if there is one, and says whether
// there was.
func (a *Announcer) receive(f family, p port, buf []byte) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	awake := a.awake()
	n, ok, err := p.receive(buf)
	if err != nil || !ok {
		return false, err
	}
	a.takeIn(f, buf[:n], awake)
	return true, nil
}

// takeIn does what a received frame asks for. A frame that must not be
// answered any more still tells who is there. Needs mu.
func (a *Announcer) takeIn(f family, frame []byte, mayAnswer bool) {
	r, err := a.react(f, frame)
	if err != nil {
		a.stats.Malformed++
		return
	}
	if r.claimed.IsValid() {
		a.report(r)
	}
	if r.asked.vip.IsValid() {
		a.askers.set(r.asked, r.askedMAC)
	}
	switch {
	case r.answer == nil:
	case !mayAnswer:
		a.stats.StaleDrops++
	default:
		a.answer(r)
	}
}

// react decodes a frame and decides about it. Needs mu.
func (a *Announcer) react(f family, frame []byte) (reaction, error) {
	if f == ipv4 {
		p, err := decodeARP(frame)
		if err != nil {
			return reaction{}, err
		}
		a.noteAnswer(p.answerTo(a.link.MAC))
		return a.roles.onARP(p, a.link.MAC), nil
	}
	p, err := decodeNDP(frame)
	if err != nil {
		return reaction{}, err
	}
	a.noteAnswer(p.answerTo(a.link.MAC, !a.sourceFor(p.target).IsValid()))
	return a.roles.onNDP(p, a.link.MAC), nil
}

// answer sends the answer to a request.
func (a *Announcer) answer(r reaction) {
	switch err := a.send(r.answered, r.answer); {
	case err == nil:
		a.stats.Answered++
	case errors.Is(err, ErrStale):
		a.stats.StaleDrops++
	}
}

// report hands a claim on, unless there are too many.
func (a *Announcer) report(r reaction) {
	a.stats.Claims++
	now := a.cfg.Now()
	if !a.watch.reports(r.claimed, r.claimant, now) {
		a.stats.ClaimsLimited++
		return
	}
	claim := Claim{VIP: r.claimed, MAC: r.claimant, Interface: a.cfg.Interface, When: now, Kind: r.kind}
	select {
	case a.claims <- claim:
	default:
		a.stats.ClaimsDropped++
	}
}
