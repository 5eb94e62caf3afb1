package kerneltest_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

var errBoom = errors.New("boom")

func TestFakeKeepsTheContract(t *testing.T) {
	kerneltest.Contract(t, func(*testing.T) kerneltest.Kernel { return kerneltest.NewFake() })
}

func TestFaultyWithoutAScriptKeepsTheContract(t *testing.T) {
	kerneltest.Contract(t, func(*testing.T) kerneltest.Kernel {
		return kerneltest.NewFaulty(kerneltest.NewFake(), errBoom)
	})
}

func TestFakeWithoutIPVSSaysSoUntilItIsLoaded(t *testing.T) {
	f := kerneltest.NewFake()
	f.SetIPVS(kerneltest.Missing)
	if err := f.Prepare(t.Context(), kerneltest.ContractNode); !errors.Is(err, kernel.ErrNoIPVS) {
		t.Fatalf("Prepare() = %v, want ErrNoIPVS", err)
	}
	if _, prepared := f.Node(); prepared {
		t.Error("something was prepared")
	}
	f.SetIPVS(kerneltest.There)
	if err := f.Prepare(t.Context(), kerneltest.ContractNode); err != nil {
		t.Errorf("Prepare() = %v", err)
	}
}

func TestFaultyDoesWhatItsScriptSays(t *testing.T) {
	op := netstate.AddressChange{
		Verb:  netstate.Add,
		Entry: netstate.AddressKey{Link: netstate.DummyLink, Addr: netip.MustParseAddr("192.0.2.1")},
	}
	cases := map[string]struct {
		fault    kerneltest.Fault
		wantErr  error
		wantDone bool
	}{
		"let through":    {kerneltest.None, nil, true},
		"fails":          {kerneltest.Fail, errBoom, false},
		"reply lost":     {kerneltest.LoseReply, errBoom, true},
		"hangs for ever": {kerneltest.Hang, context.DeadlineExceeded, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kerneltest.NewFake()
				faulty := kerneltest.NewFaulty(fake, errBoom)
				if err := faulty.Prepare(t.Context(), kerneltest.ContractNode); err != nil {
					t.Fatal(err)
				}
				faulty.Script(func(c kerneltest.Call) kerneltest.Fault {
					if c.Method == "Apply" && c.Op == netstate.Op(op) {
						return tc.fault
					}
					return kerneltest.None
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := faulty.Apply(ctx, op); !errors.Is(err, tc.wantErr) {
					t.Errorf("Apply() = %v, want %v", err, tc.wantErr)
				}
				_, done := fake.State().Addresses[op.Entry]
				if done != tc.wantDone {
					t.Errorf("done: %t, want %t", done, tc.wantDone)
				}
				if calls := faulty.Calls(); len(calls) != 2 || calls[1].Key != op.Key() {
					t.Errorf("Calls() = %v", calls)
				}
			})
		})
	}
}

func TestFailuresAreMadeGoodByTheNextPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		fake := kerneltest.NewFake()
		faulty := kerneltest.NewFaulty(fake, errBoom)
		if err := faulty.Prepare(ctx, kerneltest.ContractNode); err != nil {
			t.Fatal(err)
		}
		faults := rapid.SampledFrom([]kerneltest.Fault{
			kerneltest.None, kerneltest.None, kerneltest.None, kerneltest.Fail, kerneltest.LoseReply,
		})
		for range rapid.IntRange(1, 4).Draw(t, "passes") {
			want := kerneltest.StateGen().Draw(t, "want")
			faulty.Script(func(c kerneltest.Call) kerneltest.Fault {
				if c.Method != "Apply" {
					return kerneltest.None
				}
				return faults.Draw(t, "fault")
			})
			pass(t, faulty, want)
			faulty.Script(nil)
			if failed := pass(t, faulty, want); failed {
				t.Fatal("a pass without faults failed")
			}
			equal := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
			if diff := cmp.Diff(want, fake.State(), equal); diff != "" {
				t.Fatalf("the kernel holds something else (-want +got):\n%s", diff)
			}
		}
	})
}

// pass brings every key to what is wanted, skipping the rest of one that failed.
func pass(t *rapid.T, k kerneltest.Kernel, want netstate.State) (failed bool) {
	ctx := context.Background()
	owned, err := k.Keys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[netstate.Key]bool{}
	for _, key := range append(owned, want.Keys()...) {
		keys[key] = true
	}
	for key := range keys {
		have, err := k.Observe(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range netstate.Diff(have.State, want.Of(key)) {
			if err := k.Apply(ctx, op); err != nil {
				failed = true
				break
			}
		}
	}
	return failed
}
