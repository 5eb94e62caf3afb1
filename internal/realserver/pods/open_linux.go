package pods

import (
	"errors"
	"fmt"
	"os"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

// OpenKernel returns the OpenHost of a program: namespaces of the kernel.
// Sysctls is where the host's /proc/sys/net is mounted, writable; it serves for
// all namespaces, since the kernel goes by whoever opens a file there.
func OpenKernel(sysctls string) func(netns, stateDir string) (Host, error) {
	return func(netns, stateDir string) (Host, error) {
		if err := foreign(netns); err != nil {
			return nil, err
		}
		host, err := kernel.NewRealServer(kernel.Options{NetNS: netns, Sysctls: sysctls, StateDir: stateDir})
		if err != nil {
			return nil, err
		}
		return host, nil
	}
}

// foreign refuses this process's own namespace in place of a pod's: whoever gave
// its path is wrong about whose it is.
func foreign(netns string) error {
	if netns == "" {
		return nil
	}
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("finding the network namespace of this process: %w", err)
	}
	pods, err := os.Stat(netns)
	if err != nil {
		return fmt.Errorf("finding network namespace %s: %w", netns, err)
	}
	if os.SameFile(own, pods) {
		return errors.New("network namespace " + netns + " is the node's own")
	}
	return nil
}
