package uninstall

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

var setName = types.NamespacedName{Namespace: "lvs", Name: "lvs-operator-director"}

func daemonSet() *appsv1.DaemonSet {
	return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: setName.Namespace, Name: setName.Name, UID: "set"}}
}

func pool(name, mark string) *v1alpha1.DirectorPool {
	p := &v1alpha1.DirectorPool{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"a": "b"}}}
	if mark != "" {
		p.Annotations[v1alpha1.AnnotationRemoval] = mark
	}
	return p
}

func left(node string) *v1alpha1.Director {
	return &v1alpha1.Director{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: v1alpha1.DirectorSpec{NodeName: node, DirectorPoolName: "one"}}
}

func realServerNode(node string, vips ...string) *v1alpha1.RealServerNode {
	return &v1alpha1.RealServerNode{
		ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: v1alpha1.RealServerNodeSpec{NodeName: node},
		Status: v1alpha1.RealServerNodeStatus{Pods: []v1alpha1.PreparedPod{{UID: "x", Addresses: vips}}},
	}
}

// cluster is a fake API server.
func cluster(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func marks(t *testing.T, api client.Client) string {
	t.Helper()
	var pools v1alpha1.DirectorPoolList
	if err := api.List(context.Background(), &pools); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range pools.Items {
		if p.Annotations["a"] != "b" {
			t.Errorf("DirectorPool %s lost an annotation", p.Name)
		}
		all = append(all, p.Name+"="+p.Annotations[v1alpha1.AnnotationRemoval])
	}
	return strings.Join(all, " ")
}

func TestUninstallMarksPoolsAndWaitsForDirectorsAndThenForPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := cluster(t, daemonSet(), pool("one", ""), pool("two", "earlier"), left("lb-1"), left("lb-2"), realServerNode("w-1", "192.0.2.1"), realServerNode("w-2"))
		var said strings.Builder
		ended := make(chan error, 1)
		go func() {
			ended <- Run(t.Context(), Options{Client: api, DaemonSet: setName, Timeout: 5 * time.Minute, Progress: &said})
		}()
		steps := []struct {
			change func() error
			want   string
		}{
			{func() error { return nil }, "directors are left on lb-1, lb-2; pods have VIPs on w-1"},
			{func() error { return api.Create(t.Context(), pool("late", "")) }, "DirectorPool late is marked for removal."},
			{func() error {
				return errors.Join(api.Delete(t.Context(), left("lb-1")), api.Delete(t.Context(), left("lb-2")))
			}, "\npods have VIPs on w-1\n"},
			{func() error { return api.Delete(t.Context(), realServerNode("w-1")) }, "All nodes are as they were found."},
		}
		for i, step := range steps {
			synctest.Wait()
			select {
			case err := <-ended:
				t.Fatalf("step %d: ended early: %v", i, err)
			default:
			}
			if err := step.change(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * lookEvery)
			synctest.Wait()
			if !strings.Contains(said.String(), step.want) {
				t.Errorf("step %d: said\n%s\nwithout %q", i, said.String(), step.want)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got, want := marks(t, api), "late=set one=set two=set"; got != want {
			t.Errorf("marks are %q, want %q", got, want)
		}
		if got := strings.Count(said.String(), "directors are left"); got != 1 {
			t.Errorf("said %d times what had not changed:\n%s", got, said.String())
		}
	})
}

func TestUninstallNamesWhatIsLeft(t *testing.T) {
	for name, tc := range map[string]struct {
		objects []client.Object
		broken  error
		want    []string
		after   time.Duration
	}{
		"a node that is down": {
			objects: []client.Object{daemonSet(), pool("one", ""), left("lb-2")},
			want:    []string{"5m0s", "lb-2", "--no-hooks", "lvs-operator.io/removal-"}, after: 5 * time.Minute,
		},
		"pods of a node that is down": {
			objects: []client.Object{daemonSet(), realServerNode("w-1", "192.0.2.1")},
			want:    []string{"pods have VIPs on w-1"}, after: 5 * time.Minute,
		},
		"nobody who could clean up": {
			objects: []client.Object{pool("one", ""), left("lb-1")},
			want:    []string{"lvs/lvs-operator-director is not there", "lb-1", "director cleanup"},
		},
		"an API server that refuses": {
			objects: []client.Object{daemonSet()}, broken: errors.New("forbidden"),
			want: []string{"forbidden"}, after: 5 * time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := interceptor.NewClient(cluster(t, tc.objects...), interceptor.Funcs{
					List: func(ctx context.Context, c client.WithWatch, into client.ObjectList, options ...client.ListOption) error {
						if tc.broken != nil {
							return tc.broken
						}
						return c.List(ctx, into, options...)
					},
				})
				begun := time.Now()
				var said strings.Builder
				err := Run(t.Context(), Options{Client: api, DaemonSet: setName, Timeout: 5 * time.Minute, Progress: &said})
				if !errors.Is(err, ErrLeft) || time.Since(begun) != tc.after {
					t.Fatalf("%v after %s, want ErrLeft after %s", err, time.Since(begun), tc.after)
				}
				for _, want := range tc.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q does not say %q", err, want)
					}
				}
			})
		})
	}
}

func TestUninstallOfNothingIsDone(t *testing.T) {
	var said strings.Builder
	if err := Run(t.Context(), Options{Client: cluster(t, pool("one", "")), DaemonSet: setName, Timeout: time.Minute, Progress: &said}); err != nil {
		t.Error(err)
	}
}

func TestUninstallIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var said strings.Builder
	err := Run(ctx, Options{Client: cluster(t, daemonSet(), left("lb-1")), DaemonSet: setName, Timeout: time.Minute, Progress: &said})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}
