//go:build envtest

package realserver

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/plan"
	"github.com/lvs-operator/lvs-operator/test/apiserver"
)

// apiServer is the one that the tests share.
var apiServer *apiserver.Server

func TestMain(m *testing.M) { apiserver.Main(m, func(s *apiserver.Server) { apiServer = s }) }

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		status := object.DeepCopyObject().(client.Object)
		object.SetUID("")
		if err := apiServer.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			now := int64(0)
			err := apiServer.Client.Delete(context.WithoutCancel(t.Context()), object, &client.DeleteOptions{GracePeriodSeconds: &now})
			if client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		})
		if pod, ok := status.(*corev1.Pod); ok {
			object.(*corev1.Pod).Status = pod.Status
			if err := apiServer.Client.Status().Update(t.Context(), object); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// eventually waits until check finds nothing missing.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	end := time.After(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-end:
			t.Fatal(err)
		case <-ticker.C:
		}
	}
}

// asAgent returns the configuration of a client that may do what an agent may and
// no more.
func asAgent(t *testing.T) *rest.Config {
	t.Helper()
	for _, file := range []string{"realserver_role.yaml", "realserver_role_binding.yaml"} {
		text, err := os.ReadFile("../../config/rbac/" + file)
		if err != nil {
			t.Fatal(err)
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &object.Object); err != nil {
			t.Fatal(err)
		}
		create(t, object)
	}
	config := rest.CopyConfig(apiServer.Config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:lvs-operator-system:lvs-operator-realserver",
		Groups:   []string{"system:authenticated", "system:serviceaccounts"},
	}
	return config
}

// start runs a controller of node-a with an agent that obeys.
func start(t *testing.T) *obedient {
	t.Helper()
	skipNames := true
	mgr, err := manager.New(asAgent(t), manager.Options{
		Scheme: apiServer.Scheme, Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &skipNames},
		Cache:      cache.Options{ByObject: CacheOptions("node-a")},
	})
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan event.GenericEvent, 1)
	agent := &obedient{ignored: map[types.UID]bool{}, changed: func() {
		select {
		case changed <- event.GenericEvent{Object: &v1alpha1.RealServerNode{}}:
		default:
		}
	}}
	c := &Controller{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Node: "node-a", Agent: agent, Prepare: plan.Preparations, Changed: changed,
		Events: events.NewFakeRecorder(100), Now: time.Now,
	}
	if err := c.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	apiserver.Run(t, mgr)
	return agent
}

func gateIs(t *testing.T, name, want string) func() error {
	return func() error {
		var pod corev1.Pod
		if err := apiServer.Client.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: name}, &pod); err != nil {
			return err
		}
		got := ""
		if condition := gate(&pod); condition != nil {
			got = string(condition.Status) + " " + condition.Reason
		}
		if got != want {
			return fmt.Errorf("the gate of %s is %q, want %q", name, got, want)
		}
		return nil
	}
}

func TestAgainstAnAPIServer(t *testing.T) {
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	if err := apiServer.Client.Create(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	create(t,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}},
		pool(),
	)
	elsewhere := pod("elsewhere", "web")
	elsewhere.Spec.NodeName = "node-b"
	web, db := pod("web", "web"), pod("db", "db")
	// The kubelet's own conditions stay what they are.
	web.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ReadinessGatesNotReady", LastTransitionTime: metav1.Now()}}
	create(t, web, db, elsewhere, selecting("first", "web", "192.0.2.1"))
	agent := start(t)

	t.Run("the gate of a pod that is not ready opens", func(t *testing.T) {
		eventually(t, gateIs(t, "web", "True Prepared"))
		eventually(t, gateIs(t, "db", "True NotSelected"))
		eventually(t, gateIs(t, "elsewhere", ""))
		var pod corev1.Pod
		if err := apiServer.Client.Get(t.Context(), client.ObjectKeyFromObject(web), &pod); err != nil {
			t.Fatal(err)
		}
		if len(pod.Status.Conditions) != 2 || len(pod.Status.PodIPs) != 1 {
			t.Errorf("status %+v", pod.Status)
		}
		if !slices.ContainsFunc(pod.ManagedFields, func(f metav1.ManagedFieldsEntry) bool {
			return f.Manager == conditions.RealServerNodeManager && f.Subresource == "status" && f.Operation == metav1.ManagedFieldsOperationApply
		}) {
			t.Errorf("managed fields %v", pod.ManagedFields)
		}
	})

	t.Run("the node says so, and goes with its Node", func(t *testing.T) {
		eventually(t, func() error { return says(t, web.UID, "192.0.2.1") })
	})

	t.Run("the endpoints of a Service", func(t *testing.T) {
		api := pod("api", "api")
		vs, service := naming("second", "api", "api", "192.0.2.2")
		create(t, vs, service, api)
		eventually(t, gateIs(t, "api", "False NotPrepared"))
		create(t, endpoints("api", api))
		eventually(t, gateIs(t, "api", "True Prepared"))
		eventually(t, func() error { return says(t, api.UID, "192.0.2.2") })
	})

	t.Run("another pod of the same name is not touched", func(t *testing.T) {
		old := db.DeepCopy()
		old.UID = "uid-of-another"
		c := &Controller{Client: apiServer.Client, Now: time.Now}
		if err := c.write(t.Context(), old, nil, corev1.PodCondition{Type: v1alpha1.PodConditionRealServerReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}); err == nil {
			t.Error("it was written without an error")
		}
		if err := gateIs(t, "db", "True NotSelected")(); err != nil {
			t.Error(err)
		}
		old.Name = "gone"
		if err := c.write(t.Context(), old, nil, corev1.PodCondition{Type: v1alpha1.PodConditionRealServerReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}); err != nil {
			t.Error(err)
		}
	})

	t.Run("what is not wanted any more is taken back", func(t *testing.T) {
		if err := apiServer.Client.Delete(t.Context(), selecting("first", "")); err != nil && !strings.Contains(err.Error(), "not found") {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if got := agent.has(web.UID); got != nil {
				return fmt.Errorf("the pod is to have %v", got)
			}
			return nil
		})
	})
}

// says looks whether the node's object lists a VIP of a pod, and who made it.
func says(t *testing.T, uid types.UID, vip string) error {
	var node v1alpha1.RealServerNode
	if err := apiServer.Client.Get(t.Context(), types.NamespacedName{Name: "node-a"}, &node); err != nil {
		return err
	}
	if len(node.OwnerReferences) != 1 || node.OwnerReferences[0].Kind != "Node" {
		return fmt.Errorf("owners %v", node.OwnerReferences)
	}
	if condition := meta.FindStatusCondition(node.Status.Conditions, "Ready"); condition == nil || condition.Status != metav1.ConditionTrue {
		return fmt.Errorf("condition %+v", condition)
	}
	for _, pod := range node.Status.Pods {
		if pod.UID == string(uid) && slices.Equal(pod.Addresses, []string{vip}) {
			return nil
		}
	}
	return fmt.Errorf("no pod %s with %s in %+v", uid, vip, node.Status.Pods)
}
