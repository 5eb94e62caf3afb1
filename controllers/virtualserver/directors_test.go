package virtualserver

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func makeDirector(name, pool, address, address6 string, ready metav1.ConditionStatus) *v1alpha1.Director {
	d := &v1alpha1.Director{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.DirectorSpec{DirectorPoolName: pool}}
	d.Status.Address, d.Status.IPv6Address = address, address6
	if ready != "" {
		d.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready, Reason: "KernelError"}}
	}
	return d
}

func TestDirectorsAreKnownByBothAddressesAndByWhetherTheyServe(t *testing.T) {
	c := newClient(t,
		makeDirector("lb-1", "default", "192.168.11.2", "fd00:11::2", metav1.ConditionTrue),
		makeDirector("lb-2", "default", "192.168.11.3", "", metav1.ConditionFalse),
		makeDirector("lb-3", "default", "192.168.11.4", "", ""),
		makeDirector("lb-4", "default", "", "", metav1.ConditionTrue),
		makeDirector("lb-5", "another", "192.168.11.5", "", metav1.ConditionTrue),
	)
	got, starting, err := directorsOf(t.Context(), c, "default")
	if err != nil {
		t.Fatal(err)
	}
	want := map[netip.Addr]string{}
	for text, name := range map[string]string{"192.168.11.2": "lb-1", "fd00:11::2": "lb-1", "192.168.11.3": "lb-2", "192.168.11.4": "lb-3"} {
		want[netip.MustParseAddr(text)] = name
	}
	if diff := cmp.Diff(want, got, addresses); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"lb-2": "KernelError", "lb-3": "Starting"}, starting); diff != "" {
		t.Errorf("starting (-want +got):\n%s", diff)
	}
}

func TestPlansAreMadeAnewWhenADirectorMovesOrServes(t *testing.T) {
	before := makeDirector("lb-1", "default", "192.168.11.2", "", metav1.ConditionFalse)
	for name, tc := range map[string]struct {
		after *v1alpha1.Director
		want  bool
	}{
		"nothing":         {after: makeDirector("lb-1", "default", "192.168.11.2", "", metav1.ConditionFalse)},
		"an address":      {after: makeDirector("lb-1", "default", "192.168.11.3", "", metav1.ConditionFalse), want: true},
		"an IPv6 address": {after: makeDirector("lb-1", "default", "192.168.11.2", "fd00:11::2", metav1.ConditionFalse), want: true},
		"it serves":       {after: makeDirector("lb-1", "default", "192.168.11.2", "", metav1.ConditionTrue), want: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := directorMoved().Update(event.UpdateEvent{ObjectOld: before, ObjectNew: tc.after}); got != tc.want {
				t.Errorf("it is let through: %t, want %t", got, tc.want)
			}
		})
	}
}
