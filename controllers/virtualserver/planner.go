package virtualserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
	// SiteChanged has an event whenever Site returns something new.
	SiteChanged <-chan event.TypedGenericEvent[netstate.Key]
}

// SetupWithManager starts the planner with the manager.
func (p *Planner) SetupWithManager(mgr manager.Manager) error {
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.VirtualServer{}, AddressIndex, indexAddresses); err != nil {
		return fmt.Errorf("indexing VirtualServers by address: %w", err)
	}
	// The turn of the key of no VIP is that of all, and is repeated if it fails.
	everything := handler.TypedEnqueueRequestsFromMapFunc(func(context.Context, client.Object) []netstate.Key { return []netstate.Key{synced} })
	return builder.TypedControllerManagedBy[netstate.Key](mgr).
		Named("plan").
		WithOptions(controller.TypedOptions[netstate.Key]{MaxConcurrentReconciles: 1}).
		Watches(&v1alpha1.VirtualServer{}, handler.TypedEnqueueRequestsFromMapFunc(p.touched),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.DirectorPool{}, everything, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Namespace{}, handler.TypedEnqueueRequestsFromMapFunc(p.inNamespace),
			builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&corev1.Node{}, everything, builder.WithPredicates(addressesChanged())).
		Watches(&v1alpha1.Director{}, everything, builder.WithPredicates(directorMoved())).
		WatchesRawSource(source.TypedChannel(p.SiteChanged, handler.TypedFuncs[netstate.Key, netstate.Key]{
			GenericFunc: func(_ context.Context, _ event.TypedGenericEvent[netstate.Key], queue workqueue.TypedRateLimitingInterface[netstate.Key]) {
				queue.Add(synced)
			},
		})).
		Complete(p)
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
	for _, key := range keys {
		planned, err := p.plan(ctx, site, key)
		if err != nil {
			return reconcile.Result{}, err
		}
		if !planned {
			return reconcile.Result{RequeueAfter: poolPatience}, nil
		}
	}
	p.Director.Synced(site.Pool)
	return reconcile.Result{}, nil
}

// plan hands the plan of a key to the director. It does not while there is no
// DirectorPool: what is served stays for a while then, and the director's
// membership decides.
func (p *Planner) plan(ctx context.Context, site Site, key netstate.Key) (planned bool, err error) {
	s, err := snapshot(ctx, p.Reader, site, site.Pool, key)
	if err != nil || s.Pool == nil {
		return false, err
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
	return true, nil
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
		s, err := snapshot(ctx, p.Reader, site, site.Pool, key)
		if err != nil {
			return nil, err
		}
		if s.Pool == nil {
			return nil, fmt.Errorf("there is no DirectorPool %s", site.Pool)
		}
		desired, _ := plan.For(s)
		if len(desired.State.Services) > 0 || !knowsAll(s.VirtualServers, namers) {
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

// touched maps a VirtualServer to every key whose plan may depend on it: its
// own, and those of whoever shares an address with it, and so on.
func (p *Planner) touched(ctx context.Context, object client.Object) []netstate.Key {
	vs, ok := object.(*v1alpha1.VirtualServer)
	if !ok || vs.Spec.DirectorPoolName != p.Director.Site().Pool {
		return nil
	}
	keys := map[netstate.Key]struct{}{}
	for _, key := range plan.Keys(vs) {
		if _, seen := keys[key]; seen {
			continue
		}
		keys[key] = struct{}{}
		neighbors, err := component(ctx, p.Reader, vs.Spec.DirectorPoolName, key)
		if err != nil {
			log.FromContext(ctx).Error(err, "Finding the VirtualServers that share an address", "virtualServer", client.ObjectKeyFromObject(vs))
			continue
		}
		for i := range neighbors {
			for _, other := range plan.Keys(&neighbors[i]) {
				keys[other] = struct{}{}
			}
		}
	}
	return sortedKeys(keys)
}

func (p *Planner) inNamespace(ctx context.Context, object client.Object) []netstate.Key {
	var list v1alpha1.VirtualServerList
	if err := p.Reader.List(ctx, &list, client.InNamespace(object.GetName())); err != nil {
		log.FromContext(ctx).Error(err, "Listing the VirtualServers of a namespace", "namespace", object.GetName())
		return nil
	}
	keys := map[netstate.Key]struct{}{}
	for i := range list.Items {
		for _, key := range p.touched(ctx, &list.Items[i]) {
			keys[key] = struct{}{}
		}
	}
	return sortedKeys(keys)
}

// addressesChanged lets through what changes the addresses that nodes have.
func addressesChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*corev1.Node)
		after, okAfter := e.ObjectNew.(*corev1.Node)
		return !ok || !okAfter || !equality.Semantic.DeepEqual(before.Status.Addresses, after.Status.Addresses)
	}}
}

// directorMoved lets through what changes which addresses are directors'.
func directorMoved() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.Director)
		after, okAfter := e.ObjectNew.(*v1alpha1.Director)
		return !ok || !okAfter || before.Status.Address != after.Status.Address
	}}
}

// sortedKeys returns the keys in order.
func sortedKeys(keys map[netstate.Key]struct{}) []netstate.Key {
	return slices.SortedFunc(maps.Keys(keys), netstate.Key.Compare)
}
