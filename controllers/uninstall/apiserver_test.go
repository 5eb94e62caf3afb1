//go:build envtest

package uninstall

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/controllers/director"
	"github.com/lvs-operator/lvs-operator/test/apiserver"
)

const namespace = "lvs-operator-system"

// leaving is a director that cleans up, and whose agent does. Joined is closed
// when it joins a pool.
type leaving struct {
	api    client.Client
	joined chan struct{}
	pool   string
}

func (l *leaving) Join(pool v1alpha1.DirectorPool) {
	l.pool = pool.Name
	close(l.joined)
}
func (l *leaving) PoolName() string { return l.pool }
func (l *leaving) Marked() bool     { return l.pool != "" }
func (l *leaving) Leave(ctx context.Context) error {
	if l.pool == "" {
		return nil
	}
	l.pool = ""
	node := realServerNode("w-1")
	if err := l.api.Get(ctx, client.ObjectKeyFromObject(node), node); err != nil {
		return err
	}
	node.Status.Pods = nil
	return errors.Join(l.api.Status().Update(ctx, node), l.api.Delete(ctx, left("lb-1")))
}

// TestUninstallMayDoWhatItDoes runs it with the rights of its Job, beside a
// director's membership.
func TestUninstallMayDoWhatItDoes(t *testing.T) {
	apiServer := apiserver.New(t)
	admin, scheme, api := apiServer.Config, apiServer.Scheme, apiServer.Client
	log.SetLogger(logr.Discard())
	pod := furnish(t, api)
	member := &leaving{api: api, joined: make(chan struct{})}
	membership(t, admin, scheme, &director.Membership{Node: "lb-1", Member: member, Now: time.Now}, pod)
	select {
	case <-member.joined:
	case <-time.After(time.Minute):
		t.Fatal("the director joins no pool")
	}
	job, err := client.New(asJob(admin), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	err = Run(t.Context(), Options{
		Client: job, DaemonSet: client.ObjectKey{Namespace: namespace, Name: setName.Name}, Timeout: time.Minute, Progress: &said,
	})
	if err != nil {
		t.Fatalf("%v, after\n%s", err, said.String())
	}
	t.Log(said.String())
}

// furnish makes a cluster with a director and a real server, and returns the
// director's pod.
func furnish(t *testing.T, api client.Client) *corev1.Pod {
	t.Helper()
	text, err := os.ReadFile("../../config/uninstall/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "director"}
	template := corev1.PodSpec{Containers: []corev1.Container{{Name: "director", Image: "director"}}}
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: setName.Name}}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	set.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template}
	selecting := pool("one", "")
	selecting.Spec.NodeSelector.MatchLabels = map[string]string{"role": "lb"}
	objects := append([]client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "lb-1", Labels: map[string]string{"role": "lb"}}},
		set, selecting, left("lb-1"),
	}, documents(t, text)...)
	for _, object := range objects {
		if object.GetNamespace() == "" {
			object.SetNamespace(namespace)
		}
		if err := api.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	node := realServerNode("w-1", "192.0.2.1")
	status := node.Status
	if err := api.Create(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	node.Status = status
	if err := api.Status().Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "director-x", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: "DaemonSet", Name: set.Name, UID: set.UID, Controller: new(true)},
	}}, Spec: template}
	if err := api.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func documents(t *testing.T, text []byte) []client.Object {
	t.Helper()
	var all []client.Object
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
}

// asJob returns the configuration of a client that may do what the Job may.
func asJob(admin *rest.Config) *rest.Config {
	c := rest.CopyConfig(admin)
	c.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":lvs-operator-uninstall",
		Groups:   []string{"system:authenticated", "system:serviceaccounts"},
	}
	return c
}

// membership runs a director's membership until the test ends.
func membership(t *testing.T, admin *rest.Config, scheme *runtime.Scheme, m *director.Membership, pod *corev1.Pod) {
	t.Helper()
	mgr, err := manager.New(admin, manager.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Reader = mgr.GetClient()
	m.Installation = director.Installation{Reader: mgr.GetClient(), Namespace: namespace, PodUID: pod.UID}
	if err := m.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	apiserver.Run(t, mgr)
}
