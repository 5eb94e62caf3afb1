package announce

import (
	"net/netip"
	"time"
)

const (
	// claimInterval is the least time between two reported claims of one VIP by
	// one MAC. A successor announces more slowly than that once it is there.
	claimInterval = 100 * time.Millisecond
	// claimPairs bounds what is remembered of claimants.
	claimPairs = 1024
	// claimBacklog is how many claims wait for their reader.
	claimBacklog = 256
)

// watch bounds the rate of claims and defences. It is pure: the time is handed
// in.
type watch struct {
	claims   *recent[claimant, time.Time]
	defended map[netip.Addr]time.Time
}

type claimant struct {
	vip netip.Addr
	mac MAC
}

func newWatch() *watch {
	return &watch{claims: newRecent[claimant, time.Time](claimPairs), defended: map[netip.Addr]time.Time{}}
}

// reports says whether a claim is to be reported, and counts it if so.
func (w *watch) reports(vip netip.Addr, mac MAC, now time.Time) bool {
	key := claimant{vip, mac}
	if last, ok := w.claims.get(key); ok && now.Sub(last) < claimInterval {
		return false
	}
	w.claims.set(key, now)
	return true
}

// defends says whether a VIP may be defended now, and counts it if so.
func (w *watch) defends(vip netip.Addr, now time.Time) bool {
	if last, ok := w.defended[vip]; ok && now.Sub(last) < DefendInterval {
		return false
	}
	w.defended[vip] = now
	return true
}

// forget drops what is known of VIPs that are held no more.
func (w *watch) forget(held func(netip.Addr) bool) {
	w.claims.removeFunc(func(c claimant) bool { return !held(c.vip) })
	for vip := range w.defended {
		if !held(vip) {
			delete(w.defended, vip)
		}
	}
}
