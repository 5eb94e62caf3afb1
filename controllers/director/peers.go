package director

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// ComponentLabel and ComponentDirector mark the pods of directors.
const (
	ComponentLabel    = "app.kubernetes.io/component"
	ComponentDirector = "director"
)

// Peer is another director of the pool.
type Peer struct {
	Node string
	// Address and IPv6Address are the node's own on its announcement interface.
	Address, IPv6Address netip.Addr
	// SyncAddress is the one from which it sends its connections, if it does.
	SyncAddress netip.Addr
	MAC         string
	// Live says that its Node and pod are ready, and that it says that it can
	// serve.
	Live bool
	// Candidate says that it could become active, KernelAnswers that its kernel
	// answers for the VIPs.
	Candidate, KernelAnswers bool
	// Impaired says that its kernel refuses some of the VIPs.
	Impaired bool
	// Cold says that it may not know all connections of the others yet.
	Cold bool
	Rank Rank
}

// Rank is what a node counts for in the election.
type Rank struct {
	Priority int32
	// Cordoned says that it is to be emptied.
	Cordoned bool
}

// Befriended is told of its peers.
type Befriended interface {
	// PoolName is the pool that it is in, or empty.
	PoolName() string
	// SetPeers tells what its own node counts for and all peers, in order of
	// their nodes.
	SetPeers(own Rank, peers []Peer)
}

// Peers tells a director which other directors its pool has. One is live whose
// Director object says that it can serve and whose Node and pod are Ready.
type Peers struct {
	Reader   client.Reader
	Node     string
	Director Befriended
}

// SetupWithManager starts the controller with the manager.
func (p *Peers) SetupWithManager(mgr manager.Manager) error {
	me := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: p.Node}}}
	})
	return builder.ControllerManagedBy(mgr).
		Named("peers").
		Watches(&v1alpha1.Director{}, me).
		Watches(&corev1.Node{}, me, builder.WithPredicates(standingChanged())).
		Watches(&corev1.Pod{}, me).
		Watches(&v1alpha1.DirectorPool{}, me, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(p)
}

// standingChanged lets through what changes whether nodes are ready, and what
// they count for.
func standingChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*corev1.Node)
		after, okAfter := e.ObjectNew.(*corev1.Node)
		return !ok || !okAfter || nodeReady(before) != nodeReady(after) ||
			cordoned(before) != cordoned(after) || !maps.Equal(before.Labels, after.Labels)
	}}
}

// Reconcile looks for peers.
func (p *Peers) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	name := p.Director.PoolName()
	if name == "" {
		// Nobody has peers yet, and that is not to be taken for being alone.
		return reconcile.Result{RequeueAfter: time.Second}, nil
	}
	var pool v1alpha1.DirectorPool
	if err := p.Reader.Get(ctx, types.NamespacedName{Name: name}, &pool); err != nil {
		// Without its pool a director leaves; until then its peers stay.
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var directors v1alpha1.DirectorList
	if err := p.Reader.List(ctx, &directors); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Directors: %w", err)
	}
	var pods corev1.PodList
	if err := p.Reader.List(ctx, &pods, client.MatchingLabels{ComponentLabel: ComponentDirector}); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing the pods of directors: %w", err)
	}
	var nodes corev1.NodeList
	if err := p.Reader.List(ctx, &nodes); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Nodes: %w", err)
	}
	own, peers := view{pool.Spec.Election.Priorities, nodes.Items, pods.Items}.peers(p.Node, name, directors.Items)
	p.Director.SetPeers(own, peers)
	return reconcile.Result{}, nil
}

// view is what is known of a cluster's nodes and directors' pods.
type view struct {
	priorities []v1alpha1.NodePriority
	nodes      []corev1.Node
	pods       []corev1.Pod
}

// peers returns what the node self counts for, and the other directors of the
// pool.
func (v view) peers(self, pool string, directors []v1alpha1.Director) (own Rank, peers []Peer) {
	if node := v.node(self); node != nil {
		own = v.rank(node)
	}
	for i := range directors {
		director := &directors[i]
		if director.Spec.DirectorPoolName != pool || director.Name == self {
			continue
		}
		peer := peerOf(director)
		if node := v.node(director.Name); node != nil {
			peer.Rank = v.rank(node)
			peer.Live = nodeReady(node) && v.podReady(director.Name) &&
				meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionReady)
		}
		peers = append(peers, peer)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	return own, peers
}

func (v view) node(name string) *corev1.Node {
	i := slices.IndexFunc(v.nodes, func(n corev1.Node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return &v.nodes[i]
}

// rank returns what a node counts for. A selector that cannot be read selects
// nothing.
func (v view) rank(node *corev1.Node) Rank {
	rank := Rank{Cordoned: cordoned(node)}
	for _, entry := range v.priorities {
		selector, err := metav1.LabelSelectorAsSelector(&entry.NodeSelector)
		if err == nil && selector.Matches(labels.Set(node.Labels)) {
			if entry.Priority != nil {
				rank.Priority = *entry.Priority
			}
			break
		}
	}
	return rank
}

// podReady says whether a director's pod on the node is.
func (v view) podReady(node string) bool {
	return slices.ContainsFunc(v.pods, func(pod corev1.Pod) bool {
		return pod.Spec.NodeName == node && pod.DeletionTimestamp.IsZero() && podReady(&pod)
	})
}

func peerOf(director *v1alpha1.Director) Peer {
	// An address that cannot be read is none: the peer is one nevertheless.
	addr, _ := netip.ParseAddr(director.Status.Address)
	addr6, _ := netip.ParseAddr(director.Status.IPv6Address)
	syncAddr, _ := netip.ParseAddr(director.Status.SyncAddress)
	return Peer{
		Node:          director.Name,
		SyncAddress:   syncAddr,
		Address:       addr,
		IPv6Address:   addr6,
		MAC:           director.Status.MAC,
		Candidate:     meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionCandidate),
		Impaired:      meta.IsStatusConditionFalse(director.Status.Conditions, v1alpha1.ConditionFullyProgrammed),
		KernelAnswers: meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionKernelAnswers),
		Cold:          cold(director),
	}
}

// cold says whether a director may not know all connections of the others yet. One
// that does not listen at all is not waited for.
func cold(director *v1alpha1.Director) bool {
	synced := meta.FindStatusCondition(director.Status.Conditions, v1alpha1.ConditionConnectionsSynced)
	return synced != nil && (synced.Reason == v1alpha1.ReasonCold || synced.Reason == v1alpha1.ReasonStarting)
}

// autoscalerTaint marks a node that the cluster autoscaler is about to remove.
const autoscalerTaint = "ToBeDeletedByClusterAutoscaler"

// cordoned says whether a node is to be emptied. The taints that Kubernetes gives
// a node that it cannot reach say nothing of the kind.
func cordoned(node *corev1.Node) bool {
	if node.Spec.Unschedulable {
		return true
	}
	return slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		switch taint.Key {
		case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable:
			return false
		case autoscalerTaint:
			return true
		default:
			return taint.Effect == corev1.TaintEffectNoExecute
		}
	})
}

func nodeReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func podReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
