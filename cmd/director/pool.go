package main

import (
	"hash/fnv"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/director"
	"github.com/lvs-operator/lvs-operator/internal/election"
)

// The API's defaults of spec.election.preemption.delay. With connection
// synchronisation it gives a director the time to hear of the connections of the
// others.
const (
	preemptionDelay     = 5 * time.Second
	preemptionDelaySync = 30 * time.Second
)

func preemptionOf(spec v1alpha1.DirectorPoolSpec) election.Preemption {
	p := spec.Election.Preemption
	preemption := election.Preemption{Never: p.Policy == v1alpha1.PreemptNever, Delay: preemptionDelay}
	switch {
	case p.Delay != nil:
		preemption.Delay = p.Delay.Duration
	case spec.ConnectionSync.Mode != v1alpha1.ConnectionSyncDisabled:
		preemption.Delay = preemptionDelaySync
	}
	return preemption
}

// syncOf takes from a DirectorPool how its directors share connections.
func syncOf(pool v1alpha1.DirectorPool) director.ConnectionSync {
	spec := pool.Spec.ConnectionSync
	if spec.Mode == v1alpha1.ConnectionSyncDisabled {
		return director.ConnectionSync{}
	}
	sync := director.ConnectionSync{Enabled: true, ID: syncIDOf(pool.UID), Port: uint16(spec.Port)}
	if spec.SyncID != nil {
		sync.ID = uint8(*spec.SyncID)
	}
	if spec.Interface != nil {
		sync.Interface = spec.Interface.Name
	}
	if group, err := netip.ParseAddr(spec.Group); err == nil {
		sync.Group = group
	}
	return sync
}

// syncIDOf returns the number of a pool that has none: 1 to 255, since a director
// with 0 takes what anybody sends.
func syncIDOf(pool types.UID) uint8 {
	h := fnv.New32a()
	h.Write([]byte(pool))
	return uint8(h.Sum32()%255) + 1
}
