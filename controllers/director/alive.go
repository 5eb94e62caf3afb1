package director

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
)

// activeLook is how often a standby looks whether it is active by now, and the
// active director whether what it wrote is still there.
const activeLook = 5 * time.Second

// Serving says what a director serves.
type Serving interface {
	// PoolName is the pool that it is in, or empty.
	PoolName() string
	// Active says whether it announces the pool's VIPs.
	Active() bool
}

// Alive writes, while its director is the active one, the condition Alive of all
// directors of the pool.
type Alive struct {
	Client   client.Client
	Director Serving
	Now      func() time.Time
}

// SetupWithManager starts the controller with the manager.
func (a *Alive) SetupWithManager(mgr manager.Manager) error {
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{}}
	})
	return builder.ControllerManagedBy(mgr).
		Named("alive").
		Watches(&v1alpha1.Director{}, all).
		Watches(&corev1.Node{}, all, builder.WithPredicates(standingChanged())).
		Watches(&corev1.Pod{}, all).
		Complete(a)
}

// Reconcile writes what changed.
func (a *Alive) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	pool := a.Director.PoolName()
	if pool == "" || !a.Director.Active() {
		return reconcile.Result{RequeueAfter: activeLook}, nil
	}
	var directors v1alpha1.DirectorList
	if err := a.Client.List(ctx, &directors); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Directors: %w", err)
	}
	var pods corev1.PodList
	if err := a.Client.List(ctx, &pods, client.MatchingLabels{ComponentLabel: ComponentDirector}); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing the pods of directors: %w", err)
	}
	for i := range directors.Items {
		if directors.Items[i].Spec.DirectorPoolName != pool {
			continue
		}
		if err := a.write(ctx, &directors.Items[i], view{pods: pods.Items}); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: activeLook}, nil
}

func (a *Alive) write(ctx context.Context, director *v1alpha1.Director, pods view) error {
	reason, message := "", ""
	var node corev1.Node
	err := a.Client.Get(ctx, types.NamespacedName{Name: director.Name}, &node)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("reading node %s: %w", director.Name, err)
	case err != nil:
		reason, message = v1alpha1.ReasonNodeNotReady, "the node is gone"
	case !nodeReady(&node):
		reason, message = v1alpha1.ReasonNodeNotReady, "the node is not ready"
	case !pods.podReady(director.Name):
		reason, message = v1alpha1.ReasonPodNotReady, "no director's pod is ready on the node"
	}
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
