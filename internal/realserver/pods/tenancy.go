package pods

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// tenancy says which VIPs one namespace is to have: those that are wanted, and
// each that was, for its linger.
type tenancy struct {
	wanted  map[netip.Addr]time.Duration // lingers
	leaving map[netip.Addr]time.Time     // ends
}

func newTenancy() tenancy {
	return tenancy{wanted: map[netip.Addr]time.Duration{}, leaving: map[netip.Addr]time.Time{}}
}

// want replaces what is wanted, and says whether other addresses are.
func (t *tenancy) want(vips []VIP, now time.Time) (changed bool) {
	before := t.wanted
	t.wanted = map[netip.Addr]time.Duration{}
	for _, v := range vips {
		t.wanted[v.Addr] = v.Linger
		delete(t.leaving, v.Addr)
		_, was := before[v.Addr]
		changed = changed || !was
	}
	for addr, linger := range before {
		if _, still := t.wanted[addr]; !still {
			t.leaving[addr] = now.Add(linger)
			changed = true
		}
	}
	return changed
}

// adopt takes over VIPs that are there of which it is not known who wanted them.
func (t *tenancy) adopt(vips []netip.Addr, now time.Time) {
	for _, addr := range vips {
		_, wanted := t.wanted[addr]
		_, leaving := t.leaving[addr]
		if !wanted && !leaving {
			t.leaving[addr] = now.Add(DefaultLinger)
		}
	}
}

// at is what holds now. What has ended by then is forgotten.
func (t *tenancy) at(now time.Time) realserver.Wanted {
	maps.DeleteFunc(t.leaving, func(_ netip.Addr, end time.Time) bool { return !now.Before(end) })
	w := realserver.Wanted{
		VIPs:    slices.SortedFunc(maps.Keys(t.wanted), netip.Addr.Compare),
		Leaving: slices.SortedFunc(maps.Keys(t.leaving), netip.Addr.Compare),
	}
	for _, end := range t.leaving {
		if w.Until.IsZero() || end.Before(w.Until) {
			w.Until = end
		}
	}
	return w
}
