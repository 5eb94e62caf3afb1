package director

import (
	"testing"
	"testing/synctest"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

func TestServersOfMHAreDownForAllWhenTheActiveDirectorSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.run(t)
		b.judge(rs1, health.Up)
		b.judge(rs2, health.Up)
		for key, scheduler := range map[netstate.Key]string{vip1: "mh", vip2: "wrr"} {
			d := scheduledBy(scheduler, key, rs1, rs2)
			for k := range d.State.Destinations {
				d.Checks[k] = []plan.Check{{Probe: health.Probe{Target: health.Target{Type: health.TCP, Addr: k.Addr, Port: 80}}}}
			}
			b.Program(d)
		}
		wantWeight := func(when string, key netstate.Key, want uint32) {
			t.Helper()
			b.Audit()
			synctest.Wait()
			if got := b.fake.State().Destinations[destinationOf(key, rs1)].Weight; got != want {
				t.Errorf("%s the weight in %s is %d, want %d", when, key, got, want)
			}
		}
		wantWeight("on its own", vip1, 1)
		says := func(rs1Is health.Verdict, doubted bool) {
			b.Agree(func(d plan.Desired) hearsay {
				return hearsay{map[netstate.DestinationKey]health.Verdict{destinationOf(d.Key, rs1): rs1Is}, doubted}
			})
		}
		says(health.Down, false)
		wantWeight("with another's word,", vip1, 0)
		wantWeight("with another's word, but no need to agree,", vip2, 1)
		if got := b.fake.State().Destinations[destinationOf(vip1, rs2)].Weight; got != 1 {
			t.Errorf("nothing was heard of a server, and its weight is %d", got)
		}
		says(health.Down, true)
		wantWeight("with another's word that is doubted,", vip1, 1)
		b.judge(rs1, health.Down)
		says(health.Up, false)
		wantWeight("down here, up for another,", vip1, 1)
		says(health.Up, true)
		wantWeight("down here, up for another that is doubted,", vip1, 0)
		b.judge(rs1, health.Unknown)
		wantWeight("without a verdict of its own,", vip1, 1)
		says(health.Down, true)
		wantWeight("without a verdict of its own again,", vip1, 0)
		b.judge(rs1, health.Up)
		b.Agree(nil)
		wantWeight("on its own again", vip1, 1)
	})
}
