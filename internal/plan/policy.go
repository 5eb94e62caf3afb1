package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

const (
	defaultDrainTimeout  = 30 * time.Second
	longestDrainTimeout  = 24 * time.Hour
	longestSlowStart     = time.Hour
	highestMinimumWeight = 16777215
	// slowStartScale is what weights are multiplied with under slow start, as long
	// as the kernel can hold the result.
	slowStartScale = 100
)

// policy is a Policy before the real servers are known.
type policy struct {
	quiesce                 bool
	drainTimeout, slowStart time.Duration
	// minimum is a sum of weights, or percent of the sum of all of them.
	minimum    uint64
	percent    bool
	hysteresis uint64
	sorry      netip.Addr
}

func readPolicy(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	p := &c.policy
	switch spec.OnFailure {
	case v1alpha1.OnFailureRemove, "":
	case v1alpha1.OnFailureQuiesce:
		p.quiesce = true
	default:
		return fmt.Errorf("unknown onFailure %q", spec.OnFailure)
	}
	p.drainTimeout = defaultDrainTimeout
	if spec.Drain != nil && spec.Drain.Timeout != nil {
		p.drainTimeout = spec.Drain.Timeout.Duration
	}
	if p.drainTimeout < 0 || p.drainTimeout > longestDrainTimeout {
		return fmt.Errorf("drain timeout %s is out of range", p.drainTimeout)
	}
	if err := p.readSlowStart(spec); err != nil {
		return err
	}
	if err := p.readQuorum(spec.Quorum); err != nil {
		return err
	}
	return p.readSorryServer(spec.SorryServer, c.realServers)
}

func (p *policy) readSlowStart(spec *v1alpha1.VirtualServerSpec) error {
	if spec.SlowStart == nil {
		return nil
	}
	p.slowStart = spec.SlowStart.Duration.Duration
	if p.slowStart < 0 || p.slowStart > longestSlowStart {
		return fmt.Errorf("a slow start of %s is out of range", p.slowStart)
	}
	if spec.Scheduler == v1alpha1.SchedulerWeightedFailover || spec.Scheduler == v1alpha1.SchedulerWeightedOverflow {
		return fmt.Errorf("scheduler %s does not share connections by weight, so there is no slow start", spec.Scheduler)
	}
	if spec.Scheduler == v1alpha1.SchedulerMaglevHashing {
		p.slowStart = 0 // directors would differ in how far a server is
	}
	return nil
}

func (p *policy) readQuorum(quorum *v1alpha1.Quorum) error {
	p.minimum = 1
	if quorum == nil {
		return nil
	}
	if quorum.Hysteresis < 0 || quorum.Hysteresis > highestMinimumWeight {
		return fmt.Errorf("hysteresis %d is out of range", quorum.Hysteresis)
	}
	p.hysteresis = uint64(quorum.Hysteresis)
	if quorum.MinimumWeight.Type == intstr.String {
		text, isShare := strings.CutSuffix(quorum.MinimumWeight.StrVal, "%")
		share, err := strconv.ParseUint(text, 10, 7)
		if err != nil || !isShare || share < 1 || share > 100 {
			return fmt.Errorf("minimumWeight %.40q is neither a number nor a share from 1%% to 100%%", quorum.MinimumWeight.StrVal)
		}
		p.minimum, p.percent = share, true
		return nil
	}
	minimum := cmp.Or(quorum.MinimumWeight.IntVal, 1)
	if minimum < 1 || minimum > highestMinimumWeight {
		return fmt.Errorf("minimumWeight %d is out of range", minimum)
	}
	p.minimum = uint64(minimum)
	if p.hysteresis >= p.minimum {
		return fmt.Errorf("hysteresis %d is not less than minimumWeight %d, so the quorum could never be lost", p.hysteresis, p.minimum)
	}
	return nil
}

func (p *policy) readSorryServer(sorry *v1alpha1.SorryServer, realServers []realServer) error {
	if sorry == nil {
		return nil
	}
	addr, err := parseAddr(string(sorry.Address))
	if err != nil {
		return fmt.Errorf("sorry server: %w", err)
	}
	if slices.ContainsFunc(realServers, func(r realServer) bool { return r.addr == addr }) {
		return fmt.Errorf("sorry server %s is one of the real servers", addr)
	}
	p.sorry = addr
	return nil
}

// resolve returns the Policy of a service whose real servers have these weights
// in the spec.
func (p *policy) resolve(weights []uint32) Policy {
	resolved := Policy{
		Quiesce:      p.quiesce,
		DrainTimeout: p.drainTimeout,
		SlowStart:    p.slowStart,
		Scale:        1,
	}
	var sum uint64
	largest := uint32(1)
	for _, weight := range weights {
		sum += uint64(weight)
		largest = max(largest, weight)
	}
	if p.slowStart > 0 {
		resolved.Scale = max(1, min(slowStartScale, highestValue/largest))
	}
	scale := uint64(resolved.Scale)
	resolved.Quorum = p.minimum * scale
	if p.percent {
		resolved.Quorum = max(1, (sum*scale*p.minimum+99)/100)
	}
	resolved.Hysteresis = min(p.hysteresis*scale, resolved.Quorum-1)
	return resolved
}
