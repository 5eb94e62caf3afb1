package virtualserver

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// incumbent is a director that carries out the plan of one VIP. It is active for all
// groups or, where a number of groups is given, for some.
type incumbent struct {
	desired plan.Desired
	term    int64
	groups  int
	active  []int32
}

func (i *incumbent) Site() Site { return siteOfDefault() }
func (i *incumbent) Group(vip netip.Addr) int32 {
	return int32(election.GroupOf(vip, max(i.groups, 1)))
}

func (i *incumbent) Active(group int32) bool {
	return i.groups == 0 || slices.Contains(i.active, group)
}
func (i *incumbent) Term(int32) (int64, time.Time) { return i.term, time.Time{} }
func (i *incumbent) Plan(netip.Addr) (plan.Desired, bool) {
	return i.desired, true
}

func (i *incumbent) Address(netip.Addr) conditions.Address {
	return conditions.Address{Programmed: true, State: i.desired.State, Director: "lb-1"}
}

func (i *incumbent) Report(health.Probe) health.Report { return health.Report{} }

// TestANewTermIsReportedWhateverTheCacheShows has a cache that shows what this
// director wrote when it was active before, and misses what another wrote since.
func TestANewTermIsReportedWhateverTheCacheShows(t *testing.T) {
	vs := makeServer("web", "192.168.11.200")
	c := newClient(t, world(vs)...)
	key := netstate.Key{Addr: netip.MustParseAddr("192.168.11.200")}
	s, _, err := snapshot(t.Context(), c, filled(c, all), siteOfDefault(), "default", key)
	if err != nil {
		t.Fatal(err)
	}
	director := &incumbent{term: 1}
	director.desired, _ = plan.For(s)

	writes := 0
	now := time.Now()
	reporter := &Reporter{
		Client: interceptor.NewClient(c, interceptor.Funcs{
			SubResourceApply: func(context.Context, client.Client, string, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
				writes++
				return nil
			},
		}),
		Director: director, Workloads: filled(c, all), Events: events.NewFakeRecorder(16), Now: func() time.Time { return now },
		written: map[types.NamespacedName]time.Time{}, told: map[types.NamespacedName]map[int32]int64{},
	}
	report := func() int {
		t.Helper()
		writes = 0
		now = now.Add(time.Minute)
		if _, err := reporter.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(vs)}); err != nil {
			t.Fatal(err)
		}
		return writes
	}
	if report() == 0 {
		t.Fatal("nothing was written at first, so nothing is shown")
	}
	outcome, _, err := reporter.outcome(t.Context(), vs)
	if err != nil {
		t.Fatal(err)
	}
	vs.Status = conditions.VirtualServer(outcome)
	if err := c.Update(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	reporter.told[client.ObjectKeyFromObject(vs)] = map[int32]int64{0: 1}
	if n := report(); n != 0 {
		t.Errorf("%d writes although nothing changed, want none", n)
	}
	director.term = 2
	if report() == 0 {
		t.Error("a director that is active again wrote nothing")
	}
	if n := report(); n != 0 {
		t.Errorf("%d writes later in the term, want none", n)
	}
	// While it hands over it announces still, and the status is its successor's.
	director.term = 0
	vs.Status.Addresses[0].Director = "lb-2"
	if err := c.Update(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	if n := report(); n != 0 {
		t.Errorf("%d writes over what the successor says, want none", n)
	}
}

// TestWhatADirectorReportsOfAVirtualServer is about one whose addresses are in the
// groups 3 (the first), 0 and 1 of four, and whose status has an entry of group 7,
// of a pool that had more.
func TestWhatADirectorReportsOfAVirtualServer(t *testing.T) {
	vs := makeServer("web", "192.168.11.200")
	vs.Spec.Addresses = []v1alpha1.IPAddress{"192.168.11.200", "192.168.11.201", "192.168.11.202"}
	vs.Status.Addresses = []v1alpha1.AddressStatus{{Address: "192.168.11.200", Group: 7}}
	for name, tc := range map[string]struct {
		active []int32
		want   part
	}{
		"active for the first":          {[]int32{3}, part{map[int32]int64{3: 5, 7: 0}, true}},
		"active for another":            {[]int32{0}, part{map[int32]int64{0: 5}, false}},
		"active for some and the first": {[]int32{1, 3}, part{map[int32]int64{1: 5, 3: 5, 7: 0}, true}},
		"active for none of them":       {[]int32{2}, part{}},
		"active for none":               {nil, part{}},
		"active for all but the first":  {[]int32{0, 1, 2}, part{map[int32]int64{0: 5, 1: 5}, false}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, world(vs)...)
			r := &Reporter{Client: c, Director: &incumbent{term: 5, groups: 4, active: tc.active}}
			got, err := r.mine(t.Context(), vs)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(part{})); diff != "" {
				t.Errorf("part (-want +got):\n%s", diff)
			}
			wanted := vs.Status
			wanted.Addresses = []v1alpha1.AddressStatus{{Address: "192.168.11.201", Group: 0, Director: "lb-1"}}
			if _, writes := got.terms[0]; got.differ(vs, wanted) != (writes || got.report) {
				t.Errorf("to write: %t", got.differ(vs, wanted))
			}
		})
	}
}
