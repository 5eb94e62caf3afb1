package kernel

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace to work on.
type namespace struct {
	// handle is none for the process's own namespace. Entering a namespace, even
	// one's own, takes CAP_SYS_ADMIN, which a director does not have.
	handle netns.NsHandle
	// foreign says that it is not the one that this process runs in, so that
	// code has to be brought into it.
	foreign bool
}

// openNamespace opens the namespace at path; without one it is the process's.
func openNamespace(path string) (namespace, error) {
	if path == "" {
		return namespace{handle: netns.None()}, nil
	}
	handle, err := netns.GetFromPath(path)
	if err != nil {
		return namespace{}, fmt.Errorf("opening network namespace %s: %w", path, err)
	}
	return namespace{handle: handle, foreign: true}, nil
}

// path names the open namespace for those who can only take a path; empty is
// the process's own.
func (n namespace) path() string {
	if !n.foreign {
		return ""
	}
	return fmt.Sprintf("/proc/self/fd/%d", int(n.handle))
}

// fd is the namespace for those to whom 0 is the process's own.
func (n namespace) fd() int {
	if !n.foreign {
		return 0
	}
	return int(n.handle)
}

func (n namespace) close() error {
	if !n.foreign {
		return nil
	}
	if err := n.handle.Close(); err != nil {
		return fmt.Errorf("closing the network namespace: %w", err)
	}
	return nil
}

// run calls fn in the namespace. What fn opens under /proc/sys/net belongs to
// it: the kernel goes by the task that opens.
func (n namespace) run(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !n.foreign {
		return fn()
	}
	result := make(chan error, 1)
	go func() { result <- n.enter(fn) }()
	return <-result
}

// enter calls fn in the namespace on a thread that ends with the calling
// goroutine, so that no other code can come to run in this namespace.
func (n namespace) enter(fn func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread does not end with its goroutine: it would stay in the
		// namespace, and so would keep it. It is held while another one does it.
		defer runtime.UnlockOSThread()
		result := make(chan error, 1)
		go func() { result <- n.enter(fn) }()
		return <-result
	}
	if err := unix.Setns(int(n.handle), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	return fn()
}

// join is errors.Join, kept to the first error if the others are nil, so that
// messages stay on one line.
func join(first error, others ...error) error {
	for _, err := range others {
		if err != nil {
			return errors.Join(append([]error{first}, others...)...)
		}
	}
	return first
}
