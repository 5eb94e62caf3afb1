// Command agent is the first program of a lab node. It puts the root file
// system together, starts the node's services, and runs commands for callers
// outside over virtio-serial lines.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest/pid1"
)

// workerArg makes this program the worker instead of process 1.
const workerArg = "work"

func main() {
	run := boot
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		run = work
	}
	err := run()
	fmt.Fprintln(os.Stderr, "agent:", err)
	if os.Getpid() == 1 {
		err = pid1.PowerOff()
		fmt.Fprintln(os.Stderr, "agent:", err)
	}
	os.Exit(1)
}

// boot is process 1. It leaves the work to a child, because process 1 has to
// collect the exit of every orphan (containerd's shims are), and would take
// those of its own commands away from os/exec.
func boot() error {
	if err := pid1.MountKernel("/"); err != nil {
		return err
	}
	if err := pid1.LoadModules(); err != nil {
		return err
	}
	if err := buildRoot(); err != nil {
		return err
	}
	if err := enterRoot(); err != nil {
		return err
	}
	worker := exec.Command("/proc/self/exe", workerArg)
	worker.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=linux"}
	worker.Stdout, worker.Stderr = os.Stdout, os.Stderr
	if err := worker.Start(); err != nil {
		return fmt.Errorf("starting the worker: %w", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("collecting orphans: %w", err)
		}
		if pid == worker.Process.Pid {
			return errors.New("the worker ended")
		}
	}
}
