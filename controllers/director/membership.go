// Package director keeps a director in step with the cluster: which pool its
// node is in, which peers it has, and its own Director object.
package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// missingPoolGrace is how long a director goes on when its pool is gone: a
// mistaken `kubectl delete` that is undone within it costs nothing.
const missingPoolGrace = 30 * time.Second

// Member is the director whose membership is decided.
type Member interface {
	// Join makes the director serve the pool, with these settings from now on.
	Join(v1alpha1.DirectorPool)
	// Leave makes it stop serving and clean up its node. After an error it is to
	// be called again.
	Leave(ctx context.Context) error
	// PoolName is the pool that it is in, or empty.
	PoolName() string
	// Marked says that there is something to clean up on its node.
	Marked() bool
}

// Membership has a director join the pool whose nodeSelector matches its node:
// of several the oldest; of none, none.
type Membership struct {
	Reader client.Reader
	Node   string
	Member Member
	// Installation is this director's, for pools that are marked for removal.
	Installation Installation
	Now          func() time.Time

	// missingSince is when the pool was first found to be gone.
	missingSince time.Time
}

// SetupWithManager starts the membership controller with the manager.
func (m *Membership) SetupWithManager(mgr manager.Manager) error {
	me := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: m.Node}}}
	})
	return builder.ControllerManagedBy(mgr).
		Named("membership").
		Watches(&v1alpha1.DirectorPool{}, me, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&corev1.Node{}, me, builder.WithPredicates(predicate.LabelChangedPredicate{}, named(m.Node))).
		Complete(m)
}

// named lets through the events of one object.
func named(name string) predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool { return object.GetName() == name })
}

// Reconcile decides the membership anew.
func (m *Membership) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	pool, err := PoolOf(ctx, m.Reader, m.Node, m.Installation)
	if err != nil {
		return reconcile.Result{}, err
	}
	current := m.Member.PoolName()
	if pool == nil {
		return m.leave(ctx, current)
	}
	m.missingSince = time.Time{}
	if current != "" && current != pool.Name {
		if err := m.Member.Leave(ctx); err != nil {
			return reconcile.Result{}, fmt.Errorf("leaving pool %s for %s: %w", current, pool.Name, err)
		}
	}
	m.Member.Join(*pool)
	return reconcile.Result{}, nil
}

// leave leaves the pool: at once if it no longer selects the node, after a
// while if one of the two is gone, which may be a mistake. What an earlier
// process left of a pool whose name nobody knows any more stays for that while
// too.
func (m *Membership) leave(ctx context.Context, current string) (reconcile.Result, error) {
	missing, err := m.missing(ctx, current)
	if err != nil {
		return reconcile.Result{}, err
	}
	if missing && m.Member.Marked() {
		if m.missingSince.IsZero() {
			m.missingSince = m.Now()
		}
		if left := missingPoolGrace - m.Now().Sub(m.missingSince); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
	}
	if err := m.Member.Leave(ctx); err != nil {
		return reconcile.Result{}, fmt.Errorf("leaving pool %q: %w", current, err)
	}
	m.missingSince = time.Time{}
	return reconcile.Result{}, nil
}

// missing says whether the pool or the node is gone, or no pool is known.
func (m *Membership) missing(ctx context.Context, current string) (bool, error) {
	if current == "" {
		return true, nil
	}
	poolErr := m.Reader.Get(ctx, types.NamespacedName{Name: current}, &v1alpha1.DirectorPool{})
	nodeErr := m.Reader.Get(ctx, types.NamespacedName{Name: m.Node}, &corev1.Node{})
	if err := errors.Join(client.IgnoreNotFound(poolErr), client.IgnoreNotFound(nodeErr)); err != nil {
		return false, fmt.Errorf("reading DirectorPool %s and node %s: %w", current, m.Node, err)
	}
	return poolErr != nil || nodeErr != nil, nil
}

// PoolOf returns the DirectorPool that the node belongs to, or nil. A node that
// is gone belongs to none, and a pool that is marked for the removal of this
// installation has none.
func PoolOf(ctx context.Context, reader client.Reader, nodeName string, own Installation) (*v1alpha1.DirectorPool, error) {
	var node corev1.Node
	if err := reader.Get(ctx, types.NamespacedName{Name: nodeName}, &node); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading node %s: %w", nodeName, err)
	}
	var pools v1alpha1.DirectorPoolList
	if err := reader.List(ctx, &pools); err != nil {
		return nil, fmt.Errorf("listing DirectorPools: %w", err)
	}
	slices.SortFunc(pools.Items, func(a, b v1alpha1.DirectorPool) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var invalid error
	for i := range pools.Items {
		selector, err := metav1.LabelSelectorAsSelector(&pools.Items[i].Spec.NodeSelector)
		if err != nil {
			invalid = errors.Join(invalid, fmt.Errorf("reading the nodeSelector of DirectorPool %s: %w", pools.Items[i].Name, err))
			continue
		}
		if !selector.Matches(labels.Set(node.Labels)) {
			continue
		}
		removed, err := own.removed(ctx, &pools.Items[i])
		if err != nil {
			return nil, err
		}
		if !removed {
			return &pools.Items[i], nil
		}
	}
	return nil, invalid
}
