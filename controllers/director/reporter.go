package director

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

const (
	// reportEvery bounds how often a Director is written.
	reportEvery = time.Second
	// reportAudit is how often it is looked at without any event.
	reportAudit = time.Minute
)

// Reported is the director that is reported.
type Reported interface {
	// PoolName is the pool that it is in, or empty.
	PoolName() string
	// Decided says that it is known which pool that is, or that it is none.
	Decided() bool
	// Marked says that there is something to clean up on its node.
	Marked() bool
	// Outcome returns how the director finds itself, but for the object and the
	// time.
	Outcome() conditions.DirectorOutcome
}

// Reporter makes the Director object of this node and keeps its status. It is
// that object's only writer.
type Reporter struct {
	Client   client.Client
	Node     string
	Director Reported
	// Changed has an event whenever Outcome returns something new.
	Changed <-chan event.TypedGenericEvent[netstate.Key]
	Events  events.EventRecorder
	Now     func() time.Time

	written time.Time
	// conflicts are those that people have been told of.
	conflicts []conditions.Conflict
	// told are the transitions of groups that events have been made of.
	told map[int32]v1alpha1.DirectorTransition
}

// SetupWithManager starts the reporter with the manager.
func (r *Reporter) SetupWithManager(mgr manager.Manager) error {
	toMe := func(context.Context) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: r.Node}}}
	}
	return builder.ControllerManagedBy(mgr).
		Named("director").
		For(&v1alpha1.Director{}, builder.WithPredicates(named(r.Node))).
		WatchesRawSource(source.TypedChannel(r.Changed, handler.TypedEnqueueRequestsFromMapFunc(
			func(ctx context.Context, _ netstate.Key) []reconcile.Request { return toMe(ctx) }))).
		Complete(r)
}

// Reconcile makes the object say what is.
func (r *Reporter) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if !r.Director.Decided() {
		// The object of an earlier process stays: peers go by it.
		return reconcile.Result{RequeueAfter: reportEvery}, nil
	}
	pool := r.Director.PoolName()
	var director v1alpha1.Director
	err := r.Client.Get(ctx, types.NamespacedName{Name: r.Node}, &director)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("reading Director %s: %w", r.Node, err)
	}
	found := err == nil
	if found && pool == "" && r.Director.Marked() {
		// Without the object nobody would know what is still to be cleaned up.
		return reconcile.Result{RequeueAfter: reportEvery}, nil
	}
	if found && director.Spec.DirectorPoolName != pool {
		// A director of another pool is another director: spec is immutable.
		if err := r.Client.Delete(ctx, &director); client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("deleting Director %s: %w", r.Node, err)
		}
		return reconcile.Result{RequeueAfter: reportEvery}, nil
	}
	if pool == "" {
		return reconcile.Result{}, nil
	}
	if !found {
		if err := r.create(ctx, pool, &director); err != nil {
			return reconcile.Result{}, err
		}
	}
	return r.report(ctx, &director)
}

// create makes the Director. It goes with its Node.
func (r *Reporter) create(ctx context.Context, pool string, director *v1alpha1.Director) error {
	var node corev1.Node
	if err := r.Client.Get(ctx, types.NamespacedName{Name: r.Node}, &node); err != nil {
		return fmt.Errorf("reading node %s: %w", r.Node, err)
	}
	*director = v1alpha1.Director{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.Node,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
			}},
		},
		Spec: v1alpha1.DirectorSpec{NodeName: r.Node, DirectorPoolName: pool},
	}
	if err := r.Client.Create(ctx, director); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making Director %s: %w", r.Node, err)
	}
	return nil
}

func (r *Reporter) report(ctx context.Context, director *v1alpha1.Director) (reconcile.Result, error) {
	outcome := r.Director.Outcome()
	if outcome.RolePending {
		// What was last said is true still, or another director becomes active.
		return reconcile.Result{RequeueAfter: reportEvery}, nil
	}
	outcome.Director, outcome.Now = director, r.Now()
	wanted := conditions.Director(outcome)
	if !conditions.DirectorDiffers(director, wanted) {
		return reconcile.Result{RequeueAfter: reportAudit}, nil
	}
	if left := reportEvery - r.Now().Sub(r.written); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	r.written = r.Now()
	apply, err := conditions.DirectorApply(director, wanted)
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(apply),
		client.FieldOwner(conditions.DirectorManager), client.ForceOwnership); err != nil {
		return reconcile.Result{}, fmt.Errorf("writing the status of Director %s: %w", r.Node, err)
	}
	r.tell(director, wanted)
	for _, e := range conditions.ConflictEvents(r.conflicts, outcome.Conflicts) {
		r.Events.Eventf(director, nil, string(e.Type), e.Reason, "Report", "%s", e.Message)
	}
	r.conflicts = outcome.Conflicts
	r.tellTransitions(director, outcome.Transitions)
	return reconcile.Result{RequeueAfter: reportAudit}, nil
}

// tell makes events of what changed.
func (r *Reporter) tell(director *v1alpha1.Director, wanted v1alpha1.DirectorStatus) {
	for _, condition := range wanted.Conditions {
		before := meta.FindStatusCondition(director.Status.Conditions, condition.Type)
		if before != nil && before.Status == condition.Status && before.Reason == condition.Reason {
			continue
		}
		if e := conditions.DirectorEvent(before, condition); e.Reason != "" {
			r.Events.Eventf(director, nil, string(e.Type), e.Reason, "Report", "%s", e.Message)
		}
	}
}

// tellTransitions makes events of changes of role: of each group the last one since
// it was told of before.
func (r *Reporter) tellTransitions(director *v1alpha1.Director, transitions map[int32]v1alpha1.DirectorTransition) {
	for _, group := range slices.Sorted(maps.Keys(transitions)) {
		last := transitions[group]
		if told, any := r.told[group]; any && told.Time.Equal(&last.Time) && told.Reason == last.Reason {
			continue
		}
		gap := ""
		if last.Gap != nil {
			gap = fmt.Sprintf(", after %s without a holder of the Lease", last.Gap.Duration)
		}
		r.Events.Eventf(director, nil, corev1.EventTypeNormal, "RoleChanged", "Elect", "%s%s", last.Reason, gap)
	}
	r.told = maps.Clone(transitions)
}
