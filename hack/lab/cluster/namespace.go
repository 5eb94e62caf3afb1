package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// namespaceDir is where ip netns keeps named network namespaces.
const namespaceDir = "/run/netns"

// inNamespace calls fn on a thread of the named network namespace. The thread
// is not used again, so that no other goroutine can end up in the namespace.
// Goroutines that fn starts run outside.
func inNamespace(name string, fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- enterAndCall(name, fn)
	}()
	return <-result
}

func enterAndCall(name string, fn func() error) error {
	file, err := os.Open(filepath.Join(namespaceDir, name))
	if err != nil {
		return fmt.Errorf("entering namespace %s: %w", name, err)
	}
	err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("entering namespace %s: %w", name, err)
	}
	return fn()
}

// dialIn connects from within a namespace, from a port if it is not 0. The address
// has to be numeric.
func dialIn(ctx context.Context, name, network, address string, port int) (net.Conn, error) {
	var conn net.Conn
	err := inNamespace(name, func() (err error) {
		var dialer net.Dialer
		if port != 0 {
			dialer.LocalAddr = &net.TCPAddr{Port: port}
		}
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// namespaceExists says whether there is a namespace with this name.
func namespaceExists(name string) bool {
	_, err := os.Lstat(filepath.Join(namespaceDir, name))
	return err == nil
}

// residents lists the processes in a namespace, except this one. A name that
// is not a namespace, or that is the machine's own, has none.
func residents(name string) ([]int, error) {
	want, err := os.Stat(filepath.Join(namespaceDir, name))
	if err != nil {
		return nil, fmt.Errorf("looking at namespace %s: %w", name, err)
	}
	for _, own := range []string{"/proc/self/ns/net", "/proc/1/ns/net"} {
		if info, err := os.Stat(own); err == nil && os.SameFile(info, want) {
			return nil, nil
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var found []int
	for _, link := range links {
		info, err := os.Stat(link)
		if err != nil || !os.SameFile(info, want) {
			continue // ended meanwhile, or elsewhere
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link))))
		if err == nil && pid != os.Getpid() {
			found = append(found, pid)
		}
	}
	return found, nil
}

// deleteNamespace ends what runs in a namespace and removes it, with all
// links in it. A namespace that isn't there is no error.
func deleteNamespace(ctx context.Context, name string) error {
	if !namespaceExists(name) {
		return nil
	}
	pids, err := residents(name)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		// Of two looks at one id only the same start is the same process.
		process, err := identify(pid)
		if err == nil {
			err = process.kill(ctx)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("clearing namespace %s: %w", name, err)
		}
	}
	if _, err := machine.Run(ctx, "", "ip", "netns", "delete", name); err != nil {
		return fmt.Errorf("removing namespace %s: %w", name, err)
	}
	return nil
}
