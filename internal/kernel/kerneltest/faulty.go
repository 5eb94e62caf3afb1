package kerneltest

import (
	"context"
	"sync"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Fault is what happens to one call.
type Fault uint8

// The faults.
const (
	// None lets the call through.
	None Fault = iota
	// Fail returns an error and does nothing.
	Fail
	// LoseReply does what is asked and returns an error all the same.
	LoseReply
	// Hang does nothing and returns when the context ends.
	Hang
)

// Call is one call of a Kernel's method.
type Call struct {
	// Method is "Prepare", "Restore", "Keys", "Observe" or "Apply".
	Method string
	// Key is what Observe and Apply are about, Op what Apply is given.
	Key netstate.Key
	Op  netstate.Op
}

// Faulty wraps a Kernel and makes calls of it go wrong.
type Faulty struct {
	Kernel Kernel
	// Err is what failing calls return.
	Err error

	mu     sync.Mutex
	decide func(Call) Fault
	calls  []Call
}

// NewFaulty wraps k; err is what failing calls return. Without a script nothing
// fails.
func NewFaulty(k Kernel, err error) *Faulty {
	return &Faulty{Kernel: k, Err: err}
}

// Script decides from now on what happens to each call; nil lets all through.
// It is called for one call at a time.
func (f *Faulty) Script(decide func(Call) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decide = decide
}

// Calls returns all calls so far, also those that failed.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// fault notes a call and decides about it.
func (f *Faulty) fault(c Call) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, c)
	if f.decide == nil {
		return None
	}
	return f.decide(c)
}

// meet makes a call meet its fault.
func meet[T any](ctx context.Context, f *Faulty, c Call, do func() (T, error)) (T, error) {
	var zero T
	switch f.fault(c) {
	case Fail:
		return zero, f.Err
	case LoseReply:
		if _, err := do(); err != nil {
			return zero, err
		}
		return zero, f.Err
	case Hang:
		<-ctx.Done()
		return zero, ctx.Err()
	default:
		return do()
	}
}

// Prepare calls the wrapped kernel's, or goes wrong.
func (f *Faulty) Prepare(ctx context.Context, node netstate.Node) error {
	_, err := meet(ctx, f, Call{Method: "Prepare"}, func() (struct{}, error) {
		return struct{}{}, f.Kernel.Prepare(ctx, node)
	})
	return err
}

// Restore calls the wrapped kernel's, or goes wrong.
func (f *Faulty) Restore(ctx context.Context) error {
	_, err := meet(ctx, f, Call{Method: "Restore"}, func() (struct{}, error) {
		return struct{}{}, f.Kernel.Restore(ctx)
	})
	return err
}

// Keys calls the wrapped kernel's, or goes wrong.
func (f *Faulty) Keys(ctx context.Context) ([]netstate.Key, error) {
	return meet(ctx, f, Call{Method: "Keys"}, func() ([]netstate.Key, error) { return f.Kernel.Keys(ctx) })
}

// Observe calls the wrapped kernel's, or goes wrong.
func (f *Faulty) Observe(ctx context.Context, key netstate.Key) (netstate.Observation, error) {
	return meet(ctx, f, Call{Method: "Observe", Key: key}, func() (netstate.Observation, error) {
		return f.Kernel.Observe(ctx, key)
	})
}

// Apply calls the wrapped kernel's, or goes wrong.
func (f *Faulty) Apply(ctx context.Context, op netstate.Op) error {
	_, err := meet(ctx, f, Call{Method: "Apply", Key: op.Key(), Op: op}, func() (struct{}, error) {
		return struct{}{}, f.Kernel.Apply(ctx, op)
	})
	return err
}
