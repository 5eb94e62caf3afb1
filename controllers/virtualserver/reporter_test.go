package virtualserver

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// incumbent is an active director that carries out the plan of one VIP.
type incumbent struct {
	desired plan.Desired
	term    int64
}

func (i *incumbent) Site() Site               { return siteOfDefault() }
func (i *incumbent) Active() bool             { return true }
func (i *incumbent) Term() (int64, time.Time) { return i.term, time.Time{} }
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
		written: map[types.NamespacedName]time.Time{}, told: map[types.NamespacedName]int64{},
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
	reporter.told[client.ObjectKeyFromObject(vs)] = 1
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
}
