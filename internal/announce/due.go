package announce

import (
	"errors"
	"net/netip"
	"time"
)

// notNow is a wait that ends when the link or the fence allows to speak.
const notNow = time.Duration(-2)

// nextDue returns the time until the next announcement, 0 if one is due, or
// notNow or forever.
func (a *Announcer) nextDue(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.awake() || !a.ready() {
		return notNow
	}
	due, ok := a.timetable.next()
	if !ok {
		return forever
	}
	return max(0, due.Sub(now))
}

// announceDue announces the VIP that is due, and returns it if that was done.
func (a *Announcer) announceDue(now time.Time) (netip.Addr, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.awake() || !a.ready() {
		return netip.Addr{}, false
	}
	vip, ok := a.timetable.take(now)
	if !ok {
		return netip.Addr{}, false
	}
	// A frame that the kernel refuses is counted; the schedule is what tries
	// again. One that the fence holds back was never announced.
	err := a.sayGratuitous(vip)
	if errors.Is(err, ErrStale) {
		a.timetable.start(vip, now)
	}
	if err == nil && a.timetable.settled(vip) {
		a.lookForOthers(vip)
	}
	return vip, err == nil
}

// lookForOthers asks who has a VIP that is announced. A station that answers for
// it and announces nothing is heard by whoever asks, and by nobody else: its
// answer to us is a Claim. It is not asked without an address of the node's own.
// Needs mu.
func (a *Announcer) lookForOthers(vip netip.Addr) {
	if a.ports[familyOf(vip)] != nil && a.sourceFor(vip).IsValid() {
		// One that is not sent is counted; there will be another.
		_ = a.ask(vip)
	}
}

// LookForOthers asks who has those of vips that are active, once, as is done
// along with announcements. Each station that answers makes a Claim.
func (a *Announcer) LookForOthers(vips ...netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, vip := range vips {
		vip, _ = normalize(vip)
		if a.roles.announces(vip) && a.ready() && a.awake() {
			a.lookForOthers(vip)
		}
	}
}

// target is a neighbour that is told in person. A zero mac is to be looked up.
type target struct {
	addr netip.Addr
	mac  MAC
}

// targets returns whom to tell of an announced VIP: the gateways first, then
// who asked for it.
func (a *Announcer) targets(vip netip.Addr) []target {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.roles.announces(vip) {
		return nil
	}
	var out []target
	told := map[netip.Addr]bool{}
	for _, g := range a.gateways {
		if familyOf(g) == familyOf(vip) && g != vip && !told[g] {
			mac, _ := a.askers.get(asker{vip, g})
			out = append(out, target{g, mac})
			told[g] = true
		}
	}
	a.askers.all(func(k asker, mac MAC) bool {
		if k.vip == vip && !told[k.addr] {
			out = append(out, target{k.addr, mac})
		}
		return true
	})
	return out
}

// direct tells one neighbour of a VIP, if that is still announced.
func (a *Announcer) direct(vip netip.Addr, to target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.roles.announces(vip) || !a.ready() || !a.awake() {
		return
	}
	if a.send(vip, directed(a.link.MAC, vip, to.addr, to.mac)) == nil {
		a.stats.Directed++
	}
}
