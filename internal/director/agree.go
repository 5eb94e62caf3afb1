package director

import (
	"maps"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// hearsay is what another director says of the servers of a plan. A server of which
// it says nothing is not in it.
type hearsay struct {
	verdicts map[netstate.DestinationKey]health.Verdict
	// doubted says that this director's own verdicts go before, wherever it has one.
	doubted bool
}

// Agree has what heard says of servers go before this director's own verdicts, for
// VIPs with a service whose scheduler is netstate.Ordered: a server that is up for
// one director and down for another makes two tables of one. Heard is called in
// every pass, with no lock held, and must not block; nil hears nothing. Whoever hears
// something new calls Audit or Enqueue.
func (w *Worker) Agree(heard func(plan.Desired) hearsay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = heard
}

// agreed returns a plan in which the servers that others speak for are up or down by
// their word, whatever the checks find here.
func (w *Worker) agreed(desired plan.Desired) plan.Desired {
	w.mu.Lock()
	heard := w.heard
	w.mu.Unlock()
	if heard == nil || !hasOrdered(desired) {
		return desired
	}
	said := heard(desired)
	if len(said.verdicts) == 0 {
		return desired
	}
	checks, unready := maps.Clone(desired.Checks), map[netstate.DestinationKey]string{}
	maps.Copy(unready, desired.Unready)
	for key, verdict := range said.verdicts {
		if own, _ := desired.Judge(key, w.verdicts); said.doubted && own != health.Unknown {
			continue
		}
		// A server without checks is up.
		delete(checks, key)
		delete(unready, key)
		if verdict == health.Down {
			unready[key] = "another director says so"
		}
	}
	desired.Checks, desired.Unready = checks, unready
	return desired
}

func hasOrdered(desired plan.Desired) bool {
	for _, service := range desired.State.Services {
		if service.Ordered() {
			return true
		}
	}
	return false
}
