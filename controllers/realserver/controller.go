package realserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

const (
	// gather is how long events are gathered before they are worked on, so that a
	// burst of them costs one pass.
	gather = 50 * time.Millisecond
	// audit is how often everything is looked at without any event.
	audit = time.Minute
	// settling is how long after a start the agent may take to look at what an
	// earlier process left. What that reported stays so long.
	settling = 10 * time.Second
	// firstRetry and lastRetry bound the time between two tries when the API
	// server refuses or is away.
	firstRetry, lastRetry = 100 * time.Millisecond, 10 * time.Second
)

// Controller tells the agent of one node what its pods are to have, and the API
// what they have. It is the only writer of the node's RealServerNode and of the
// readiness gate of the node's pods. There is one request for all: a node has
// few pods, and what is told of one depends on the others.
type Controller struct {
	// Client reads from the cache that CacheOptions are for. Live asks the API
	// server at each call.
	Client client.Client
	Live   client.Reader
	Node   string
	Agent  Agent
	// Prepare is plan.Preparations.
	Prepare func(plan.Snapshot) map[types.UID][]netip.Addr
	// Reserved are addresses that no VIP may be, and what they are, besides those of
	// nodes and directors.
	Reserved map[netip.Addr]string
	// Changed has an event whenever Agent.Reports returns something new.
	Changed <-chan event.GenericEvent
	Events  events.EventRecorder
	Now     func() time.Time
	// HandedOver is called each time that the agent has been told what is wanted,
	// by caches that have synced.
	HandedOver func()

	// last is what the agent was told to want, for the first time when it started;
	// nil before it was.
	last    wants
	started time.Time
	doubt   doubt
	// watchEndpoints starts the watch of EndpointSlices; nil once that is done.
	watchEndpoints func() error
}

// SetupWithManager starts the controller with the manager.
func (c *Controller) SetupWithManager(mgr manager.Manager) error {
	all := gathered(reconcile.Request{NamespacedName: types.NamespacedName{Name: c.Node}})
	running, err := builder.ControllerManagedBy(mgr).
		Named("realserver").
		WithOptions(controller.Options{
			MaxConcurrentReconciles: 1,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		}).
		Watches(&corev1.Pod{}, all, builder.WithPredicates(changed(func(pod *corev1.Pod) any { return versionless(pod.DeepCopy()) }))).
		Watches(&v1alpha1.VirtualServer{}, all, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.DirectorPool{}, all, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&corev1.Namespace{}, all, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&corev1.Node{}, all, builder.WithPredicates(changed(func(node *corev1.Node) any { return node.Status.Addresses }))).
		Watches(&v1alpha1.Director{}, all, builder.WithPredicates(changed(func(d *v1alpha1.Director) any { return [2]string{d.Status.Address, d.Status.IPv6Address} }))).
		Watches(&v1alpha1.RealServerNode{}, all).
		WatchesRawSource(source.Channel(c.Changed, all)).
		Build(c)
	if err != nil {
		return fmt.Errorf("making the controller: %w", err)
	}
	// Most clusters have very many EndpointSlices, and none that concerns us.
	c.watchEndpoints = func() error {
		return running.Watch(source.Kind[client.Object](mgr.GetCache(), &discoveryv1.EndpointSlice{}, all,
			changed(func(slice *discoveryv1.EndpointSlice) any { return versionless(slice.DeepCopy()) })))
	}
	return nil
}

// gathered enqueues one request for all events, a moment after the first.
func gathered(request reconcile.Request) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc:  func(_ context.Context, _ event.CreateEvent, q queue) { q.AddAfter(request, gather) },
		UpdateFunc:  func(_ context.Context, _ event.UpdateEvent, q queue) { q.AddAfter(request, gather) },
		DeleteFunc:  func(_ context.Context, _ event.DeleteEvent, q queue) { q.AddAfter(request, gather) },
		GenericFunc: func(_ context.Context, _ event.GenericEvent, q queue) { q.AddAfter(request, gather) },
	}
}

// changed lets through updates that change a part of an object.
func changed[T client.Object](part func(T) any) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(T)
		after, okAfter := e.ObjectNew.(T)
		return !ok || !okAfter || !equality.Semantic.DeepEqual(part(before), part(after))
	}}
}

// versionless returns an object without what changes whenever anything does, be
// it in a part that the cache does not keep.
func versionless(object client.Object) client.Object {
	object.SetResourceVersion("")
	object.SetGeneration(0)
	return object
}

// Reconcile tells the agent what is wanted, then the API what there is. That the
// API server does not take the one keeps nobody from the other.
func (c *Controller) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	w, err := c.world(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	next := wantsOf(w, c.Prepare)
	found, unknown := c.found()
	again, err := c.handOver(ctx, next, found, unknown)
	told := c.report(ctx, found, unknown)
	if told == nil {
		// Directors know of a pod by the report: it is there before the pod is ready.
		told = c.setGates(ctx, w, next, found)
	}
	if err := errors.Join(err, told); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: soonest(soonest(audit, again), c.started.Add(settling).Sub(c.Now()))}, nil
}

func soonest(a, b time.Duration) time.Duration {
	if b > 0 && b < a {
		return b
	}
	return a
}

// world reads the caches. That of EndpointSlices is begun with the first
// VirtualServer that needs it.
func (c *Controller) world(ctx context.Context) (*world, error) {
	if c.watchEndpoints != nil {
		var servers v1alpha1.VirtualServerList
		if err := list(ctx, c.Client, &servers); err != nil {
			return nil, fmt.Errorf("listing VirtualServers: %w", err)
		}
		for i := range servers.Items {
			if servers.Items[i].Spec.ServiceName == "" {
				continue
			}
			if err := c.watchEndpoints(); err != nil {
				return nil, fmt.Errorf("watching EndpointSlices: %w", err)
			}
			c.watchEndpoints = nil
			break
		}
	}
	return readWorld(ctx, c.Client, c.Reserved)
}

// handOver tells the agent what is wanted, and returns how soon to look again.
func (c *Controller) handOver(ctx context.Context, next wants, found map[types.UID]Report, unknown error) (again time.Duration, err error) {
	last := c.last
	if unknown == nil {
		last = last.thatHave(found)
	}
	waiting := !c.doubt.since.IsZero()
	give, again, err := c.doubt.judge(ctx, c.Now(), last, next, c.look)
	if losers, of := losing(last, next); !waiting && !c.doubt.since.IsZero() && 2*losers > of {
		log.FromContext(ctx).Info("Holding back the removal of VIPs from pods", "pods", losers, "of", of)
	}
	if c.last == nil || !reflect.DeepEqual(give.pods(), c.last.pods()) {
		c.Agent.Want(give.pods())
	}
	if c.last == nil {
		c.started = c.Now()
	}
	c.last = give
	if c.HandedOver != nil {
		c.HandedOver()
	}
	if err != nil {
		return again, fmt.Errorf("asking the API server before VIPs are taken off pods: %w", err)
	}
	return again, nil
}

// look decides anew by what the API server itself says.
func (c *Controller) look(ctx context.Context) (wants, error) {
	w, err := readWorld(ctx, c.Live, c.Reserved, client.MatchingFields{"spec.nodeName": c.Node})
	if err != nil {
		return nil, err
	}
	return wantsOf(w, c.Prepare), nil
}

// found returns the agent's reports by pod; with an error they may be old.
func (c *Controller) found() (map[types.UID]Report, error) {
	reports, err := c.Agent.Reports()
	found := make(map[types.UID]Report, len(reports))
	for _, report := range reports {
		found[report.UID] = report
	}
	return found, err
}
