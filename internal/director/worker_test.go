package director

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

var (
	vip1 = netstate.Key{Addr: netip.MustParseAddr("192.168.11.200")}
	vip2 = netstate.Key{Addr: netip.MustParseAddr("192.168.11.201")}
	rs1  = netip.MustParseAddr("192.168.11.135")
	rs2  = netip.MustParseAddr("192.168.11.138")
	addr = cmpopts.EquateComparable(netip.Addr{})
)

// usualDrain is how long servers of a service without a policy drain.
const usualDrain = 30 * time.Second

func webOf(key netstate.Key) netstate.ServiceKey {
	return netstate.ServiceKey{Key: key, Protocol: netstate.TCP, Port: 80}
}

func destinationOf(key netstate.Key, server netip.Addr) netstate.DestinationKey {
	return netstate.DestinationKey{Service: webOf(key), Addr: server, Port: 80}
}

// desired is a plan of port 80 with real servers of weight 1.
func desired(key netstate.Key, servers ...netip.Addr) plan.Desired {
	d := plan.Desired{Key: key, State: netstate.New(), Checks: map[netstate.DestinationKey][]plan.Check{}}
	d.State.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: key.Addr}] = netstate.Address{}
	d.State.Guard[netstate.GuardKey{VIP: key.Addr}] = netstate.Present{}
	d.State.Guard[netstate.GuardKey{VIP: key.Addr, Protocol: netstate.TCP, Port: 80}] = netstate.Present{}
	d.State.Services[webOf(key)] = netstate.Service{Scheduler: "wrr"}
	for _, server := range servers {
		d.State.Destinations[destinationOf(key, server)] = netstate.Destination{Method: netstate.DR, Weight: 1}
	}
	return d
}

// bench is a worker with a kernel in memory.
type bench struct {
	*Worker
	fake   *kerneltest.Fake
	faulty *kerneltest.Faulty

	mu       sync.Mutex
	verdicts map[netip.Addr]health.Verdict
	told     []netstate.Key
}

// newBench must be called in a bubble of synctest. The worker ends with the
// test.
func newBench(t *testing.T, fake *kerneltest.Fake) *bench {
	t.Helper()
	if err := fake.Prepare(t.Context(), kerneltest.ContractNode); err != nil {
		t.Fatal(err)
	}
	b := &bench{fake: fake, faulty: kerneltest.NewFaulty(fake, errBroken), verdicts: map[netip.Addr]health.Verdict{}}
	b.Worker = NewWorker(b.faulty, func(p health.Probe) health.Verdict {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.verdicts[p.Target.Addr]
	}, func(key netstate.Key) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, key)
	}, nil, slog.New(slog.DiscardHandler))
	return b
}

func (b *bench) run(t *testing.T) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	t.Cleanup(func() { end(); running.Wait() })
	synctest.Wait()
}

func (b *bench) judge(server netip.Addr, verdict health.Verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verdicts[server] = verdict
}

func (b *bench) tales() []netstate.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	told := b.told
	b.told = nil
	return told
}

var errBroken = errors.New("broken")

func expect(t *testing.T, fake *kerneltest.Fake, want ...netstate.State) {
	t.Helper()
	all := netstate.New()
	for _, s := range want {
		maps.Copy(all.Guard, s.Guard)
		maps.Copy(all.Addresses, s.Addresses)
		maps.Copy(all.Services, s.Services)
		maps.Copy(all.Destinations, s.Destinations)
	}
	if diff := cmp.Diff(all, fake.State(), addr); diff != "" {
		t.Errorf("kernel (-want +got):\n%s", diff)
	}
}

func TestPlansAreProgrammedAndDriftIsRepairedWithinTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.run(t)
		want := desired(vip1, rs1, rs2)
		b.Program(want)
		synctest.Wait()
		expect(t, b.fake, want.State)
		if outcome, _ := b.Outcome(vip1); !outcome.Programmed || !slices.Equal(b.Announceable(), []netstate.Key{vip1}) {
			t.Errorf("outcome %+v, announceable %v", outcome, b.Announceable())
		}

		b.fake.Meddle(func(s netstate.State) {
			delete(s.Destinations, destinationOf(vip1, rs1))
			delete(s.Addresses, netstate.AddressKey{Link: netstate.DummyLink, Addr: vip1.Addr})
		})
		time.Sleep(auditInterval)
		synctest.Wait()
		expect(t, b.fake, want.State)
	})
}

func TestForeignServicesAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.run(t)
		foreign := netstate.New()
		key := netstate.Key{Addr: netip.MustParseAddr("10.9.9.9")}
		foreign.Services[webOf(key)] = netstate.Service{Scheduler: "rr"}
		foreign.Destinations[destinationOf(key, rs1)] = netstate.Destination{Method: netstate.NAT, Weight: 7}
		b.fake.Meddle(func(s netstate.State) {
			maps.Copy(s.Services, foreign.Services)
			maps.Copy(s.Destinations, foreign.Destinations)
		})
		b.Program(desired(vip1, rs1))
		synctest.Wait()
		b.Leave(vip1)
		time.Sleep(lingerTime + auditInterval)
		synctest.Wait()
		expect(t, b.fake, foreign)
	})
}

func TestARemovedServerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.run(t)
		b.Program(desired(vip1, rs1, rs2))
		synctest.Wait()
		leaving := destinationOf(vip1, rs2)
		b.fake.SetConnections(leaving, netstate.Connections{Active: 3})
		after := desired(vip1, rs1)
		b.Program(after)
		synctest.Wait()
		draining := desired(vip1, rs1, rs2)
		draining.State.Destinations[leaving] = netstate.Destination{Method: netstate.DR, Weight: 0}
		expect(t, b.fake, draining.State)
		if outcome, _ := b.Outcome(vip1); len(outcome.Draining) != 1 {
			t.Errorf("draining %v", outcome.Draining)
		}

		// A failure in between does not give it more time.
		time.Sleep(usualDrain / 2)
		b.faulty.Script(func(c kerneltest.Call) kerneltest.Fault {
			if c.Method == "Observe" {
				return kerneltest.Fail
			}
			return kerneltest.None
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.faulty.Script(nil)
		time.Sleep(usualDrain/2 - 3*time.Second)
		synctest.Wait()
		expect(t, b.fake, draining.State)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		expect(t, b.fake, after.State)
	})
}

// leftovers is a kernel as an earlier process left it.
func leftovers(t *testing.T, states ...netstate.State) *kerneltest.Fake {
	t.Helper()
	fake := kerneltest.NewFake()
	if err := fake.Prepare(t.Context(), kerneltest.ContractNode); err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		fake.Meddle(func(s netstate.State) {
			maps.Copy(s.Guard, state.Guard)
			maps.Copy(s.Addresses, state.Addresses)
			maps.Copy(s.Services, state.Services)
			maps.Copy(s.Destinations, state.Destinations)
		})
	}
	return fake
}

func TestAdoptionChangesNothingAndServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := desired(vip1, rs1, rs2)
		before.State.Addresses[netstate.AddressKey{Link: "eth0", Addr: vip1.Addr}] = netstate.Address{}
		b := newBench(t, leftovers(t, before.State))
		b.Adopt([]netstate.Key{vip1})
		b.run(t)
		time.Sleep(3 * auditInterval)
		synctest.Wait()
		if ops := b.fake.Applied(); len(ops) > 0 {
			t.Errorf("adoption changed the kernel: %v", ops)
		}
		if !slices.Equal(b.Announceable(), []netstate.Key{vip1}) || !slices.Equal(b.Served(), []netstate.Key{vip1}) {
			t.Errorf("announceable %v, served %v", b.Announceable(), b.Served())
		}

		// The plan comes, and its servers have no verdict yet.
		again := desired(vip1, rs1, rs2)
		for key := range again.State.Destinations {
			again.Checks[key] = []plan.Check{{Probe: health.Probe{Target: health.Target{Type: health.TCP, Addr: key.Addr, Port: 80}}}}
		}
		b.Program(again)
		synctest.Wait()
		if ops := b.fake.Applied(); len(ops) > 0 {
			t.Errorf("the plan of what is there changed the kernel: %v", ops)
		}
	})
}

func TestUnconfirmedPlansAdjustWeightsAndMakeNoService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there := desired(vip1, rs1, rs2)
		b := newBench(t, leftovers(t, there.State))
		b.Adopt([]netstate.Key{vip1})
		b.run(t)
		plan1 := desired(vip1, rs1, rs2)
		plan1.State.Services[netstate.ServiceKey{Key: vip1, Protocol: netstate.TCP, Port: 443}] = netstate.Service{Scheduler: "rr"}
		plan1.State.Guard[netstate.GuardKey{VIP: vip1.Addr, Protocol: netstate.TCP, Port: 443}] = netstate.Present{}
		plan1.Checks[destinationOf(vip1, rs2)] = []plan.Check{{Probe: health.Probe{Target: health.Target{Addr: rs2}}}}
		b.judge(rs2, health.Down)
		b.Restore(plan1)
		b.Restore(desired(vip2, rs1))
		synctest.Wait()
		want := desired(vip1, rs1)
		expect(t, b.fake, want.State)
		if outcome, _ := b.Outcome(vip1); outcome.Programmed || !errors.Is(outcome.Err, ErrUnconfirmed) {
			t.Errorf("outcome = %+v", outcome)
		}
		if !slices.Equal(b.Announceable(), []netstate.Key{vip1}) || len(b.Unready()) > 0 {
			t.Errorf("announceable %v, unready %v", b.Announceable(), b.Unready())
		}

		confirmed := desired(vip2, rs1)
		b.Program(confirmed)
		if b.Restore(desired(vip2)) {
			t.Error("a checkpoint replaced what the API said")
		}
		synctest.Wait()
		expect(t, b.fake, want.State, confirmed.State)
	})
}

func TestABlockedWorkerChangesNothingAndGoesOnWhenUnblocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, leftovers(t, desired(vip2, rs1).State))
		b.Adopt([]netstate.Key{vip2})
		b.Block(kernel.ErrNoIPVS)
		b.run(t)
		b.Program(desired(vip1, rs1))
		b.Answer(answers{groups: 1, decided: 1, on: 1, link: "eth0"})
		synctest.Wait()
		if ops := b.fake.Applied(); len(ops) > 0 {
			t.Errorf("applied %v", ops)
		}
		if outcome, _ := b.Outcome(vip1); !errors.Is(outcome.Err, kernel.ErrNoIPVS) {
			t.Errorf("outcome = %+v", outcome)
		}
		if !slices.Equal(b.Unready(), []netstate.Key{vip1}) {
			t.Errorf("unready %v", b.Unready())
		}
		b.Answer(answers{groups: 1, decided: 1})
		b.Block(nil)
		synctest.Wait()
		expect(t, b.fake, desired(vip1, rs1).State, desired(vip2, rs1).State)
		if outcome, _ := b.Outcome(vip1); !outcome.Programmed || len(b.Unready()) > 0 {
			t.Errorf("outcome = %+v, unready %v", outcome, b.Unready())
		}
	})
}

func TestTheKernelAnswersAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answering := desired(vip2, rs1)
		answering.State.Addresses[netstate.AddressKey{Link: "eth0", Addr: vip2.Addr}] = netstate.Address{}
		b := newBench(t, leftovers(t, answering.State))
		b.Adopt([]netstate.Key{vip2})
		b.run(t)
		// Until somebody decides, what an earlier process left stays: planned too.
		b.Program(desired(vip2, rs1))
		synctest.Wait()
		expect(t, b.fake, answering.State)

		b.Program(desired(vip1, rs1))
		b.Answer(answers{groups: 1, decided: 1, on: 1, link: "eth0"})
		synctest.Wait()
		both := desired(vip1, rs1)
		both.State.Addresses[netstate.AddressKey{Link: "eth0", Addr: vip1.Addr}] = netstate.Address{}
		expect(t, b.fake, both.State, answering.State)
		if _, _, _, answers := b.Counts(); !answers {
			t.Error("the worker does not know that the kernel answers")
		}

		// A VIP on its way out is answered for no more.
		b.Leave(vip1)
		synctest.Wait()
		expect(t, b.fake, desired(vip1, rs1).State, answering.State)
		b.Answer(answers{groups: 1, decided: 1})
		synctest.Wait()
		expect(t, b.fake, desired(vip1, rs1).State, desired(vip2, rs1).State)
	})
}

func TestAnAdoptedVIPIsAnsweredForNoMoreWhenAnotherDirectorIsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answering := desired(vip1, rs1)
		answering.State.Addresses[netstate.AddressKey{Link: "eth0", Addr: vip1.Addr}] = netstate.Address{}
		b := newBench(t, leftovers(t, answering.State))
		b.Adopt([]netstate.Key{vip1})
		b.run(t)
		b.Answer(answers{groups: 1, decided: 1})
		synctest.Wait()
		expect(t, b.fake, desired(vip1, rs1).State)
	})
}

func TestErrorsAreRetriedAndKeepNobodyElseFromBeingServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kerneltest.NewFake()
		fake.SetScheduler("wrr", kerneltest.Missing)
		b := newBench(t, fake)
		b.run(t)
		bad, good := desired(vip1, rs1), desired(vip2, rs1)
		good.State.Services[webOf(vip2)] = netstate.Service{Scheduler: "rr"}
		b.Program(bad)
		b.Program(good)
		synctest.Wait()
		var missing kernel.SchedulerUnavailable
		if outcome, _ := b.Outcome(vip1); !errors.As(outcome.Err, &missing) || missing.Name != "wrr" {
			t.Errorf("outcome = %+v", outcome)
		}
		if failures := b.Failures(); len(failures) != 1 || failures[0].Key != vip1 {
			t.Errorf("failures = %v", failures)
		}
		if outcome, _ := b.Outcome(vip2); !outcome.Programmed || len(b.Unready()) > 0 {
			t.Errorf("outcome = %+v, unready %v", outcome, b.Unready())
		}
		time.Sleep(time.Minute)
		fake.SetScheduler("wrr", kerneltest.There)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		expect(t, fake, bad.State, good.State)
		if len(b.Failures()) > 0 {
			t.Errorf("failures = %v", b.Failures())
		}
	})
}

func TestAPassThatBeganBeforeThePlanChangedDoesNotSpeakForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.Program(desired(vip1, rs1))
		newer := desired(vip1, rs1, rs2)
		var seen []Outcome
		b.faulty.Script(func(c kerneltest.Call) kerneltest.Fault {
			if change, is := c.Op.(netstate.DestinationChange); is && change.Entry.Addr == rs1 {
				b.Program(newer) // While the older plan is being carried out.
			}
			if c.Method == "Observe" && len(b.fake.Applied()) > 0 {
				outcome, _ := b.Outcome(vip1)
				seen = append(seen, outcome)
			}
			return kerneltest.None
		})
		b.run(t)
		expect(t, b.fake, newer.State)
		if len(seen) != 1 || seen[0].Programmed {
			t.Errorf("before the second pass: %+v", seen)
		}
		if outcome, _ := b.Outcome(vip1); !outcome.Programmed {
			t.Errorf("in the end: %+v", outcome)
		}
	})
}

func TestForgetWaitsForThePassThatIsUnderWay(t *testing.T) {
	// Not in a bubble: who waits for a mutex is not at rest there.
	b := newBench(t, kerneltest.NewFake())
	var released atomic.Bool
	held, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.faulty.Script(func(c kerneltest.Call) kerneltest.Fault {
		if c.Method == "Apply" {
			once.Do(func() { close(held); <-hold })
		}
		return kerneltest.None
	})
	b.Program(desired(vip1, rs1))
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	defer func() { end(); running.Wait() }()
	<-held
	time.AfterFunc(20*time.Millisecond, func() { released.Store(true); close(hold) })
	keys := b.Forget()
	if !released.Load() {
		t.Error("forgot while the kernel was being changed")
	}
	if !slices.Equal(keys, []netstate.Key{vip1}) {
		t.Errorf("forgot %v", keys)
	}
}

func TestChangesAreToldAndRepetitionsAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.run(t)
		b.Program(desired(vip1, rs1))
		synctest.Wait()
		if told := b.tales(); !slices.Equal(told, []netstate.Key{vip1}) {
			t.Errorf("told %v", told)
		}
		b.Program(desired(vip1, rs1))
		time.Sleep(3 * auditInterval)
		synctest.Wait()
		if told := b.tales(); len(told) > 0 {
			t.Errorf("told %v of nothing", told)
		}
		// A verdict is news, whether it changes the kernel or not.
		b.Enqueue(vip1)
		b.Enqueue(vip2)
		synctest.Wait()
		if told := b.tales(); !slices.Equal(told, []netstate.Key{vip1}) {
			t.Errorf("told %v of a verdict", told)
		}
	})
}

func TestLivenessIsThatPassesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		d := &Director{worker: b.Worker}
		b.run(t)
		time.Sleep(time.Hour)
		if err := d.Alive(); err != nil {
			t.Errorf("with nothing to do: %v", err)
		}
		b.Program(desired(vip1, rs1))
		b.faulty.Script(func(kerneltest.Call) kerneltest.Fault { return kerneltest.Fail })
		time.Sleep(time.Hour)
		if err := d.Alive(); err != nil {
			t.Errorf("with a kernel that refuses: %v", err)
		}
		b.faulty.Script(func(kerneltest.Call) kerneltest.Fault { return kerneltest.Hang })
		time.Sleep(5 * time.Minute)
		if err := d.Alive(); err == nil {
			t.Error("with a kernel that hangs it counts as alive")
		}
	})
}
