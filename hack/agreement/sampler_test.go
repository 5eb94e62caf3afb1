package agreement

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func director(name, pool, active string, alive metav1.ConditionStatus) *v1alpha1.Director {
	return &v1alpha1.Director{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.DirectorSpec{NodeName: name, DirectorPoolName: pool},
		Status: v1alpha1.DirectorStatus{
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionAlive, Status: alive}},
			Display:    &v1alpha1.DirectorDisplay{Active: active},
		},
	}
}

func TestASampleIsWhatKubectlShows(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{
		director("a", "default", "1/1 groups", metav1.ConditionTrue),
		director("b", "default", "0/1 groups", metav1.ConditionTrue),
		director("dead", "default", "1/1 groups", metav1.ConditionFalse),
		director("elsewhere", "other", "1/1 groups", metav1.ConditionTrue),
		&v1alpha1.Director{ObjectMeta: metav1.ObjectMeta{Name: "new"}, Spec: v1alpha1.DirectorSpec{DirectorPoolName: "default"}},
		&v1alpha1.VirtualServer{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Status: v1alpha1.VirtualServerStatus{
				Display:   &v1alpha1.VirtualServerDisplay{Directors: "a"},
				Addresses: []v1alpha1.AddressStatus{{Address: "192.0.2.1", Director: "a"}, {Address: "192.0.2.2", Director: "b"}},
			},
		},
		&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "lvs", Name: "default-0"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("a")},
		},
	}
	options := Options{
		Reader: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), Pool: "default",
		Lease: types.NamespacedName{Namespace: "lvs", Name: "default-0"}, VirtualServer: types.NamespacedName{Namespace: "default", Name: "web"},
	}
	got, err := options.sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Sample{Holder: "a", Shown: []string{"a", "b"}, Active: []string{"a"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Sample{}, "Began", "Ended")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	options.Lease.Name = "missing"
	if _, err := options.sample(t.Context()); err == nil {
		t.Error("a sample without a Lease")
	}
	if report := Start(t.Context(), options)(); report.Samples != 0 || report.Err() == nil {
		t.Errorf("report = %+v, err = %v", report, report.Err())
	}
}
