package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ipvsFamily is the name of IPVS's generic netlink family, linux/ip_vs.h.
const ipvsFamily = "IPVS"

// ErrStaleIPVS means that ip_vs was unloaded and loaded again while this process
// ran, and that moby/ipvs goes on speaking to the family's old number: it looks
// that up once. Only a new process helps.
var ErrStaleIPVS = errors.New("ip_vs was loaded anew since this process first used it")

// ipvsHandle is what is used of *ipvs.Handle.
type ipvsHandle interface {
	NewService(*ipvs.Service) error
	UpdateService(*ipvs.Service) error
	DelService(*ipvs.Service) error
	GetService(*ipvs.Service) (*ipvs.Service, error)
	GetServices() ([]*ipvs.Service, error)
	IsServicePresent(*ipvs.Service) bool
	NewDestination(*ipvs.Service, *ipvs.Destination) error
	UpdateDestination(*ipvs.Service, *ipvs.Destination) error
	DelDestination(*ipvs.Service, *ipvs.Destination) error
	GetDestinations(*ipvs.Service) ([]*ipvs.Destination, error)
	GetConfig() (*ipvs.Config, error)
	SetConfig(*ipvs.Config) error
	Close()
}

// ipvsConn makes of moby/ipvs a client that can be relied on:
//
//   - Without the family moby does nothing and says nothing, and it looks the
//     family up once in a process. So the family is looked up here, before moby
//     is first used; an absent family is an error, and looked for again by the
//     next call.
//   - Two callers of one handle wait for ever. So callers take turns.
//   - A reply that is lost is waited for without end. So a watchdog gives the
//     handle up, and the next call opens another.
type ipvsConn struct {
	timeout time.Duration
	// look returns the number of the family, or an error that is ErrNoIPVS.
	look func() (uint16, error)
	open func() (ipvsHandle, error)

	// turn has room for one: who puts a value in may use what follows.
	turn   chan struct{}
	handle ipvsHandle
	family uint16
	closed bool
}

func newIPVSConn(ns namespace, timeout time.Duration) *ipvsConn {
	return &ipvsConn{
		timeout: timeout,
		look:    func() (uint16, error) { return lookUpFamily(ns, timeout) },
		open: func() (ipvsHandle, error) {
			h, err := ipvs.New(ns.path())
			if err != nil {
				return nil, fmt.Errorf("opening IPVS: %w", err)
			}
			return h, nil
		},
		turn: make(chan struct{}, 1),
	}
}

// lookUpFamily asks the kernel for the family, which makes it load the module.
func lookUpFamily(ns namespace, timeout time.Duration) (uint16, error) {
	h, err := netlink.NewHandleAt(ns.handle, unix.NETLINK_GENERIC)
	if err != nil {
		return 0, fmt.Errorf("opening generic netlink: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(timeout); err != nil {
		return 0, fmt.Errorf("limiting generic netlink's time: %w", err)
	}
	family, err := h.GenlFamilyGet(ipvsFamily)
	if errors.Is(err, unix.ENOENT) {
		return 0, ErrNoIPVS
	}
	if err != nil {
		return 0, fmt.Errorf("looking up the netlink family %s: %w", ipvsFamily, err)
	}
	return family.ID, nil
}

// exchange calls fn with the handle, alone, and for no longer than the
// connection's timeout and ctx allow. After ErrLostReply fn may still run for a
// moment: what it returns is thrown away, so it must not write to variables of
// its caller.
func exchange[T any](ctx context.Context, c *ipvsConn, fn func(ipvsHandle) (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return zero, ctx.Err()
	}
	defer func() { <-c.turn }()

	if err := c.ensureOpen(); err != nil {
		return zero, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, ErrLostReply)
	defer cancel()
	value, err := await(ctx, c.handle, fn)
	if errors.Is(err, errAbandoned) {
		c.handle.Close()
		c.handle = nil
		if cause := context.Cause(ctx); !errors.Is(cause, ErrLostReply) {
			return zero, fmt.Errorf("%w: %w", ErrLostReply, cause)
		}
		return zero, ErrLostReply
	}
	if errors.Is(err, unix.ENOENT) {
		// ENOENT is also what the kernel says to a family that is gone.
		if familyErr := c.recheck(); familyErr != nil {
			return zero, familyErr
		}
	}
	return value, err
}

var errAbandoned = errors.New("abandoned")

func await[T any](ctx context.Context, h ipvsHandle, fn func(ipvsHandle) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := fn(h)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, errAbandoned
	}
}

// do is exchange for calls that return an error alone.
func (c *ipvsConn) do(ctx context.Context, fn func(ipvsHandle) error) error {
	_, err := exchange(ctx, c, func(h ipvsHandle) (struct{}, error) { return struct{}{}, fn(h) })
	return err
}

// present returns nil if the kernel has IPVS. It is for whoever holds no turn.
func (c *ipvsConn) present(ctx context.Context) error {
	return c.do(ctx, func(ipvsHandle) error { return nil })
}

// ensureOpen opens a handle if there is none.
func (c *ipvsConn) ensureOpen() error {
	if c.closed {
		return ErrClosed
	}
	if c.handle != nil {
		return nil
	}
	family, err := c.look()
	if err != nil {
		return err
	}
	h, err := c.open()
	if err != nil {
		return err
	}
	if err := checkHandle(h); err != nil {
		h.Close()
		return err
	}
	c.handle, c.family = h, family
	return nil
}

// checkHandle finds out whether moby speaks to the right family. If it found
// none when it looked (once in a process) everything succeeds and nothing
// happens, so a service that can't exist is there; if it knows an old number
// everything is ENOENT.
func checkHandle(h ipvsHandle) error {
	if h.IsServicePresent(&ipvs.Service{AddressFamily: unix.AF_INET, Protocol: unix.IPPROTO_TCP, Address: make([]byte, 4)}) {
		return ErrStaleIPVS
	}
	if _, err := h.GetConfig(); errors.Is(err, unix.ENOENT) {
		return ErrStaleIPVS
	} else if err != nil {
		return fmt.Errorf("reading IPVS's timeouts: %w", err)
	}
	return nil
}

// recheck says whether the family is still what the handle speaks to.
func (c *ipvsConn) recheck() error {
	family, err := c.look()
	if err == nil && family == c.family {
		return nil
	}
	c.handle.Close()
	c.handle = nil
	if err == nil {
		return ErrStaleIPVS
	}
	return err
}

// close waits for its turn and gives the handle up.
func (c *ipvsConn) close() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.handle != nil {
		c.handle.Close()
		c.handle = nil
	}
	c.closed = true
}
