//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

// podFarm is a farm of one pod on the worker.
func podFarm(name string) *appsv1.Deployment { return deploy.Farm(name, other, 1) }

// deploy creates a Deployment, and deletes it at the end of the test.
func (s *suite) deploy(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	if err := s.api.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.api.Delete(context.Background(), d) })
}

// servedByPods is a VirtualServer of the pods of a Deployment.
func servedByPods(name, app string, vips ...string) *v1alpha1.VirtualServer {
	vs := web(name, vips[0], func(spec *v1alpha1.VirtualServerSpec) {
		spec.RealServers = nil
		spec.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		spec.Scheduler = v1alpha1.SchedulerRoundRobin
		spec.Drain = &v1alpha1.Drain{Timeout: new(duration(10 * time.Second))}
		spec.HealthChecks[0].Interval = duration(2 * time.Second)
	})
	for _, vip := range vips[1:] {
		vs.Spec.Addresses = append(vs.Spec.Addresses, v1alpha1.IPAddress(vip))
	}
	return vs
}

// awaitPods waits until so many pods get the connections of a VirtualServer, and
// no others are left.
func (s *suite) awaitPods(t *testing.T, name string, want int32) {
	t.Helper()
	await(t, 5*time.Minute, func() string {
		vs := s.get(t, name)
		counts := vs.Status.RealServerCounts
		if counts != nil && counts.Ready == want && counts.Total == want {
			return ""
		}
		return fmt.Sprintf("want %d pods of %s to be ready: %+v, %+v", want, name, counts, vs.Status.RealServers)
	})
}

// ask asks a VIP so often, and wants that so many servers share the answers
// evenly.
func (s *suite) ask(t *testing.T, vip string, number, servers int) {
	t.Helper()
	sum := (&load.Asker{Address: vip, Network: "tcp", Dial: s.lab.Dial(cluster.Client), Timeout: podPatience}).Ask(t.Context(), number)
	if sum.Failed > 0 || len(sum.PerServer) != servers {
		t.Errorf("%d requests to %s: %+v, want %d servers and none failed", number, vip, sum, servers)
	}
	for server, answers := range sum.PerServer {
		if answers != number/servers {
			t.Errorf("%s answered %d of %d requests to %s, want %d", server, answers, number, vip, number/servers)
		}
	}
}

// load runs something while a client opens 50 connections a second to a VIP, and
// a little longer, and returns what the client saw.
func (s *suite) load(t *testing.T, vip string, happens func()) load.Summary {
	t.Helper()
	stop := s.trafficOf(t, cluster.Client, load.Options{Address: vip + ":80", Network: "tcp", Rate: 50, Timeout: podPatience})
	pause(t, 2*time.Second)
	happens()
	pause(t, 3*time.Second)
	sum := stop()
	t.Logf("%d requests, %d failed, outage %s, %v %v", sum.Requests, sum.Failed, sum.Outage, sum.PerServer, sum.Errors)
	if sum.Requests == 0 {
		t.Error("nothing was asked, so nothing is shown")
	}
	return sum
}

// gateOf is the gate's condition of a pod.
func gateOf(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == v1alpha1.PodConditionRealServerReady {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// onePod waits until the one pod of a Deployment is Ready.
func (s *suite) onePod(t *testing.T, app string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	await(t, 2*time.Minute, func() string {
		var pods corev1.PodList
		if err := s.api.List(t.Context(), &pods, client.InNamespace("default"), client.MatchingLabels{"app": app}); err != nil {
			return err.Error()
		}
		if len(pods.Items) != 1 {
			return fmt.Sprintf("%d pods of %s, want one", len(pods.Items), app)
		}
		pod = &pods.Items[0]
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return ""
			}
		}
		return fmt.Sprintf("the pod of %s is not Ready: %+v", app, pod.Status.Conditions)
	})
	return pod
}

// inPod runs a command in the network namespace of a pod, from its node.
func (s *suite) inPod(t *testing.T, pod *corev1.Pod, command string) string {
	t.Helper()
	return s.run(t, pod.Spec.NodeName, "sh", "-c", "nsenter -t "+s.processOf(t, pod)+" -n sh -c '"+command+"'")
}

// processOf is the process id of a responder's pod on its node.
func (s *suite) processOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	const find = `for p in $(pidof responder); do nsenter -t $p -n ip -o -4 address show | grep -q " %s/" && echo $p; done; true`
	process := strings.TrimSpace(s.run(t, pod.Spec.NodeName, "sh", "-c", fmt.Sprintf(find, pod.Status.PodIP)))
	if process == "" || strings.ContainsAny(process, " \n") {
		t.Fatalf("the processes with address %s on %s are %q, want one", pod.Status.PodIP, pod.Spec.NodeName, process)
	}
	return process
}

func (s *suite) patchPod(t *testing.T, pod *corev1.Pod, patch string) {
	t.Helper()
	if err := s.api.Patch(t.Context(), pod.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

// farmPods are those that stay.
func (s *suite) farmPods(t *testing.T) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := s.api.List(t.Context(), &list, client.InNamespace("default"), client.MatchingLabels{"app": farm}); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return !pod.DeletionTimestamp.IsZero() })
}

// scale sets how many pods there are.
func (s *suite) scale(t *testing.T, to int32) {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: farm}}
	if err := s.api.Patch(t.Context(), d, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, to))); err != nil {
		t.Fatal(err)
	}
}

// explainPods prints what helps to understand a failure with pods.
func (s *suite) explainPods(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	var nodes v1alpha1.RealServerNodeList
	if err := s.api.List(ctx, &nodes); err == nil {
		for _, node := range nodes.Items {
			t.Logf("RealServerNode %s: %+v", node.Name, node.Status)
		}
	}
	var pods corev1.PodList
	if err := s.api.List(ctx, &pods, client.InNamespace("default")); err == nil {
		for _, pod := range pods.Items {
			conditions := map[corev1.PodConditionType]corev1.ConditionStatus{}
			for _, c := range pod.Status.Conditions {
				conditions[c.Type] = c.Status
			}
			t.Logf("pod %s on %s, %s, being deleted: %t, %v", pod.Name, pod.Spec.NodeName, pod.Status.PodIP,
				!pod.DeletionTimestamp.IsZero(), conditions)
		}
	}
	var servers v1alpha1.VirtualServerList
	if err := s.api.List(ctx, &servers); err == nil {
		for _, vs := range servers.Items {
			t.Logf("VirtualServer %s: %s, %+v", vs.Name, meta.FindStatusCondition(vs.Status.Conditions, v1alpha1.ConditionReady).Reason, vs.Status.RealServers)
		}
	}
	out, err := s.lab.Output(ctx, other, "sh", "-c", "tail -n 40 $(ls -t /var/log/pods/*/realserver/*.log | head -1); ip -br address; uptime")
	t.Logf("%s: %s (%v)", other, out, err)
}
