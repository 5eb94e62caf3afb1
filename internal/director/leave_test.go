package director

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestALeavingVIPStaysInTheKernelForAWhile(t *testing.T) {
	for name, adoptedOnly := range map[string]bool{"planned": false, "adopted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := desired(vip1, rs1)
				b := newBench(t, leftovers(t, want.State))
				b.Adopt([]netstate.Key{vip1})
				b.run(t)
				if !adoptedOnly {
					b.Program(want)
					synctest.Wait()
				}
				b.Leave(vip1)
				if len(b.Announceable()) > 0 || len(b.Served()) > 0 {
					t.Error("a leaving VIP is announced")
				}
				time.Sleep(lingerTime - time.Second)
				synctest.Wait()
				expect(t, b.fake, want.State)
				b.Leave(vip1) // Once more is not longer.
				time.Sleep(time.Second)
				synctest.Wait()
				expect(t, b.fake)
				if _, known := b.Outcome(vip1); known {
					t.Error("a key that is gone is known")
				}
			})
		})
	}
}

func TestAVIPThatLeavesTwiceLingersAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.run(t)
		want := desired(vip1, rs1)
		b.Program(want)
		b.Leave(vip1)
		time.Sleep(lingerTime / 2)
		b.Program(want)
		synctest.Wait()
		b.Leave(vip1)
		time.Sleep(lingerTime - time.Second)
		synctest.Wait()
		expect(t, b.fake, want.State)
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, b.fake)
	})
}
