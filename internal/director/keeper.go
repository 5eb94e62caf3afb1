package director

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/election"
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
	pool   string
	writer *checkpoint.Writer
}

// open makes the keeper keep the checkpoint of a pool from now on.
func (k *keeper) open(pool string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pool == pool && k.writer != nil {
		return
	}
	k.closeLocked()
	k.pool = pool
	k.writer = checkpoint.NewWriter(checkpoint.Path(k.dir, pool), saveEvery, k.snapshot, func(err error) {
		k.log.Error("Writing the checkpoint", "error", err)
	})
}

// changed has the checkpoint written.
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
	defer k.mu.Unlock()
	k.closeLocked()
}

func (k *keeper) closeLocked() {
	if k.writer == nil {
		return
	}
	// The writer has told of its errors already.
	_ = k.writer.Close()
	k.writer = nil
}

// remove closes the checkpoint and takes every one of this node away.
func (k *keeper) remove() error {
	k.close()
	paths, err := k.paths()
	for _, path := range paths {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func (k *keeper) paths() ([]string, error) {
	return filepath.Glob(filepath.Join(k.dir, "*.json"))
}

// load returns the newest checkpoint that can be read, or nil. One that cannot
// is reported and passed over: without it a director waits for the API.
func (k *keeper) load() *checkpoint.Checkpoint {
	paths, _ := k.paths()
	slices.SortFunc(paths, func(a, b string) int { return modified(b).Compare(modified(a)) })
	for _, path := range paths {
		if strings.HasPrefix(filepath.Base(path), "sysctl") {
			continue
		}
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

// record returns what a checkpoint keeps of a plan.
func record(d plan.Desired) checkpoint.Key {
	key := checkpoint.Key{Key: d.Key, State: d.State}
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
	return key
}

// recorded is the reverse of record.
func recorded(key checkpoint.Key) plan.Desired {
	d := plan.Desired{
		Key:    key.Key,
		State:  key.State,
		Checks: map[netstate.DestinationKey][]plan.Check{},
		Owners: map[netstate.ServiceKey]types.NamespacedName{},
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
	return d
}

// roleIn returns what a checkpoint says of the director's part in a group.
func roleIn(c *checkpoint.Checkpoint, pool string) election.Restored {
	if c == nil || c.Pool != pool {
		return election.Restored{}
	}
	for _, g := range c.Groups {
		if g.Group == group {
			return election.Restored{Epoch: g.Epoch, Active: g.Active}
		}
	}
	return election.Restored{}
}
