package director

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
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
)

// ComponentLabel and ComponentDirector mark the pods of directors.
const (
	ComponentLabel    = "app.kubernetes.io/component"
	ComponentDirector = "director"
)

// Peer is another live director of the pool.
type Peer struct {
	Node    string
	Address netip.Addr
	MAC     string
	// Candidate says that it could become active, KernelAnswers that its kernel
	// answers for the VIPs.
	Candidate, KernelAnswers bool
}

// Befriended is told of its peers.
type Befriended interface {
	// PoolName is the pool that it is in, or empty.
	PoolName() string
	// SetPeers tells all peers, in order of their nodes.
	SetPeers([]Peer)
}

// Peers tells a director which other directors of its pool could take over: a
// Director object that says so, whose Node and pod are Ready.
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
		Watches(&corev1.Node{}, me, builder.WithPredicates(readinessChanged())).
		Watches(&corev1.Pod{}, me).
		Complete(p)
}

// Reconcile looks for peers.
func (p *Peers) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	pool := p.Director.PoolName()
	if pool == "" {
		// Nobody has peers yet, and that is not to be taken for being alone.
		return reconcile.Result{RequeueAfter: time.Second}, nil
	}
	var directors v1alpha1.DirectorList
	if err := p.Reader.List(ctx, &directors); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Directors: %w", err)
	}
	var pods corev1.PodList
	if err := p.Reader.List(ctx, &pods, client.MatchingLabels{ComponentLabel: ComponentDirector}); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing the pods of directors: %w", err)
	}
	var peers []Peer
	for i := range directors.Items {
		director := &directors.Items[i]
		if director.Spec.DirectorPoolName != pool || director.Name == p.Node {
			continue
		}
		live, err := p.live(ctx, director, pods.Items)
		if err != nil {
			return reconcile.Result{}, err
		}
		if live {
			peers = append(peers, peerOf(director))
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	p.Director.SetPeers(peers)
	return reconcile.Result{}, nil
}

// live says whether a director could serve as far as the API knows.
func (p *Peers) live(ctx context.Context, director *v1alpha1.Director, pods []corev1.Pod) (bool, error) {
	if !meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionReady) {
		return false, nil
	}
	var node corev1.Node
	if err := p.Reader.Get(ctx, types.NamespacedName{Name: director.Name}, &node); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return false, nil
		}
		return false, fmt.Errorf("reading node %s: %w", director.Name, err)
	}
	if !nodeReady(&node) {
		return false, nil
	}
	for i := range pods {
		if pods[i].Spec.NodeName == director.Name && pods[i].DeletionTimestamp.IsZero() && podReady(&pods[i]) {
			return true, nil
		}
	}
	return false, nil
}

func peerOf(director *v1alpha1.Director) Peer {
	// An address that cannot be read is none: the peer is one nevertheless.
	addr, _ := netip.ParseAddr(director.Status.Address)
	return Peer{
		Node:          director.Name,
		Address:       addr,
		MAC:           director.Status.MAC,
		Candidate:     meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionCandidate),
		KernelAnswers: meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionKernelAnswers),
	}
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
