package director

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
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

// settleTime is what a director that lost its group has to say so itself, before
// its successor says that it was superseded. It writes its status once a second.
const settleTime = 1500 * time.Millisecond

// silentTime is how long gossip's word that a director died counts. The API server
// knows of a machine that failed after 40 s; one that is well and that only gossip
// cannot reach is alive again after it.
const silentTime = time.Minute

// Serving says what a director serves.
type Serving interface {
	// PoolName is the pool that it is in, or empty.
	PoolName() string
	// Term is the epoch in which a group's Lease is its own, and since when; 0 if the
	// Lease is not, or not known to be.
	Term(group int32) (epoch int64, since time.Time)
	// Holdings say who holds the Leases of the pool's groups, in order.
	Holdings() []Holding
	// Died is when gossip saw the director of a node die; zero if it has not, or if it
	// is there again.
	Died(node string) time.Time
}

// Holding is who holds the Lease of a group, as far as a director knows.
type Holding struct {
	// Node that the Lease names, empty if it names none, and the Lease's epoch.
	Node  string
	Epoch int64
	// Since is when the director first saw that.
	Since time.Time
}

// Alive writes, while the Lease of group 0 is its director's, the condition Alive
// of all directors of the pool.
type Alive struct {
	Client   client.Client
	Node     string
	Director Serving
	// Changed has an event whenever Term, Holdings or Died return something new.
	Changed <-chan event.TypedGenericEvent[netstate.Key]
	Now     func() time.Time
}

// SetupWithManager starts the controller with the manager.
func (a *Alive) SetupWithManager(mgr manager.Manager) error {
	once := []reconcile.Request{{}}
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return once })
	return builder.ControllerManagedBy(mgr).
		Named("alive").
		Watches(&v1alpha1.Director{}, all).
		Watches(&corev1.Node{}, all, builder.WithPredicates(standingChanged())).
		Watches(&corev1.Pod{}, all).
		WatchesRawSource(source.TypedChannel(a.Changed, handler.TypedEnqueueRequestsFromMapFunc(
			func(context.Context, netstate.Key) []reconcile.Request { return once }))).
		Complete(a)
}

// Reconcile writes what changed.
func (a *Alive) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	pool := a.Director.PoolName()
	if epoch, _ := a.Director.Term(0); pool == "" || epoch == 0 {
		return reconcile.Result{}, nil
	}
	holdings := a.Director.Holdings()
	var directors v1alpha1.DirectorList
	if err := a.Client.List(ctx, &directors); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Directors: %w", err)
	}
	var pods corev1.PodList
	if err := a.Client.List(ctx, &pods, client.MatchingLabels{ComponentLabel: ComponentDirector}); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing the pods of directors: %w", err)
	}
	var nodes corev1.NodeList
	if err := a.Client.List(ctx, &nodes); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Nodes: %w", err)
	}
	seen := view{nodes: nodes.Items, pods: pods.Items}
	var result reconcile.Result
	for i := range directors.Items {
		director := &directors.Items[i]
		if director.Spec.DirectorPoolName != pool {
			continue
		}
		reason, message := "", ""
		if director.Name != a.Node {
			superseded, left := superseded(director, holdings, a.Now())
			silent, lasts := silent(director.Name, a.Director.Died(director.Name), holdings, a.Now())
			result.RequeueAfter = sooner(result.RequeueAfter, sooner(left, lasts))
			reason, message = seen.notAlive(director.Name, superseded, silent)
		}
		if err := a.write(ctx, director, reason, message); err != nil {
			return reconcile.Result{}, err
		}
	}
	return result, nil
}

// superseded says whether a director shows that it is active for a group that
// another one has held for a while, or, if not yet, how long it still has to say that
// it is active no more. Of its successor's term it may show that, while it hands over.
func superseded(director *v1alpha1.Director, holdings []Holding, now time.Time) (yes bool, left time.Duration) {
	for _, claim := range director.Status.Groups {
		if int(claim.Group) >= len(holdings) {
			continue
		}
		held := holdings[claim.Group]
		if held.Node == "" || held.Node == director.Name || claim.Epoch > held.Epoch {
			continue
		}
		wait := settleTime - now.Sub(held.Since)
		if wait <= 0 {
			return true, 0
		}
		if left == 0 || wait < left {
			left = wait
		}
	}
	return false, left
}

// silent says whether a director that gossip saw die at that time counts as dead, and
// for how long it still does. One that holds a Lease does not: somebody renews it, or
// it is about to be taken over.
func silent(node string, died time.Time, holdings []Holding, now time.Time) (yes bool, lasts time.Duration) {
	lasts = silentTime - now.Sub(died)
	holds := slices.ContainsFunc(holdings, func(h Holding) bool { return h.Node == node })
	if died.IsZero() || holds || lasts <= 0 {
		return false, 0
	}
	return true, lasts
}

// sooner returns the lesser of two times of which 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

// notAlive returns why the director of a node is not alive, nothing if it is.
func (v view) notAlive(name string, superseded, silent bool) (reason, message string) {
	node := v.node(name)
	switch {
	case node == nil:
		return v1alpha1.ReasonNodeNotReady, "the node is gone"
	case !nodeReady(node):
		return v1alpha1.ReasonNodeNotReady, "the node is not ready"
	case !v.podReady(name):
		return v1alpha1.ReasonPodNotReady, "no director's pod is ready on the node"
	case superseded:
		return v1alpha1.ReasonSuperseded, "another director has taken over, and this one still shows that it is active"
	case silent:
		return v1alpha1.ReasonSilent, "the other directors hear nothing of it any more"
	default:
		return "", ""
	}
}

func (a *Alive) write(ctx context.Context, director *v1alpha1.Director, reason, message string) error {
	wanted := conditions.Alive(director, reason, message, a.Now())
	have := meta.FindStatusCondition(director.Status.Conditions, wanted.Type)
	if have != nil && have.Status == wanted.Status && have.Reason == wanted.Reason && have.Message == wanted.Message {
		return nil
	}
	apply, err := conditions.AliveApply(director, wanted)
	if err != nil {
		return err
	}
	if err := a.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(apply),
		client.FieldOwner(conditions.AliveManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("writing whether Director %s is alive: %w", director.Name, err)
	}
	return nil
}
