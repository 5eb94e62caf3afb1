package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	directorcontroller "github.com/lvs-operator/lvs-operator/controllers/director"
)

var errStuck = errors.New("device or resource busy")

// ending is a director that ends, and what it is told to do.
type ending struct {
	decided bool
	pool    string
	err     error
	cleaned int
}

func (e *ending) Decided() bool    { return e.decided }
func (e *ending) PoolName() string { return e.pool }
func (e *ending) Cleanup(context.Context) error {
	e.cleaned++
	return e.err
}

// TestLeaveForGood is about lb-1, which has a Director object.
func TestLeaveForGood(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	object := metav1.ObjectMeta{Name: "lb-1", Labels: map[string]string{"role": "lb"}}
	node := &corev1.Node{ObjectMeta: object}
	selecting := func(role string) *v1alpha1.DirectorPool {
		pool := &v1alpha1.DirectorPool{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		pool.Spec.NodeSelector = metav1.LabelSelector{MatchLabels: map[string]string{"role": role}}
		return pool
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "lvs", Name: "director-x", UID: "pod", OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", UID: "set", Controller: new(true)}},
	}}
	marked := func(mark string) *v1alpha1.DirectorPool {
		pool := selecting("lb")
		pool.Annotations = map[string]string{v1alpha1.AnnotationRemoval: mark}
		return pool
	}
	joined := ending{decided: true, pool: "default"}
	for name, tc := range map[string]struct {
		director ending
		objects  []client.Object
		// silent is an API server that answers no question; nothing is said of
		// what is to be deleted.
		silent  bool
		asks    bool
		cleans  bool
		takes   time.Duration
		wantErr error
	}{
		"it was leaving, and asks no more":             {director: ending{decided: true}, objects: []client.Object{node, selecting("lb")}, cleans: true},
		"it was leaving, and the API server is silent": {director: ending{decided: true}, silent: true, cleans: true},
		"its node is in the pool":                      {director: joined, objects: []client.Object{node, selecting("lb")}, asks: true},
		"no pool selects its node":                     {director: joined, objects: []client.Object{node, selecting("web")}, asks: true, cleans: true},
		"its pool is being removed":                    {director: joined, objects: []client.Object{node, pod, marked("set")}, asks: true, cleans: true},
		"another installation was removed":             {director: joined, objects: []client.Object{node, pod, marked("earlier")}, asks: true},
		"there is no pool":                             {director: joined, objects: []client.Object{node}, asks: true, cleans: true},
		"its node is gone":                             {director: joined, objects: []client.Object{selecting("lb")}, asks: true, cleans: true},
		"the API server is silent":                     {director: joined, silent: true, asks: true, takes: time.Second},
		"it ends before it knows, in the pool":         {objects: []client.Object{node, selecting("lb")}, asks: true},
		"it ends before it knows, and nobody tells":    {silent: true, asks: true, takes: time.Second},
		"what cannot be cleaned up keeps its Director": {director: ending{decided: true, err: errStuck}, cleans: true, wantErr: errStuck},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := false
				answer := func(ctx context.Context) error {
					if asked = true; tc.silent {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				own := &v1alpha1.Director{ObjectMeta: metav1.ObjectMeta{Name: "lb-1"}}
				store := fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(tc.objects, own)...).Build()
				live := interceptor.NewClient(store, interceptor.Funcs{
					Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
						if err := answer(ctx); err != nil {
							return err
						}
						return c.Get(ctx, key, into, options...)
					},
					List: func(ctx context.Context, c client.WithWatch, into client.ObjectList, options ...client.ListOption) error {
						if err := answer(ctx); err != nil {
							return err
						}
						return c.List(ctx, into, options...)
					},
				})
				begun, director := time.Now(), tc.director
				err := leaveForGood(t.Context(), &director, live, "lb-1", directorcontroller.Installation{Reader: live, Namespace: "lvs", PodUID: "pod"}, slog.New(slog.DiscardHandler))
				if !errors.Is(err, tc.wantErr) || asked != tc.asks || (director.cleaned == 1) != tc.cleans || time.Since(begun) != tc.takes {
					t.Errorf("err = %v, asked %t, cleaned up %d times, took %s", err, asked, director.cleaned, time.Since(begun))
				}
				err = store.Get(t.Context(), client.ObjectKeyFromObject(own), own)
				if gone := apierrors.IsNotFound(err); gone != (tc.cleans && tc.wantErr == nil) {
					t.Errorf("the Director is gone: %t (%v)", gone, err)
				}
			})
		})
	}
}
