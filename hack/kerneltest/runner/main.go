// Command runner is the first and only program of the guest that kernel tests
// run in: it prepares the machine, runs each test binary of its plan, reports,
// and powers off.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/kerneltest/plan"
	"github.com/lvs-operator/lvs-operator/hack/lab/guest/pid1"
)

// portLimit is many times what the port needs to come up under emulation.
const portLimit = 30 * time.Second

func main() {
	// The console shows it, and the missing result fails the run.
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
	}
	if err := pid1.PowerOff(); err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
	}
}

func run() error {
	if err := prepare(); err != nil {
		return err
	}
	content, err := os.ReadFile(plan.File)
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	var todo plan.Plan
	if err := json.Unmarshal(content, &todo); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), portLimit)
	defer cancel()
	port, err := pid1.OpenPort(ctx, plan.Port)
	if err != nil {
		return err
	}
	defer port.Close()
	events := &reporter{encoder: json.NewEncoder(port)}
	for i, binary := range todo.Binaries {
		if err := runBinary(i, binary, events); err != nil {
			return err
		}
	}
	return nil
}

func prepare() error {
	if err := pid1.MountKernel("/"); err != nil {
		return err
	}
	if err := pid1.LoadModules(); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return fmt.Errorf("making room for network namespaces: %w", err)
	}
	if out, err := exec.Command("/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
		return fmt.Errorf("installing busybox: %w: %s", err, out)
	}
	return pid1.LinkUp("lo")
}

func runBinary(index int, binary plan.Binary, events *reporter) error {
	cmd := exec.Command(binary.Path, binary.Args...)
	cmd.Dir, cmd.Env = binary.Dir, binary.Env
	out := &output{binary: index, events: events}
	cmd.Stdout, cmd.Stderr = out, out
	// A process that a test left behind must not keep the pipe open for ever.
	cmd.WaitDelay = time.Second
	started := time.Now()
	err := cmd.Run()
	done := plan.Event{Binary: index, Done: true, Seconds: time.Since(started).Seconds()}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		done.Exit = max(1, cmd.ProcessState.ExitCode())
		if _, isExit := errors.AsType[*exec.ExitError](err); !isExit {
			done.Output = []byte(err.Error() + "\n")
		}
	}
	return events.report(done)
}

type reporter struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func (r *reporter) report(event plan.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.encoder.Encode(event); err != nil {
		return fmt.Errorf("reporting: %w", err)
	}
	return nil
}

type output struct {
	binary int
	events *reporter
}

func (o *output) Write(p []byte) (int, error) {
	if err := o.events.report(plan.Event{Binary: o.binary, Output: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}
