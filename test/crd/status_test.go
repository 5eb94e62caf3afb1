//go:build envtest

package crd

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// TestGroupsShareTheAddresses shows that each group's director writes its own
// entries of status.addresses, and that a successor inherits them, whichever
// node it is on: nothing is left of what a dead one wrote.
func TestGroupsShareTheAddresses(t *testing.T) {
	ctx := t.Context()
	create(ctx, t, object(t, "VirtualServer", `{metadata: {name: shared}, spec: {addresses: [10.0.0.1, 10.0.0.2, 10.0.0.3], realServers: []}}`))

	applyAddresses(ctx, t, "shared", "lvs-director/default-0",
		v1alpha1.AddressStatus{Address: "10.0.0.1", Director: "node-a"}, v1alpha1.AddressStatus{Address: "10.0.0.2", Director: "node-a"})
	applyAddresses(ctx, t, "shared", "lvs-director/default-1",
		v1alpha1.AddressStatus{Address: "10.0.0.3", Group: 1, Director: "node-b"})
	applyAddresses(ctx, t, "shared", "lvs-director/default-0",
		v1alpha1.AddressStatus{Address: "10.0.0.1", Director: "node-c"})

	want := []v1alpha1.AddressStatus{
		{Address: "10.0.0.1", Director: "node-c"},
		{Address: "10.0.0.3", Group: 1, Director: "node-b"},
	}
	var got v1alpha1.VirtualServer
	if err := server.Client.Get(ctx, types.NamespacedName{Namespace: "default", Name: "shared"}, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Status.Addresses); diff != "" {
		t.Errorf("status.addresses differ (-want +got):\n%s", diff)
	}
	if len(got.Spec.Addresses) != 3 {
		t.Errorf("spec.addresses became %v", got.Spec.Addresses)
	}
}

func applyAddresses(ctx context.Context, t *testing.T, name, manager string, addresses ...v1alpha1.AddressStatus) {
	t.Helper()
	applyStatus(ctx, t, &v1alpha1.VirtualServer{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "VirtualServer"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Status:     v1alpha1.VirtualServerStatus{Addresses: addresses},
	}, manager)
}

func applyStatus(ctx context.Context, t *testing.T, object client.Object, manager string) {
	t.Helper()
	patch, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	err = server.Client.Status().Patch(ctx, object, client.RawPatch(types.ApplyPatchType, patch), client.FieldOwner(manager), client.ForceOwnership)
	if err != nil {
		t.Fatalf("applying the status as %s: %v", manager, err)
	}
}

// TestColumnsOfKubectl shows what kubectl get prints of a VirtualServer and a
// Director.
func TestColumnsOfKubectl(t *testing.T) {
	ctx := t.Context()
	now := metav1.Now()
	ready := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady, LastTransitionTime: now}}

	create(ctx, t, object(t, "VirtualServer", `{metadata: {name: columns}, spec: {addresses: [10.0.0.1, 10.0.0.2], realServers: []}}`))
	applyStatus(ctx, t, &v1alpha1.VirtualServer{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "VirtualServer"},
		ObjectMeta: metav1.ObjectMeta{Name: "columns", Namespace: "default"},
		Status: v1alpha1.VirtualServerStatus{
			Conditions: ready,
			Display:    &v1alpha1.VirtualServerDisplay{Addresses: "10.0.0.1,10.0.0.2", Ports: "80/TCP", RealServers: "2/2", Directors: "node-a"},
		},
	}, "lvs-director/reporter")
	wantVS := []any{"columns", "10.0.0.1", "10.0.0.1,10.0.0.2", "80/TCP", "wlc", "DR", "2/2", "node-a", "True"}
	if diff := cmp.Diff(wantVS, row(ctx, t, "/namespaces/default/virtualservers/columns", len(wantVS))); diff != "" {
		t.Errorf("VirtualServer (-want +got):\n%s", diff)
	}

	create(ctx, t, object(t, "Director", `{metadata: {name: columns}, spec: {nodeName: columns}}`))
	applyStatus(ctx, t, &v1alpha1.Director{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Director"},
		ObjectMeta: metav1.ObjectMeta{Name: "columns"},
		Status: v1alpha1.DirectorStatus{
			Conditions: ready,
			Address:    "192.168.11.11", Interface: "eth0", KernelVersion: "6.1.0",
			Counts:         &v1alpha1.DirectorCounts{VirtualIPs: 3},
			Display:        &v1alpha1.DirectorDisplay{Active: "1/1 groups"},
			LastTransition: &v1alpha1.DirectorTransition{Reason: "Takeover", Time: now},
		},
	}, "lvs-director/columns")
	// Another director writes this one, and takes nothing away.
	applyStatus(ctx, t, &v1alpha1.Director{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Director"},
		ObjectMeta: metav1.ObjectMeta{Name: "columns"},
		Status: v1alpha1.DirectorStatus{Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionAlive, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNodeNotReady, LastTransitionTime: now,
		}}},
	}, "lvs-director/alive")
	wantDirector := []any{"columns", "default", "1/1 groups", float64(3), "True", "False", "192.168.11.11", "eth0", "6.1.0"}
	if diff := cmp.Diff(wantDirector, row(ctx, t, "/directors/columns", len(wantDirector))); diff != "" {
		t.Errorf("Director (-want +got):\n%s", diff)
	}
}

// row asks for an object as kubectl get does and returns its first cells.
func row(ctx context.Context, t *testing.T, path string, cells int) []any {
	t.Helper()
	config := rest.CopyConfig(server.Config)
	config.GroupVersion = &v1alpha1.GroupVersion
	config.APIPath = "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(server.Client.Scheme()).WithoutConversion()
	asker, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	text, err := asker.Get().AbsPath("/apis/lvs-operator.io/v1alpha1"+path).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(ctx).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 1 || len(table.Rows[0].Cells) < cells {
		t.Fatalf("got the table %s", text)
	}
	return table.Rows[0].Cells[:cells]
}
