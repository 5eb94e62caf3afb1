package director

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

const (
	// KeysSecret is the Secret in the operator's namespace that holds the keys of
	// gossip, of all pools. Directors may read no other, which is why it is one.
	KeysSecret = "lvs-gossip"
	// KeysEntry is the entry in it: one key of 32 bytes a line in base64, the newest
	// first.
	KeysEntry = "keys"
	// reasonKeysInvalid is the event's reason when the keys cannot be read.
	reasonKeysInvalid = "GossipKeysInvalid"
)

// Gossiping is who gossips.
type Gossiping interface {
	// SetGossipKeys hands over all keys, the newest first.
	SetGossipKeys(keys [][]byte)
}

// GossipKeys keeps a director's keys of gossip as the Secret has them. Whichever
// director comes first makes the Secret; from then on it is the administrator's,
// who edits it to exchange keys. What cannot be read changes nothing.
type GossipKeys struct {
	Client    client.Client
	Namespace string
	Director  Gossiping
	Events    events.EventRecorder
}

// KeysCache limits a cache of Secrets to the one that there is to read.
func KeysCache(namespace string) cache.ByObject {
	return cache.ByObject{
		Namespaces: map[string]cache.Config{
			namespace: {FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, KeysSecret)},
		},
		Transform: cache.TransformStripManagedFields(),
	}
}

// SetupWithManager starts the controller with the manager.
func (k *GossipKeys) SetupWithManager(mgr manager.Manager) error {
	name := types.NamespacedName{Namespace: k.Namespace, Name: KeysSecret}
	toIt := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: name}}
	})
	// Without a Secret there is no event of it: the pools are what there is in any
	// case, when keys are needed.
	return builder.ControllerManagedBy(mgr).
		Named("gossipkeys").
		Watches(&corev1.Secret{}, toIt, builder.WithPredicates(named(KeysSecret))).
		Watches(&v1alpha1.DirectorPool{}, toIt, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(k)
}

// Reconcile hands the keys over, and makes the Secret if there is none.
func (k *GossipKeys) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var secret corev1.Secret
	err := k.Client.Get(ctx, types.NamespacedName{Namespace: k.Namespace, Name: KeysSecret}, &secret)
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, k.create(ctx)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading Secret %s: %w", KeysSecret, err)
	}
	keys, err := keylist.Parse(secret.Data[KeysEntry])
	if err != nil {
		k.Events.Eventf(&secret, nil, corev1.EventTypeWarning, reasonKeysInvalid, "Read",
			"%s: %v; directors go on with the keys that they have", KeysEntry, err)
		// Another try helps only after an edit, which is an event.
		return reconcile.Result{}, reconcile.TerminalError(fmt.Errorf("reading %s of Secret %s: %w", KeysEntry, KeysSecret, err))
	}
	k.Director.SetGossipKeys(keys)
	return reconcile.Result{}, nil
}

// create makes the Secret. If another director was faster its Secret is an event.
func (k *GossipKeys) create(ctx context.Context) error {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: k.Namespace, Name: KeysSecret,
			Labels: map[string]string{"app.kubernetes.io/name": "lvs-operator", ComponentLabel: ComponentDirector},
		},
		Data: map[string][]byte{KeysEntry: keylist.Format([][]byte{keylist.NewKey()})},
	}
	if err := k.Client.Create(ctx, secret); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making Secret %s: %w", KeysSecret, err)
	}
	return nil
}
