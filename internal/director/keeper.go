package director

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// saveEvery bounds how often the checkpoint is written.
const saveEvery = 200 * time.Millisecond

// keeper keeps the checkpoint of the pool that the director serves.
type keeper struct {
	dir      string
	snapshot func() checkpoint.Checkpoint
	log      *slog.Logger

	mu     sync.Mutex
	writer *checkpoint.Writer
}

// folder is where the checkpoints are: one for each pool, of which a director
// has one at a time. The state directory itself is also others'.
func (k *keeper) folder() string { return filepath.Join(k.dir, "pools") }

// open makes the keeper keep the checkpoint of a pool from now on. What it kept
// before has to be closed.
func (k *keeper) open(pool string) {
	if err := os.MkdirAll(k.folder(), 0o700); err != nil {
		k.log.Error("Making the folder of checkpoints", "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writer != nil {
		return
	}
	k.writer = checkpoint.NewWriter(checkpoint.Path(k.folder(), pool), saveEvery, k.snapshot, func(err error) {
		k.log.Error("Writing the checkpoint", "error", err)
	})
}

// changed has the checkpoint written. It waits for nothing.
func (k *keeper) changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writer != nil {
		k.writer.Changed()
	}
}

// close writes what is not written yet.
func (k *keeper) close() {
	k.mu.Lock()
	writer := k.writer
	k.writer = nil
	k.mu.Unlock()
	if writer != nil {
		// The writer has told of its errors already. It takes a last snapshot, so
		// nothing may be locked here.
		_ = writer.Close()
	}
}

// remove closes the checkpoint and takes every one of this node away.
func (k *keeper) remove() error {
	k.close()
	return os.RemoveAll(k.folder())
}

// load returns the newest checkpoint that can be read, or nil. One that cannot
// is reported and passed over: without it a director waits for the API.
func (k *keeper) load() *checkpoint.Checkpoint {
	paths, _ := filepath.Glob(filepath.Join(k.folder(), "*.json"))
	slices.SortFunc(paths, func(a, b string) int { return modified(b).Compare(modified(a)) })
	for _, path := range paths {
		c, err := checkpoint.Load(path)
		if err == nil && c.Pool != "" {
			return &c
		}
		k.log.Warn("Passing over a checkpoint", "path", path, "error", err)
	}
	return nil
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// RemoveCheckpoints takes the checkpoints in a state directory away. No director
// may be running with it.
func RemoveCheckpoints(dir string) error {
	if err := (&keeper{dir: dir}).remove(); err != nil {
		return fmt.Errorf("removing checkpoints: %w", err)
	}
	return nil
}

// record returns what a checkpoint keeps of a plan: all but Servers, which is
// for the status alone.
func record(d plan.Desired) checkpoint.Key {
	key := checkpoint.Key{Key: d.Key, State: d.State, Links: d.Links}
	for destination, checks := range d.Checks {
		for _, check := range checks {
			key.Checks = append(key.Checks, checkpoint.Check{
				Destination: destination,
				Name:        check.Name,
				Target: checkpoint.Target{
					Type: string(check.Probe.Target.Type), Addr: check.Probe.Target.Addr, Port: check.Probe.Target.Port,
				},
				Schedule:    checkpoint.Schedule(check.Probe.Schedule),
				InitiallyUp: check.InitiallyUp,
			})
		}
	}
	for service, owner := range d.Owners {
		key.Owners = append(key.Owners, checkpoint.Owner{Service: service, Namespace: owner.Namespace, Name: owner.Name})
	}
	for service, policy := range d.Policies {
		key.Policies = append(key.Policies, checkpoint.Policy{
			Service: service, Quiesce: policy.Quiesce, DrainTimeout: policy.DrainTimeout, SlowStart: policy.SlowStart,
			Scale: policy.Scale, Quorum: policy.Quorum, Hysteresis: policy.Hysteresis, Sorry: policy.Sorry,
		})
	}
	for destination, why := range d.Unready {
		key.Unready = append(key.Unready, checkpoint.Unready{Destination: destination, Why: why})
	}
	return key
}

// recorded is the reverse of record.
func recorded(key checkpoint.Key) plan.Desired {
	d := plan.Desired{
		Key:      key.Key,
		State:    key.State,
		Checks:   map[netstate.DestinationKey][]plan.Check{},
		Owners:   map[netstate.ServiceKey]types.NamespacedName{},
		Policies: map[netstate.ServiceKey]plan.Policy{},
		Unready:  map[netstate.DestinationKey]string{},
		Links:    key.Links,
	}
	for _, check := range key.Checks {
		d.Checks[check.Destination] = append(d.Checks[check.Destination], plan.Check{
			Name: check.Name,
			Probe: health.Probe{
				Target: health.Target{
					Type: health.Type(check.Target.Type), Addr: check.Target.Addr, Port: check.Target.Port,
				},
				Schedule: health.Schedule(check.Schedule),
			},
			InitiallyUp: check.InitiallyUp,
		})
	}
	for _, owner := range key.Owners {
		d.Owners[owner.Service] = types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name}
	}
	for _, policy := range key.Policies {
		d.Policies[policy.Service] = plan.Policy{
			Quiesce: policy.Quiesce, DrainTimeout: policy.DrainTimeout, SlowStart: policy.SlowStart,
			Scale: policy.Scale, Quorum: policy.Quorum, Hysteresis: policy.Hysteresis, Sorry: policy.Sorry,
		}
	}
	for _, unready := range key.Unready {
		d.Unready[unready.Destination] = unready.Why
	}
	return d
}
