package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/node"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

const (
	// portPoll is how often busy lines, or a guest that boots, are tried again.
	portPoll = 100 * time.Millisecond
	// welcomeLimit is after how long without an answer a call is made anew: a
	// line may be stuck in the middle of an earlier caller's frame.
	welcomeLimit = 5 * time.Second
)

// Exec runs a command on a node, through a serial line and so whatever is cut,
// or in the namespace of a host, and returns its exit code. The code is -1
// with an error if the command could not be run. If ctx ends, so does the
// command. It waits for a node that is booting, and fails for one that is off.
func (l *Lab) Exec(ctx context.Context, name string, args []string, streams wire.Streams) (int, error) {
	if len(args) == 0 {
		return -1, errors.New("no command to run")
	}
	if _, found := findHost(name); found || name == Control {
		return l.execHost(ctx, name, args, streams)
	}
	if _, found := l.config.findNode(name); !found {
		return -1, l.unknown(name, "a node or a host")
	}
	session, release, err := l.dialNode(ctx, name)
	if err != nil {
		return -1, fmt.Errorf("running %s on %s: %w", args[0], name, err)
	}
	defer release()
	code, err := session.Run(ctx, args, streams)
	if err != nil {
		return code, fmt.Errorf("running %s on %s: %w", args[0], name, err)
	}
	return code, nil
}

// Output runs a command like Exec and returns what it wrote to stdout. A
// command that fails is an error with what it wrote to stderr.
func (l *Lab) Output(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	code, err := l.Exec(ctx, name, args, wire.Streams{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return stdout.String(), err
	}
	if code != 0 {
		return stdout.String(), fmt.Errorf("running %s on %s: exit status %d: %s",
			strings.Join(args, " "), name, code, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// In calls fn on a thread in the network namespace of a host or of Control.
// Goroutines that fn starts run outside: use Dial with an HTTP client.
func (l *Lab) In(host string, fn func() error) error {
	if _, found := findHost(host); !found && host != Control {
		return l.unknown(host, "a host")
	}
	return inNamespace(namespace(l.config.Name, host), fn)
}

// Dial returns a function that connects from a host, for an http.Transport or
// as it is. It takes numeric addresses.
func (l *Lab) Dial(host string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialIn(ctx, namespace(l.config.Name, host), network, address, 0)
	}
}

// DialFrom is Dial for TCP from given ports: each connection takes the next one,
// which has to be outside of what Dial's come from (see clientPorts).
func (l *Lab) DialFrom(host string, next func() int) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialIn(ctx, namespace(l.config.Name, host), network, address, next())
	}
}

func (l *Lab) execHost(ctx context.Context, name string, args []string, streams wire.Streams) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.Stdin, streams.Stdout, streams.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := l.In(name, cmd.Start); err != nil {
		return -1, fmt.Errorf("running %s on %s: %w", args[0], name, err)
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return -1, ctx.Err()
	}
	if status, isUnix := cmd.ProcessState.Sys().(syscall.WaitStatus); isUnix && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit && !errors.Is(err, exec.ErrWaitDelay) {
		return -1, fmt.Errorf("running %s on %s: %w", args[0], name, err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// dialNode waits for a free line to a node's agent and for its answer.
func (l *Lab) dialNode(ctx context.Context, name string) (*wire.Session, func(), error) {
	tick := time.NewTicker(portPoll)
	defer tick.Stop()
	for {
		if _, running := l.recorded(nodeProcess(name)); !running {
			return nil, nil, errors.New("the node is off")
		}
		for port := range node.Ports {
			session, release, err := l.tryPort(ctx, name, port)
			if err != nil {
				return nil, nil, err
			}
			if session != nil {
				return session, release, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// tryPort returns no session if another caller has the line, or the agent
// doesn't answer yet.
func (l *Lab) tryPort(ctx context.Context, name string, port int) (*wire.Session, func(), error) {
	lock, err := os.OpenFile(l.portSocket(name, port)+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, lock.Close() // it is taken
	}
	release := func() { _ = lock.Close() }
	limited, cancel := context.WithTimeout(ctx, welcomeLimit)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(limited, "unix", l.portSocket(name, port))
	if err == nil {
		var session *wire.Session
		if session, err = wire.Dial(limited, conn); err == nil {
			return session, release, nil
		}
	}
	release()
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	return nil, nil, nil //nolint:nilnil // documented: no session, no error
}
