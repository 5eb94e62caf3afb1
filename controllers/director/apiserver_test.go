//go:build envtest

package director

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
	"github.com/lvs-operator/lvs-operator/test/apiserver"
)

const operatorNamespace = "lvs-operator-system"

// keyed hands on the keys that it gets.
type keyed chan [][]byte

func (k keyed) SetGossipKeys(keys [][]byte) { k <- keys }

func (k keyed) await(t *testing.T) [][]byte {
	t.Helper()
	select {
	case keys := <-k:
		return keys
	case <-time.After(30 * time.Second):
		t.Fatal("no keys came")
		return nil
	}
}

// TestKeysTakeNoMoreThanADirectorsRights runs the controller with the rights of
// config/rbac and no others, against an API server that enforces them.
func TestKeysTakeNoMoreThanADirectorsRights(t *testing.T) {
	server := apiserver.New(t)
	admin, scheme, all := server.Config, server.Scheme, server.Client
	other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "other"}}
	for _, object := range append(rights(t), other) {
		if err := all.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	own := rest.CopyConfig(admin)
	own.Impersonate.UserName = "system:serviceaccount:" + operatorNamespace + ":lvs-operator-director"
	restricted, err := client.New(own, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := restricted.Get(t.Context(), client.ObjectKeyFromObject(other), other); !apierrors.IsForbidden(err) {
		t.Errorf("reading another Secret: %v, want that it is forbidden", err)
	}
	if err := restricted.Delete(t.Context(), other); !apierrors.IsForbidden(err) {
		t.Errorf("deleting another Secret: %v, want that it is forbidden", err)
	}

	arrive := keyed(make(chan [][]byte, 16))
	run(t, own, scheme, arrive)
	// The Secret is made once there is something to gossip about.
	if err := all.Create(t.Context(), makePool("default", 0, map[string]string{"director": "true"})); err != nil {
		t.Fatal(err)
	}
	first := arrive.await(t)
	secret := &corev1.Secret{}
	if err := all.Get(t.Context(), types.NamespacedName{Namespace: operatorNamespace, Name: KeysSecret}, secret); err != nil {
		t.Fatal(err)
	}
	want := [][]byte{keylist.NewKey(), first[0]}
	secret.Data[KeysEntry] = keylist.Format(want)
	if err := all.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	for keys := first; !cmp.Equal(keys, want); {
		keys = arrive.await(t)
	}
	// One that is deleted by mistake is made anew.
	if err := all.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	for keys := want; cmp.Equal(keys, want); {
		keys = arrive.await(t)
	}
}

// run runs the controller until the test ends.
func run(t *testing.T, config *rest.Config, scheme *runtime.Scheme, director Gossiping) {
	t.Helper()
	mgr, err := manager.New(config, manager.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Secret{}: KeysCache(operatorNamespace)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := &GossipKeys{Client: mgr.GetClient(), Namespace: operatorNamespace, Director: director, Events: events.NewFakeRecorder(100)}
	if err := keys.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := mgr.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { end(); running.Wait() })
}

// rights are the operator's namespace, and what a director may do.
func rights(t *testing.T) []client.Object {
	t.Helper()
	objects := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}}}
	for _, file := range []string{"role.yaml", "role_binding.yaml"} {
		text, err := os.ReadFile("../../config/rbac/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var kind metav1.TypeMeta
			if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
				t.Fatal(err)
			}
			object := map[string]client.Object{
				"ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
				"Role":        &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace}},
				"RoleBinding": &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace}},
			}[kind.Kind]
			if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			objects = append(objects, object)
		}
	}
	return objects
}
