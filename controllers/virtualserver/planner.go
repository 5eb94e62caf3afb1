package virtualserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
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
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// Programmer is the director that carries plans out.
type Programmer interface {
	// Site returns what plans need to know of the node, as it is now.
	Site() Site
	// Program makes the plan of a key the one to bring about.
	Program(plan.Desired)
	// Remove says that no VirtualServer names the key any more; the director
	// makes sure of that before it takes it out of service.
	Remove(netstate.Key)
	// Served lists the keys that the director serves or has adopted.
	Served() []netstate.Key
	// Synced says that every key that the API knows of the pool has been handed
	// over by Program since the director joined it.
	Synced(pool string)
}

// Planner makes the plan of each VIP of the director's pool.
type Planner struct {
	// Reader is the cache; Live asks the API server at each call.
	Reader   client.Reader
	Live     client.Reader
	Director Programmer
	// Workloads are filled as plans need them. Without, what needs them waits.
	Workloads *Workloads
	// SiteChanged has an event whenever Site returns something new.
	SiteChanged <-chan event.TypedGenericEvent[netstate.Key]

	// watch adds a source of keys to the planner while it runs.
	watch func(source.TypedSource[netstate.Key]) error
}

// SetupWithManager starts the planner with the manager.
func (p *Planner) SetupWithManager(mgr manager.Manager) error {
	for name, index := range virtualServerIndexes() {
		if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.VirtualServer{}, name, index); err != nil {
			return fmt.Errorf("indexing VirtualServers by %s: %w", name, err)
		}
	}
	// The turn of the key of no VIP is that of all, and is repeated if it fails.
	everything := handler.TypedEnqueueRequestsFromMapFunc(func(context.Context, client.Object) []netstate.Key { return []netstate.Key{synced} })
	running, err := builder.TypedControllerManagedBy[netstate.Key](mgr).
		Named("plan").
		WithOptions(controller.TypedOptions[netstate.Key]{MaxConcurrentReconciles: 1}).
		Watches(&v1alpha1.VirtualServer{}, handler.TypedEnqueueRequestsFromMapFunc(p.touched), builder.WithPredicates(wantsChanged())).
		Watches(&v1alpha1.DirectorPool{}, everything, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Namespace{}, handler.TypedEnqueueRequestsFromMapFunc(p.inNamespace),
			builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&corev1.Node{}, everything, builder.WithPredicates(addressesChanged())).
		Watches(&corev1.Node{}, handler.TypedEnqueueRequestsFromMapFunc(p.onNode), builder.WithPredicates(stateChanged())).
		Watches(&v1alpha1.Director{}, everything, builder.WithPredicates(directorMoved())).
		WatchesRawSource(source.TypedChannel(p.SiteChanged, handler.TypedFuncs[netstate.Key, netstate.Key]{
			GenericFunc: func(_ context.Context, _ event.TypedGenericEvent[netstate.Key], queue workqueue.TypedRateLimitingInterface[netstate.Key]) {
				queue.Add(synced)
			},
		})).
		Build(p)
	if err != nil {
		return fmt.Errorf("making the planner: %w", err)
	}
	p.watch = running.Watch
	return nil
}

// synced is the key of no VIP. Its turn plans all keys, and says that they have
// been planned.
var synced = netstate.Key{}

// poolPatience is how soon all keys are planned again while there is no
// DirectorPool.
const poolPatience = time.Second

// Reconcile plans one key, or takes it out of service if nothing names it.
func (p *Planner) Reconcile(ctx context.Context, key netstate.Key) (reconcile.Result, error) {
	site := p.Director.Site()
	if site.Pool == "" {
		return reconcile.Result{}, nil
	}
	if key != synced {
		_, err := p.plan(ctx, site, key)
		return reconcile.Result{}, err
	}
	keys, err := p.all(ctx, site.Pool)
	if err != nil {
		return reconcile.Result{}, err
	}
	complete := true
	for _, key := range keys {
		done, err := p.plan(ctx, site, key)
		if err != nil {
			return reconcile.Result{}, err
		}
		if done == poolMissing {
			return reconcile.Result{RequeueAfter: poolPatience}, nil
		}
		complete = complete && done == planned
	}
	if complete {
		p.Director.Synced(site.Pool)
	}
	return reconcile.Result{}, nil
}

// progress is how far the planning of a key got.
type progress int

const (
	// planned: the director has the plan.
	planned progress = iota
	// waiting: what the plan depends on is not there yet. All keys are planned
	// when it is.
	waiting
	// poolMissing: there is no DirectorPool.
	poolMissing
)

// plan hands the plan of a key to the director. It does not while there is no
// DirectorPool (what is served stays for a while then, and the director's
// membership decides), nor while not all is known that the plan depends on.
func (p *Planner) plan(ctx context.Context, site Site, key netstate.Key) (progress, error) {
	s, lacking, err := snapshot(ctx, p.Reader, p.Workloads, site, site.Pool, key)
	switch {
	case err != nil:
		return waiting, err
	case s.Pool == nil:
		return poolMissing, nil
	case lacking != 0:
		return waiting, p.ask(lacking)
	}
	desired, rejections := plan.For(s)
	for _, rejection := range rejections {
		log.FromContext(ctx).V(1).Info("Refused", "virtualServer", rejection.VirtualServer, "reason", rejection.Reason)
	}
	if len(desired.State.Services) == 0 {
		p.Director.Remove(key)
	} else {
		p.Director.Program(desired)
	}
	return planned, nil
}

// ask begins to watch the kinds that nobody needed until now.
func (p *Planner) ask(needed kinds) error {
	for _, kind := range p.Workloads.ask(needed) {
		if err := p.watch(p.source(kind)); err != nil {
			return fmt.Errorf("watching what real servers are found by: %w", err)
		}
	}
	return nil
}

// all lists every key that the API knows of the pool, and every key that the
// director has.
func (p *Planner) all(ctx context.Context, pool string) ([]netstate.Key, error) {
	keys, err := Wanted(ctx, p.Reader, pool)
	if err != nil {
		return nil, err
	}
	for _, key := range p.Director.Served() {
		keys[key] = struct{}{}
	}
	return sortedKeys(keys), nil
}

// Wanted returns the keys that VirtualServers of the pool name, accepted or
// not.
func Wanted(ctx context.Context, reader client.Reader, pool string) (map[netstate.Key]struct{}, error) {
	naming, err := namersOf(ctx, reader, pool)
	if err != nil {
		return nil, err
	}
	keys := make(map[netstate.Key]struct{}, len(naming))
	for key := range naming {
		keys[key] = struct{}{}
	}
	return keys, nil
}

// namersOf returns the VirtualServers of the pool by the keys that they name.
func namersOf(ctx context.Context, reader client.Reader, pool string) (map[netstate.Key][]types.UID, error) {
	var list v1alpha1.VirtualServerList
	if err := reader.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing VirtualServers: %w", err)
	}
	naming := map[netstate.Key][]types.UID{}
	for i := range list.Items {
		if list.Items[i].Spec.DirectorPoolName != pool {
			continue
		}
		for _, key := range plan.Keys(&list.Items[i]) {
			naming[key] = append(naming[key], list.Items[i].UID)
		}
	}
	return naming, nil
}

// Confirm asks the API server itself, not the cache, which of the keys of the
// director's pool are named, and returns those of them that the plan serves. A
// key that is missing is rightly on its way out; an error says that nothing is
// known.
func (p *Planner) Confirm(ctx context.Context) (map[netstate.Key]struct{}, error) {
	site := p.Director.Site()
	if site.Pool == "" {
		return nil, errors.New("the director is in no DirectorPool, or does not know its node yet")
	}
	naming, err := namersOf(ctx, p.Live, site.Pool)
	if err != nil {
		return nil, err
	}
	wanted := map[netstate.Key]struct{}{}
	for key, namers := range naming {
		s, lacking, err := snapshot(ctx, p.Reader, p.Workloads, site, site.Pool, key)
		if err != nil {
			return nil, err
		}
		if s.Pool == nil {
			return nil, fmt.Errorf("there is no DirectorPool %s", site.Pool)
		}
		desired, _ := plan.For(s)
		if len(desired.State.Services) > 0 || lacking != 0 || !knowsAll(s.VirtualServers, namers) {
			wanted[key] = struct{}{}
		}
	}
	return wanted, nil
}

// knowsAll says whether a snapshot has all of the VirtualServers: the cache may
// be behind the API server, and then its plan is no reason to remove anything.
func knowsAll(servers []v1alpha1.VirtualServer, uids []types.UID) bool {
	for _, uid := range uids {
		if !slices.ContainsFunc(servers, func(vs v1alpha1.VirtualServer) bool { return vs.UID == uid }) {
			return false
		}
	}
	return true
}

// sortedKeys returns the keys in order.
func sortedKeys(keys map[netstate.Key]struct{}) []netstate.Key {
	return slices.SortedFunc(maps.Keys(keys), netstate.Key.Compare)
}
