package agreement

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

const (
	// period is the time from one sample to the next, patience what one may take.
	period   = time.Second
	patience = 2 * time.Second
)

// Options say what to look at.
type Options struct {
	// Reader asks the API server.
	Reader client.Reader
	// Pool is the DirectorPool, and Lease its group's.
	Pool  string
	Lease types.NamespacedName
	// VirtualServer is one of the pool's.
	VirtualServer types.NamespacedName
}

// Start takes a sample every second, until ctx ends or report is called, which
// judges them.
func Start(ctx context.Context, options Options) (report func() Report) {
	ctx, stop := context.WithCancel(ctx)
	var samples []Sample
	missed := 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		for {
			sample, err := options.sample(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				missed++
			default:
				samples = append(samples, sample)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
	return func() Report {
		stop()
		<-ended
		report := Judge(samples)
		report.Missed = missed
		return report
	}
}

// sample reads the Lease last.
func (o Options) sample(ctx context.Context) (Sample, error) {
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	sample := Sample{Began: time.Now()}
	var directors v1alpha1.DirectorList
	if err := o.Reader.List(ctx, &directors); err != nil {
		return Sample{}, fmt.Errorf("listing Directors: %w", err)
	}
	var vs v1alpha1.VirtualServer
	if err := o.Reader.Get(ctx, o.VirtualServer, &vs); err != nil {
		return Sample{}, fmt.Errorf("reading VirtualServer %s: %w", o.VirtualServer, err)
	}
	var lease coordinationv1.Lease
	if err := o.Reader.Get(ctx, o.Lease, &lease); err != nil {
		return Sample{}, fmt.Errorf("reading Lease %s: %w", o.Lease, err)
	}
	sample.Ended = time.Now()
	sample.Active, sample.Shown = activeOf(o.Pool, directors.Items), shownBy(&vs)
	if lease.Spec.HolderIdentity != nil {
		sample.Holder = *lease.Spec.HolderIdentity
	}
	return sample, nil
}

// activeOf lists, in order, the directors of a pool whose column ACTIVE counts:
// those that are alive.
func activeOf(pool string, directors []v1alpha1.Director) []string {
	var active []string
	for _, director := range directors {
		if director.Spec.DirectorPoolName == pool && director.Status.Display != nil && strings.HasPrefix(director.Status.Display.Active, "1/") &&
			meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionAlive) {
			active = append(active, director.Name)
		}
	}
	slices.Sort(active)
	return active
}

// shownBy lists, in order, the directors that a VirtualServer names, in its
// column and for each address.
func shownBy(vs *v1alpha1.VirtualServer) []string {
	names := map[string]struct{}{}
	if vs.Status.Display != nil {
		for name := range strings.SplitSeq(vs.Status.Display.Directors, ",") {
			names[name] = struct{}{}
		}
	}
	for _, address := range vs.Status.Addresses {
		names[address.Director] = struct{}{}
	}
	delete(names, "")
	return slices.Sorted(maps.Keys(names))
}
