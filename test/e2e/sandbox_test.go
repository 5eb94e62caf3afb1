//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// followsSandbox ends the process that holds a pod's network namespace: the same
// pod then gets another one, in which nothing is prepared.
func followsSandbox(t *testing.T, s *suite) {
	const vip = "192.168.11.225"
	s.deploy(t, podFarm("moved"))
	pod := s.onePod(t, "moved")
	vs := servedByPods("moved", "moved", vip)
	s.create(t, vs)
	s.awaitPods(t, vs.Name, 1)
	before := s.sandboxOf(t, pod.UID)
	if before == "" {
		t.Fatalf("no RealServerNode names the sandbox of %s", pod.Name)
	}
	const holder = `for p in $(pidof pause); do nsenter -t $p -n ip -o -4 address show | grep -q " %s/" && echo $p; done; true`
	process := strings.TrimSpace(s.run(t, other, "sh", "-c", fmt.Sprintf(holder, pod.Status.PodIP)))
	if process == "" || strings.ContainsAny(process, " \n") {
		t.Fatalf("the processes that hold the namespace of %s are %q, want one", pod.Name, process)
	}
	s.run(t, other, "kill", "-9", process)
	await(t, 4*time.Minute, func() string {
		if after := s.sandboxOf(t, pod.UID); after == "" || after == before {
			return fmt.Sprintf("the pod's sandbox is shown as %q, and was %q", after, before)
		}
		return ""
	})
	s.awaitPods(t, vs.Name, 1)
	s.ask(t, vip+":80", 4, 1)
}

// sandboxOf is the sandbox in which a pod is prepared, empty if it is not.
func (s *suite) sandboxOf(t *testing.T, pod types.UID) string {
	t.Helper()
	var node v1alpha1.RealServerNode
	if err := s.api.Get(t.Context(), client.ObjectKey{Name: other}, &node); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(node.Status.Pods, func(p v1alpha1.PreparedPod) bool { return p.UID == string(pod) && len(p.Addresses) > 0 })
	if i < 0 {
		return ""
	}
	return node.Status.Pods[i].Sandbox
}

// withoutRecords leaves out the names of the agent's records, which come and go with
// other pods.
func withoutRecords(state string) string {
	var kept []string
	for line := range strings.Lines(state) {
		if sandbox := strings.TrimSpace(line); len(sandbox) != 64 || strings.Trim(sandbox, "0123456789abcdef") != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// servesHostNetwork has a pod that has no network of its own: the VIP comes to the
// node's own lo, and goes again.
func servesHostNetwork(t *testing.T, s *suite) {
	const vip = "192.168.11.226"
	before := withoutRecords(s.nodeState(t, other))
	d := podFarm("hosted")
	d.Spec.Template.Spec.HostNetwork = true
	d.Spec.Strategy.RollingUpdate = nil
	s.deploy(t, d)
	pod := s.onePod(t, "hosted")
	vs := servedByPods("hosted", "hosted", vip)
	vs.Spec.Drain.Timeout = new(duration(0))
	s.create(t, vs)
	s.awaitPods(t, vs.Name, 1)
	s.ask(t, vip+":80", 4, 1)
	if during := s.nodeState(t, other); !strings.Contains(during, vip+"/32") {
		t.Errorf("the node is\n%s\nwant %s in it", during, vip)
	}
	if err := s.api.Delete(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	await(t, 3*time.Minute, func() string {
		if after := withoutRecords(s.nodeState(t, other)); after != before {
			return "the node is\n" + after + "\nand was\n" + before
		}
		return ""
	})
	if ready := gateOf(pod); ready == nil || ready.Status != corev1.ConditionTrue {
		t.Errorf("the gate of the pod is %+v, want it open", ready)
	}
}
