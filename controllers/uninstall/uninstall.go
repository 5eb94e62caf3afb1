// Package uninstall has directors and agents leave a cluster as they found it,
// while they still run.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// lookEvery is how often it is looked what is left.
const lookEvery = 2 * time.Second

// Options are what is uninstalled.
type Options struct {
	Client client.Client
	// DaemonSet is the directors'.
	DaemonSet types.NamespacedName
	// Timeout is how long directors and agents may take together.
	Timeout time.Duration
	// Progress is told what is waited for, whenever that changes.
	Progress io.Writer
}

// ErrLeft says that something is left on nodes after all; the error names them.
var ErrLeft = errors.New("not all nodes are as they were found")

// Run marks every DirectorPool for the removal of the installation, so that its
// directors leave, and waits until no Director is left and no pod has a VIP any
// more. DirectorPools that are made meanwhile are marked too. A failure of the API
// server is waited for. After an error, which wraps ErrLeft unless ctx ended, the
// pools stay marked, and Run can be called again.
func Run(ctx context.Context, o Options) error {
	ctx, done := context.WithTimeout(ctx, o.Timeout)
	defer done()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var last string
	for {
		remains, err := o.look(ctx)
		said := remains.String()
		switch {
		case err != nil:
			said = "Trying again: " + err.Error()
		case remains.none():
			fmt.Fprintln(o.Progress, "All nodes are as they were found.")
			return nil
		case remains.orphaned:
			return fmt.Errorf("%w: DaemonSet %s is not there, so nobody cleans up: %s; run director cleanup there", ErrLeft, o.DaemonSet, remains)
		}
		if said != last && ctx.Err() == nil {
			fmt.Fprintln(o.Progress, said)
			last = said
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return fmt.Errorf("%w after %s. %s.\n%s", ErrLeft, o.Timeout, last, advice)
		case <-ticker.C:
		}
	}
}

const advice = "A node that is down cannot be cleaned up: what is in its kernel goes with a reboot. Delete its Node, or its Director, and " +
	"uninstall again; or pass over it with helm uninstall --no-hooks. To go on serving instead, take the mark away: " +
	"kubectl annotate directorpools --all " + v1alpha1.AnnotationRemoval + "-"

// look marks what is not marked, and returns what is left.
func (o Options) look(ctx context.Context) (remaining, error) {
	var set appsv1.DaemonSet
	err := o.Client.Get(ctx, o.DaemonSet, &set)
	if client.IgnoreNotFound(err) != nil {
		return remaining{}, fmt.Errorf("reading DaemonSet %s: %w", o.DaemonSet, err)
	}
	orphaned := apierrors.IsNotFound(err)
	if !orphaned {
		if err := o.mark(ctx, string(set.UID)); err != nil {
			return remaining{}, err
		}
	}
	left, err := o.remaining(ctx)
	left.orphaned = orphaned
	return left, err
}

// mark marks every DirectorPool.
func (o Options) mark(ctx context.Context, uid string) error {
	var pools v1alpha1.DirectorPoolList
	if err := o.list(ctx, &pools); err != nil {
		return fmt.Errorf("listing DirectorPools: %w", err)
	}
	for i := range pools.Items {
		pool := &pools.Items[i]
		if pool.Annotations[v1alpha1.AnnotationRemoval] == uid {
			continue
		}
		before := pool.DeepCopy()
		if pool.Annotations == nil {
			pool.Annotations = map[string]string{}
		}
		pool.Annotations[v1alpha1.AnnotationRemoval] = uid
		if err := o.Client.Patch(ctx, pool, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("marking DirectorPool %s: %w", pool.Name, err)
		}
		fmt.Fprintf(o.Progress, "DirectorPool %s is marked for removal.\n", pool.Name)
	}
	return nil
}

// remaining reads what is left.
func (o Options) remaining(ctx context.Context) (remaining, error) {
	var directors v1alpha1.DirectorList
	if err := o.list(ctx, &directors); err != nil {
		return remaining{}, fmt.Errorf("listing Directors: %w", err)
	}
	var nodes v1alpha1.RealServerNodeList
	if err := o.list(ctx, &nodes); err != nil {
		return remaining{}, fmt.Errorf("listing RealServerNodes: %w", err)
	}
	return remainingOf(directors.Items, nodes.Items), nil
}

// list lists a kind; of one that does not exist any more there is nothing.
func (o Options) list(ctx context.Context, into client.ObjectList) error {
	err := o.Client.List(ctx, into)
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// remaining is what is left of an installation.
type remaining struct {
	// directors and pods are the nodes that still have a director, or pods with
	// VIPs, in order.
	directors, pods []string
	// orphaned says that nobody is there to take it away.
	orphaned bool
}

func remainingOf(directors []v1alpha1.Director, nodes []v1alpha1.RealServerNode) remaining {
	var left remaining
	for _, director := range directors {
		left.directors = append(left.directors, director.Spec.NodeName)
	}
	for _, node := range nodes {
		if slices.ContainsFunc(node.Status.Pods, func(pod v1alpha1.PreparedPod) bool { return len(pod.Addresses) > 0 }) {
			left.pods = append(left.pods, node.Spec.NodeName)
		}
	}
	slices.Sort(left.directors)
	slices.Sort(left.pods)
	return left
}

func (r remaining) none() bool { return len(r.directors) == 0 && len(r.pods) == 0 }

// String says what is left, the directors first: pods wait for them.
func (r remaining) String() string {
	var parts []string
	if len(r.directors) > 0 {
		parts = append(parts, "directors are left on "+strings.Join(r.directors, ", "))
	}
	if len(r.pods) > 0 {
		parts = append(parts, "pods have VIPs on "+strings.Join(r.pods, ", "))
	}
	return strings.Join(parts, "; ")
}
