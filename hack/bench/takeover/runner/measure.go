package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

// failing is the real server of the backend events.
const failing = plan.RS1

// measure causes an event while a client loads the VIP, and returns what it saw.
func measure(ctx context.Context, event plan.Event) (plan.Seen, error) {
	c, err := startClient(ctx, event)
	if err != nil {
		return plan.Seen{}, err
	}
	defer c.end()
	before := plan.Age
	if event == plan.APIAwayCrash {
		before = max(plan.Age, plan.APIAway)
		if err := cutAPI(ctx); err != nil {
			return plan.Seen{}, err
		}
	}
	if err := pause(ctx, before); err != nil {
		return plan.Seen{}, err
	}
	was, err := active(ctx)
	if err != nil {
		return plan.Seen{}, err
	}
	strike, err := prepare(ctx, event, was)
	if err != nil {
		return plan.Seen{}, err
	}
	if err := c.mark(); err != nil {
		return plan.Seen{}, err
	}
	if err := strike(); err != nil {
		return plan.Seen{}, fmt.Errorf("causing %s: %w", event, err)
	}
	if err := c.settle(ctx, event.After()); err != nil {
		return plan.Seen{}, err
	}
	seen, err := c.result()
	seen.Active = was
	return seen, err
}

// prepare does what takes time and returns the event itself.
func prepare(ctx context.Context, event plan.Event, director string) (strike func() error, err error) {
	switch event {
	case plan.GracefulStop:
		pid, err := mainProcess(director)
		return func() error { return kill([]int{pid}, syscall.SIGTERM) }, err
	case plan.ProcessKill:
		pids, err := residents(director)
		return func() error { return kill(pids, syscall.SIGKILL) }, err
	case plan.NodeCrash, plan.APIAwayCrash:
		pids, err := residents(director)
		return func() error {
			// First its network: the kernel would still close the connections of
			// processes that end.
			return errors.Join(
				batch(ctx, "bridge", []string{
					"link set dev " + segmentPort(director) + " state 0",
					"link set dev " + managementPort(director) + " state 0",
				}),
				kill(pids, syscall.SIGKILL))
		}, err
	case plan.LinkDown:
		return func() error { return batch(ctx, "ip", []string{"link set " + segmentPort(director) + " down"}) }, nil
	case plan.BackendRST:
		pids, err := residents(failing)
		return func() error { return kill(pids, syscall.SIGKILL) }, err
	case plan.SteadyLoad:
		return func() error { return nil }, nil
	case plan.BackendBlackhole:
		return func() error {
			return batch(ctx, "bridge", []string{"link set dev " + segmentPort(failing) + " state 0"})
		}, nil
	}
	return nil, fmt.Errorf("%q is no event: there are %v and %s", event, plan.Events(), plan.SteadyLoad)
}

// client is the process in the client's namespace.
type client struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	// lines are what it says, up to the end of it.
	lines <-chan string
}

// startClient returns once the client's connections are open.
func startClient(ctx context.Context, event plan.Event) (*client, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("looking for this program: %w", err)
	}
	c := &client{cmd: exec.CommandContext(ctx, "ip", "netns", "exec", plan.Client, own, "client", string(event))}
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting the client: %w", err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the client: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the client: %w", err)
	}
	c.lines = linesOf(stdout)
	if line := <-c.lines; line != clientReady {
		c.end()
		return nil, fmt.Errorf("starting the client: it said %q", line)
	}
	return c, nil
}

// linesOf reads lines until there are no more. More than a client says fit in.
func linesOf(from io.Reader) <-chan string {
	const most = 8
	lines := make(chan string, most)
	go func() {
		defer close(lines)
		for reader := bufio.NewReader(from); ; {
			line, err := reader.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	return lines
}

// settle returns once the event is over for the client, or after a while.
func (c *client) settle(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	case line := <-c.lines:
		if line != clientSettled {
			return fmt.Errorf("waiting for the client: it said %q", line)
		}
		return nil
	}
}

// mark tells the client that the event comes now.
func (c *client) mark() error {
	_, err := io.WriteString(c.stdin, "now\n")
	return err
}

// result ends the load and returns what it saw.
func (c *client) result() (plan.Seen, error) {
	var seen plan.Seen
	if err := c.stdin.Close(); err != nil {
		return seen, fmt.Errorf("asking the client: %w", err)
	}
	line := <-c.lines
	if line == clientSettled {
		line = <-c.lines
	}
	if err := json.Unmarshal([]byte(line), &seen); err != nil {
		return seen, fmt.Errorf("asking the client, which said %q: %w", line, err)
	}
	return seen, nil
}

func (c *client) end() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
