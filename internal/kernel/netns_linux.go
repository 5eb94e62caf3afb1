package kernel

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is an open network namespace.
type namespace struct {
	handle netns.NsHandle
	// foreign says that it is not the one that this process runs in, so that
	// code has to be brought into it.
	foreign bool
}

// openNamespace opens the namespace at path, or that of the calling thread.
func openNamespace(path string) (namespace, error) {
	if path == "" {
		handle, err := netns.Get()
		if err != nil {
			return namespace{}, fmt.Errorf("opening the network namespace: %w", err)
		}
		return namespace{handle: handle}, nil
	}
	handle, err := netns.GetFromPath(path)
	if err != nil {
		return namespace{}, fmt.Errorf("opening network namespace %s: %w", path, err)
	}
	return namespace{handle: handle, foreign: true}, nil
}

// path names the open namespace for those who can only take a path.
func (n namespace) path() string { return fmt.Sprintf("/proc/self/fd/%d", int(n.handle)) }

func (n namespace) close() error {
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
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so that no
		// other code can come to run in this namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(n.handle), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		result <- fn()
	}()
	return <-result
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
