//go:build envtest

package crd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func realServerNodeRules() []rule {
	return []rule{
		{
			at: "RealServerNode", message: "a RealServerNode must be named as its node",
			accepts: []string{`{metadata: {name: node-b}, spec: {nodeName: node-b}}`, `{metadata: {name: b.example}, spec: {nodeName: b.example}}`},
			refuses: []string{`{spec: {nodeName: node-b}}`},
		},
		{
			at: "RealServerNode.spec", message: "spec cannot be changed",
			accepts: []string{`{} => {metadata: {labels: {a: b}}}`},
			// The name cannot be another either, so that both rules refuse it.
			refuses: []string{`{} => {spec: {nodeName: node-b}}`},
		},
	}
}

// TestAgentReportsItsNode shows that a status as large as the agent writes one is
// taken, that the agent's next apply removes what is gone, and what kubectl get
// prints of it.
func TestAgentReportsItsNode(t *testing.T) {
	ctx := t.Context()
	create(ctx, t, object(t, "RealServerNode", `{metadata: {name: reporting}, spec: {nodeName: reporting}}`))
	report := func(pods ...v1alpha1.PreparedPod) {
		applyStatus(ctx, t, &v1alpha1.RealServerNode{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "RealServerNode"},
			ObjectMeta: metav1.ObjectMeta{Name: "reporting"},
			Status: v1alpha1.RealServerNodeStatus{
				Conditions: []metav1.Condition{{
					Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady, LastTransitionTime: metav1.Now(),
				}},
				Counts: &v1alpha1.RealServerNodeCounts{Pods: int32(len(pods))},
				Pods:   pods,
			},
		}, "lvs-realserver")
	}
	var pods []v1alpha1.PreparedPod
	for i := range 256 {
		pods = append(pods, v1alpha1.PreparedPod{
			UID: fmt.Sprintf("uid-%03d", i), Namespace: "shop", Name: fmt.Sprintf("web-%d", i), Sandbox: strings.Repeat("f", 64),
			PodAddresses: []string{"10.244.0.1", "fd00::1"}, Addresses: []string{"192.168.11.200", "fd00:11::200"},
			Problem: strings.Repeat("p", 256),
		})
	}
	report(pods...)
	report(pods[3])

	var got v1alpha1.RealServerNode
	if err := server.Client.Get(ctx, client.ObjectKey{Name: "reporting"}, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pods[3:4], got.Status.Pods); diff != "" {
		t.Errorf("pods differ (-want +got):\n%s", diff)
	}
	want := []any{"reporting", float64(1), float64(0), "True"}
	if diff := cmp.Diff(want, row(ctx, t, "/realservernodes/reporting", len(want))); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}
