package director

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

func TestACheckpointBringsThePlanBack(t *testing.T) {
	want := desired(vip1, rs1, rs2)
	want.Owners = map[netstate.ServiceKey]types.NamespacedName{webOf(vip1): {Namespace: "shop", Name: "web"}}
	want.Checks[destinationOf(vip1, rs1)] = []plan.Check{{
		Name: "default", InitiallyUp: true,
		Probe: health.Probe{
			Target: health.Target{Type: health.TCP, Addr: rs1, Port: 8080},
			Schedule: health.Schedule{
				Interval: 2 * time.Second, Timeout: time.Second, RetryInterval: time.Second, FailureThreshold: 3, SuccessThreshold: 2,
			},
		},
	}}
	want.Policies = map[netstate.ServiceKey]plan.Policy{webOf(vip1): {
		Quiesce: true, DrainTimeout: time.Minute, SlowStart: 30 * time.Second, Scale: 100, Quorum: 200, Hysteresis: 50,
		Sorry: netip.MustParseAddr("192.168.11.250"),
	}}
	want.Unready = map[netstate.DestinationKey]string{destinationOf(vip1, rs2): "its pod is not Ready"}
	want.Links = []string{"veth1", "veth2"}
	pool := Pool{
		Name: "default", Interface: "eth0", Within: []netip.Addr{vip1.Addr}, Refresh: time.Minute, Guard: true,
		Timeouts: netstate.Timeouts{TCP: time.Minute}, Groups: 3,
	}
	dir := t.TempDir()
	k := &keeper{dir: dir, log: slog.New(slog.DiscardHandler), snapshot: func() checkpoint.Checkpoint {
		return checkpoint.Checkpoint{
			Pool: pool.Name, NodeName: "lb-1", Within: pool.Within, Refresh: pool.Refresh,
			Node:   netstate.Node{Interface: pool.Interface, Guard: pool.Guard, Timeouts: pool.Timeouts},
			Keys:   []checkpoint.Key{record(want)},
			Groups: []checkpoint.Group{{Group: 2, Epoch: 7, Active: true, Previous: "lb-9"}}, Election: checkpoint.Election{Groups: pool.Groups},
		}
	}}
	if k.load() != nil {
		t.Error("there is a checkpoint before anything was written")
	}
	others := filepath.Join(dir, "realserver-found.json")
	if err := os.WriteFile(others, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.open(pool.Name)
	k.changed()
	k.close()

	got := (&keeper{dir: dir, log: slog.New(slog.DiscardHandler)}).load()
	if got == nil {
		t.Fatal("no checkpoint")
	}
	if diff := cmp.Diff(want, recorded(got.Keys[0]), addr); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(pool, poolIn(*got), addr); diff != "" || !pool.equal(poolIn(*got)) {
		t.Errorf("pool (-want +got):\n%s", diff)
	}
	part := checkpoint.Group{Group: 2, Epoch: 7, Active: true, Previous: "lb-9"}
	for name, tc := range map[string]struct {
		pool   Pool
		number int
		want   checkpoint.Group
	}{
		"in the group":                      {pool, 2, part},
		"in another group":                  {pool, 1, checkpoint.Group{}},
		"in another pool":                   {Pool{Name: "another", Groups: 3}, 2, checkpoint.Group{}},
		"in one with another cut of groups": {Pool{Name: "default", Groups: 4}, 2, checkpoint.Group{}},
	} {
		if got := partIn(got, tc.pool, tc.number); got != tc.want {
			t.Errorf("part %s = %+v, want %+v", name, got, tc.want)
		}
	}

	if err := RemoveCheckpoints(dir); err != nil {
		t.Fatal(err)
	}
	if k.load() != nil {
		t.Error("the checkpoint is still there")
	}
	if _, err := os.Stat(others); err != nil {
		t.Errorf("what others keep in the directory: %v", err)
	}
}

func TestACheckpointThatCannotBeReadIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	k := &keeper{dir: dir, log: slog.New(slog.DiscardHandler)}
	if err := os.MkdirAll(k.folder(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkpoint.Save(checkpoint.Path(k.folder(), "good"), checkpoint.Checkpoint{Pool: "good"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(checkpoint.Path(k.folder(), "bad"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := k.load(); c == nil || c.Pool != "good" {
		t.Errorf("loaded %+v", c)
	}
}
