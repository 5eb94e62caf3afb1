package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/director"
)

func TestPreemptionWaitsLongerWhereConnectionsAreShared(t *testing.T) {
	for name, tc := range map[string]struct {
		mode  v1alpha1.ConnectionSyncMode
		delay *metav1.Duration
		want  time.Duration
	}{
		"shared":              {mode: v1alpha1.ConnectionSyncEnabled, want: 30 * time.Second},
		"shared by default":   {want: 30 * time.Second},
		"not shared":          {mode: v1alpha1.ConnectionSyncDisabled, want: 5 * time.Second},
		"stored before it is": {mode: v1alpha1.ConnectionSyncEnabled, delay: &metav1.Duration{Duration: 5 * time.Second}, want: 5 * time.Second},
		"none at all":         {delay: &metav1.Duration{}, want: 0},
	} {
		spec := v1alpha1.DirectorPoolSpec{ConnectionSync: v1alpha1.ConnectionSync{Mode: tc.mode}}
		spec.Election.Preemption.Delay = tc.delay
		if got := poolOf(v1alpha1.DirectorPool{Spec: spec}).Election.Preemption.Delay; got != tc.want {
			t.Errorf("%s: the delay is %s, want %s", name, got, tc.want)
		}
	}
}

func TestSyncIDComesFromThePoolsUID(t *testing.T) {
	seen := map[uint8]bool{}
	for i := range 1000 {
		pool := v1alpha1.DirectorPool{ObjectMeta: metav1.ObjectMeta{UID: types.UID(fmt.Sprintf("uid-%d", i))}}
		id := poolOf(pool).ConnectionSync.ID
		if id == 0 || id != poolOf(pool).ConnectionSync.ID {
			t.Fatalf("pool %d has syncID %d, want always the same and not 0", i, id)
		}
		seen[id] = true
	}
	if len(seen) < 200 {
		t.Errorf("1000 pools have %d IDs, want them spread over 255", len(seen))
	}
}

func TestConnectionSyncIsThePools(t *testing.T) {
	none := int32(0)
	pool := v1alpha1.DirectorPool{Spec: v1alpha1.DirectorPoolSpec{ConnectionSync: v1alpha1.ConnectionSync{
		Mode: v1alpha1.ConnectionSyncEnabled, SyncID: &none, Interface: &v1alpha1.Interface{Name: "eth1"}, Port: 9000, Group: "239.1.2.3",
	}}}
	want := director.ConnectionSync{Enabled: true, Interface: "eth1", Group: netip.MustParseAddr("239.1.2.3"), Port: 9000}
	if got := poolOf(pool).ConnectionSync; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	pool.Spec.ConnectionSync.Mode = v1alpha1.ConnectionSyncDisabled
	if got := poolOf(pool).ConnectionSync; got != (director.ConnectionSync{}) {
		t.Errorf("Disabled is %+v", got)
	}
}
