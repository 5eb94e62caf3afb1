package director

import (
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// Agree has what heard says of a target go before this director's own verdict, for
// VIPs with a service whose scheduler is netstate.Ordered: a server that is up for
// one director and down for another makes two tables of one. Heard tells what the
// active director says, and false if that is unknown, too old, or this director
// is the active one; nil hears nothing. It is called in every pass, with no lock
// held, and must not block. Whoever hears something new calls Audit or Enqueue.
func (w *Worker) Agree(heard func(health.Probe) (health.Verdict, bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = heard
}

// verdictsFor returns what is to be believed of the servers of a plan.
func (w *Worker) verdictsFor(desired plan.Desired) func(health.Probe) health.Verdict {
	w.mu.Lock()
	heard := w.heard
	w.mu.Unlock()
	if heard == nil || !hasOrdered(desired) {
		return w.verdicts
	}
	return func(p health.Probe) health.Verdict {
		if verdict, known := heard(p); known {
			return verdict
		}
		return w.verdicts(p)
	}
}

func hasOrdered(desired plan.Desired) bool {
	for _, service := range desired.State.Services {
		if service.Ordered() {
			return true
		}
	}
	return false
}
