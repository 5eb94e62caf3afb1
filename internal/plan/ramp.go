package plan

import (
	"time"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

const (
	// rampSteps is in how many steps a weight goes from a tenth to the whole.
	rampSteps = 18
	// rampStep is the least time between two of them, and between two passes for
	// their sake, however many destinations are on their way.
	rampStep = 500 * time.Millisecond
)

// rise returns the weight of a destination that is up. It begins with a tenth of
// its full weight when it comes up, and has all of it when its service's
// SlowStart has passed since. One that had its full weight since it came up, or
// has it in the kernel when nothing is remembered of it, is there already; and
// one that is then found at another weight goes on from there.
func (p *pass) rise(key netstate.DestinationKey, full uint32) uint32 {
	if full == 0 {
		return 0
	}
	way := ramp{full: full, over: p.desired.policy(key.Service).SlowStart}
	since, rising := p.memory.Rising[key]
	if !rising {
		since = p.now.Add(-way.at(p.have.Destinations[key].Weight))
	}
	_, risen := p.memory.Risen[key]
	elapsed := max(p.now.Sub(since), 0)
	if risen || elapsed >= way.over {
		p.later.Risen[key] = struct{}{}
		return full
	}
	p.later.Rising[key] = since
	if next := max(way.until(elapsed), rampStep); p.next == 0 || next < p.next {
		p.next = next
	}
	return way.weight(elapsed)
}

// keep returns the weight of a destination in the kernel of which nothing is
// known: the one that it has. That it had its full weight is not forgotten, since
// a sorry server may take it.
func (p *pass) keep(key netstate.DestinationKey, full uint32) uint32 {
	if full == 0 {
		return 0
	}
	current := p.have.Destinations[key].Weight
	if _, risen := p.memory.Risen[key]; risen || current >= full {
		p.later.Risen[key] = struct{}{}
	}
	return current
}

// ramp is the way of a weight up to its full value. All of it is whole numbers,
// so that a place on it can be found again by its weight.
type ramp struct {
	full uint32
	over time.Duration
}

// steps returns in how many steps of equal length the ramp is taken.
func (r ramp) steps() int64 {
	return min(max(int64(r.over/rampStep), 1), rampSteps)
}

// weight returns the weight that is due at a time.
func (r ramp) weight(elapsed time.Duration) uint32 {
	if elapsed >= r.over {
		return r.full
	}
	return r.after(r.step(elapsed))
}

// after returns the weight after so many steps.
func (r ramp) after(step int64) uint32 {
	n := r.steps()
	return max(uint32(int64(r.full)*(n+9*step)/(10*n)), 1)
}

// step returns how many steps have been taken at a time.
func (r ramp) step(elapsed time.Duration) int64 {
	return int64(elapsed) * r.steps() / int64(r.over)
}

// begin returns when a step is taken.
func (r ramp) begin(step int64) time.Duration {
	n := r.steps()
	return time.Duration((step*int64(r.over) + n - 1) / n)
}

// until returns how long it is to the next step.
func (r ramp) until(elapsed time.Duration) time.Duration {
	return r.begin(r.step(elapsed)+1) - elapsed
}

// at returns the earliest time at which at least the weight is due.
func (r ramp) at(weight uint32) time.Duration {
	if weight >= r.full {
		return r.over
	}
	var step int64
	for r.after(step) < weight {
		step++
	}
	return r.begin(step)
}
