package virtualserver

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// Observed is the director whose work is reported.
type Observed interface {
	Site() Site
	// Group returns the group of the director's pool that a VIP is in.
	Group(netip.Addr) int32
	// Active says that this director is the active one of a group.
	Active(group int32) bool
	// Term returns the epoch in which a group's Lease is this director's, and since
	// when; 0 if it is not known to be.
	Term(group int32) (epoch int64, since time.Time)
	// Address returns what became of a VIP here, but for its plan.
	Address(netip.Addr) conditions.Address
	// Plan returns the plan of a VIP that the director carries out; false if it
	// serves it by none.
	Plan(netip.Addr) (plan.Desired, bool)
	// Report returns what is known of a probe.
	Report(health.Probe) health.Report
}

const (
	// urgentEvery bounds how often changes of state are written, calmlyEvery all
	// others.
	urgentEvery = time.Second
	calmlyEvery = 10 * time.Second
	// underWayLook is how soon a VirtualServer is looked at again whose plan is
	// being carried out.
	underWayLook = 100 * time.Millisecond
)

// Reporter writes the status of the VirtualServers that the director is active
// for: the addresses of its groups, and all else of those whose first address is in
// one. Nothing decides from that status.
type Reporter struct {
	Client   client.Client
	Director Observed
	// Changed has an event for each VIP whose outcome changed, and one of the
	// zero Key when a group moved.
	Changed <-chan event.TypedGenericEvent[netstate.Key]
	// Workloads are those of the planner.
	Workloads *Workloads
	Events    events.EventRecorder
	Now       func() time.Time

	mu      sync.Mutex
	written map[types.NamespacedName]time.Time
	// told are the terms, by groups, in which each VirtualServer was last written.
	told map[types.NamespacedName]map[int32]int64
}

// SetupWithManager starts the reporter with the manager.
func (r *Reporter) SetupWithManager(mgr manager.Manager) error {
	r.written, r.told = map[types.NamespacedName]time.Time{}, map[types.NamespacedName]map[int32]int64{}
	return builder.ControllerManagedBy(mgr).
		Named("status").
		For(&v1alpha1.VirtualServer{}).
		Watches(&v1alpha1.DirectorPool{}, handler.EnqueueRequestsFromMapFunc(r.ofPool),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.TypedChannel(r.Changed, handler.TypedFuncs[netstate.Key, reconcile.Request]{
			GenericFunc: func(ctx context.Context, e event.TypedGenericEvent[netstate.Key], queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
				for _, request := range r.naming(ctx, e.Object) {
					queue.Add(request)
				}
			},
		})).
		Complete(r)
}

// naming lists the VirtualServers that name a key, or, for the zero Key, all.
func (r *Reporter) naming(ctx context.Context, key netstate.Key) []reconcile.Request {
	var options []client.ListOption
	if key != (netstate.Key{}) {
		options = append(options, client.MatchingFields{AddressIndex: key.Addr.String()})
	}
	return r.list(ctx, func(*v1alpha1.VirtualServer) bool { return true }, options...)
}

func (r *Reporter) ofPool(ctx context.Context, pool client.Object) []reconcile.Request {
	return r.list(ctx, func(vs *v1alpha1.VirtualServer) bool { return vs.Spec.DirectorPoolName == pool.GetName() })
}

func (r *Reporter) list(ctx context.Context, match func(*v1alpha1.VirtualServer) bool, options ...client.ListOption) []reconcile.Request {
	var all v1alpha1.VirtualServerList
	if err := r.Client.List(ctx, &all, options...); err != nil {
		log.FromContext(ctx).Error(err, "Listing the VirtualServers to report")
		return nil
	}
	var requests []reconcile.Request
	for i := range all.Items {
		if match(&all.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
		}
	}
	return requests
}

// Reconcile writes the status of one VirtualServer if this director is to.
func (r *Reporter) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var vs v1alpha1.VirtualServer
	if err := r.Client.Get(ctx, request.NamespacedName, &vs); err != nil {
		r.forget(request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	mine, err := r.mine(ctx, &vs)
	if err != nil || len(mine.terms) == 0 {
		return reconcile.Result{}, err
	}
	outcome, lacking, err := r.outcome(ctx, &vs)
	if err != nil {
		return reconcile.Result{}, err
	}
	if lacking != 0 {
		// What is not planned yet is not reported yet either.
		return reconcile.Result{RequeueAfter: urgentEvery}, nil
	}
	if len(vs.Status.Conditions) > 0 && r.underWay(outcome) {
		return reconcile.Result{RequeueAfter: underWayLook}, nil
	}
	wanted := conditions.VirtualServer(outcome)
	first := !r.toldIn(request.NamespacedName, mine.terms)
	if !first && !mine.differ(&vs, wanted) {
		return reconcile.Result{}, nil
	}
	if left := r.early(request.NamespacedName, first || conditions.Urgent(vs.Status, wanted)); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if err := r.write(ctx, &vs, mine, wanted, first); err != nil {
		return reconcile.Result{}, err
	}
	r.tell(request.NamespacedName, mine.terms)
	if !mine.report {
		return reconcile.Result{}, nil
	}
	for _, e := range conditions.Events(vs.Status, wanted) {
		r.Events.Eventf(&vs, nil, string(e.Type), e.Reason, "Report", "%s", e.Message)
	}
	return reconcile.Result{}, nil
}

// underWay says whether what the director does for a VirtualServer is of an
// older plan, or not done yet. That takes a moment, and to report it would make
// each edit a change of state, and what was done for one generation look as if
// it had been done for the next.
func (r *Reporter) underWay(outcome conditions.Outcome) bool {
	for vip, address := range outcome.Addresses {
		if len(address.Desired.State.Services) == 0 {
			continue
		}
		carriedOut, serves := r.Director.Plan(vip)
		if !serves || len(netstate.Diff(carriedOut.State, address.Desired.State)) > 0 ||
			!address.Programmed && address.Failure == (conditions.Failure{}) {
			return true
		}
	}
	return false
}

// part is what a director reports of a VirtualServer.
type part struct {
	// terms are those of the groups whose addresses it writes; it writes all else if
	// report is true.
	terms  map[int32]int64
	report bool
}

// mine says what this director reports of the VirtualServer: it is active for some
// of its groups, by their Leases, or, if there is no such pool, its own is the first
// pool there is.
func (r *Reporter) mine(ctx context.Context, vs *v1alpha1.VirtualServer) (part, error) {
	mine, groups := part{terms: map[int32]int64{}}, map[int32]bool{}
	for _, text := range vs.Spec.Addresses {
		// What is no address is reported too, with group 0.
		addr, _ := netip.ParseAddr(string(text))
		group := r.Director.Group(addr)
		// Who hands over goes on announcing for a moment, and has no term any more: it
		// would write over what its successor has written, which may not see that soon.
		if term, _ := r.Director.Term(group); term != 0 && r.Director.Active(group) {
			mine.terms[group] = term
			mine.report = mine.report || len(groups) == 0
		}
		groups[group] = true
	}
	for _, address := range vs.Status.Addresses {
		if mine.report && !groups[address.Group] {
			// Of a pool of the same name that had other groups: nobody else takes it away.
			mine.terms[address.Group] = 0
		}
	}
	if len(mine.terms) == 0 {
		return part{}, nil
	}
	if ours, err := r.ours(ctx, vs); err != nil || !ours {
		return part{}, err
	}
	return mine, nil
}

// differ says whether there is something to write.
func (p part) differ(vs *v1alpha1.VirtualServer, wanted v1alpha1.VirtualServerStatus) bool {
	if p.report && conditions.ReportDiffers(vs, wanted) {
		return true
	}
	for group := range p.terms {
		if conditions.AddressesDiffer(vs, group, wanted) {
			return true
		}
	}
	return false
}

// ours says whether the VirtualServer is for directors of this one's pool to report.
func (r *Reporter) ours(ctx context.Context, vs *v1alpha1.VirtualServer) (bool, error) {
	site := r.Director.Site()
	if site.Pool == "" {
		return false, nil
	}
	if vs.Spec.DirectorPoolName == site.Pool {
		return true, nil
	}
	var pools v1alpha1.DirectorPoolList
	if err := r.Client.List(ctx, &pools); err != nil {
		return false, fmt.Errorf("listing DirectorPools: %w", err)
	}
	first := site.Pool
	for _, pool := range pools.Items {
		if pool.Name == vs.Spec.DirectorPoolName {
			return false, nil
		}
		first = min(first, pool.Name)
	}
	return first == site.Pool, nil
}

// outcome gathers what became of a VirtualServer. While something is lacking that
// its plan depends on, nothing can be said of it.
func (r *Reporter) outcome(ctx context.Context, vs *v1alpha1.VirtualServer) (outcome conditions.Outcome, lacking kinds, err error) {
	outcome = conditions.Outcome{
		VirtualServer: vs,
		Addresses:     map[netip.Addr]conditions.Address{},
		Report:        r.Director.Report,
		Now:           r.Now(),
	}
	for _, key := range plan.Keys(vs) {
		s, lacking, err := snapshot(ctx, r.Client, r.Workloads, r.Director.Site(), vs.Spec.DirectorPoolName, key)
		if err != nil || lacking != 0 {
			return outcome, lacking, err
		}
		desired, rejections := plan.For(s)
		for i := range rejections {
			if rejections[i].VirtualServer == client.ObjectKeyFromObject(vs) {
				outcome.Rejection = &rejections[i]
			}
		}
		address := r.Director.Address(key.Addr)
		address.Desired = desired
		outcome.Addresses[key.Addr] = address
	}
	return outcome, 0, nil
}

// early returns how long a write has to wait so that a VirtualServer that
// changes all the time costs a bounded number of writes.
func (r *Reporter) early(name types.NamespacedName, urgent bool) time.Duration {
	every := calmlyEvery
	if urgent {
		every = urgentEvery
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	if left := every - now.Sub(r.written[name]); left > 0 {
		return left
	}
	r.written[name] = now
	return 0
}

func (r *Reporter) forget(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, name)
	delete(r.told, name)
}

// toldIn says whether a VirtualServer was written in these terms. In a new one all
// are, whatever the cache shows: it may be behind, as for up to a minute after the
// API server was away, and show what this director itself wrote before another was
// active. A write that changes nothing costs the API server little.
func (r *Reporter) toldIn(name types.NamespacedName, terms map[int32]int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Equal(r.told[name], terms)
}

func (r *Reporter) tell(name types.NamespacedName, terms map[int32]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told[name] = terms
}

// write applies of the director's part what differs, or all, as the field managers
// that successors share.
func (r *Reporter) write(ctx context.Context, vs *v1alpha1.VirtualServer, mine part, wanted v1alpha1.VirtualServerStatus, all bool) error {
	if mine.report && (all || conditions.ReportDiffers(vs, wanted)) {
		apply, err := conditions.ReporterApply(vs, wanted)
		if err := r.apply(ctx, apply, err, conditions.ReporterManager); err != nil {
			return err
		}
	}
	for _, group := range slices.Sorted(maps.Keys(mine.terms)) {
		if !all && !conditions.AddressesDiffer(vs, group, wanted) {
			continue
		}
		apply, err := conditions.AddressesApply(vs, group, wanted)
		if err := r.apply(ctx, apply, err, conditions.AddressesManager(vs.Spec.DirectorPoolName, group)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reporter) apply(ctx context.Context, object *unstructured.Unstructured, err error, manager string) error {
	if err != nil {
		return err
	}
	// One that is gone needs no status.
	if err := r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(object),
		client.FieldOwner(manager), client.ForceOwnership); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the status of VirtualServer %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	return nil
}
