package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
)

const (
	// runDir holds what programs keep while they run: gone with the round.
	runDir = "/run/bench"
	// serveLimit is many times what a system needs to serve.
	serveLimit = 3 * time.Minute
	// servePoll is not short: what is asked for are programs that the guest has to
	// start beside what it waits for.
	servePoll = 500 * time.Millisecond
)

// up builds the network, starts the real servers and a system, and returns once a
// client is served and the standby could serve it too.
func up(ctx context.Context, system plan.System) error {
	if !slices.Contains(plan.Systems(), system) {
		return fmt.Errorf("%q is no system: there are %v", system, plan.Systems())
	}
	if err := down(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(runDir); err != nil {
		return fmt.Errorf("clearing %s: %w", runDir, err)
	}
	if err := os.MkdirAll(plan.LogDir, 0o755); err != nil {
		return fmt.Errorf("making room for logs: %w", err)
	}
	if err := buildNetwork(ctx); err != nil {
		return err
	}
	for _, host := range plan.Hosts() {
		command, err := commandOf(system, host)
		if err != nil {
			return err
		}
		if command == nil {
			continue
		}
		if err := start(host.Name, command); err != nil {
			return err
		}
	}
	return awaitService(ctx, system)
}

// commandOf is what runs on a host; nil on the client.
func commandOf(system plan.System, host plan.Host) ([]string, error) {
	switch {
	case host.Weight > 0:
		return []string{plan.Responder, "--name", host.Name}, nil
	case !host.Director():
		return nil, nil
	case system == plan.Ours:
		return []string{
			plan.Director, "--node-name", host.Name, "--kubeconfig", cluster.AdminKubeconfig,
			"--state-dir", filepath.Join(runDir, "state-"+host.Name),
		}, nil
	default:
		return keepalivedCommand(system, host)
	}
}

func keepalivedCommand(system plan.System, host plan.Host) ([]string, error) {
	words, err := os.ReadFile(plan.KeepalivedFile)
	if err != nil {
		return nil, fmt.Errorf("looking for keepalived: %w", err)
	}
	file := func(name string) string { return filepath.Join(runDir, host.Name+"."+name) }
	if err := os.WriteFile(file("conf"), []byte(keepalivedConf(system, host)), 0o600); err != nil {
		return nil, fmt.Errorf("configuring keepalived: %w", err)
	}
	return append(strings.Fields(string(words)),
		"--dont-fork", "--no-syslog", "--log-console", "--log-detail", "--use-file", file("conf"),
		"--pid", file("keepalived.pid"), "--vrrp_pid", file("vrrp.pid"), "--checkers_pid", file("checkers.pid")), nil
}

// start starts a program on a host. It outlives us.
func start(host string, command []string) error {
	log, err := os.Create(filepath.Join(plan.LogDir, host+".log"))
	if err != nil {
		return fmt.Errorf("starting %s on %s: %w", command[0], host, err)
	}
	defer log.Close()
	// ip becomes the program, so the process is the program's.
	cmd := exec.Command("ip", append([]string{"netns", "exec", host}, command...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s on %s: %w", command[0], host, err)
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }()
	if err := os.WriteFile(pidFile(host), []byte(pid), 0o600); err != nil {
		return fmt.Errorf("recording %s of %s: %w", command[0], host, err)
	}
	return nil
}

func pidFile(host string) string { return filepath.Join(runDir, host+".pid") }

// mainProcess is what start started on a host.
func mainProcess(host string) (int, error) {
	content, err := os.ReadFile(pidFile(host))
	if err != nil {
		return 0, fmt.Errorf("looking up the process of %s: %w", host, err)
	}
	return strconv.Atoi(string(content))
}

// awaitService waits until a client is answered by both real servers, both
// directors' kernels would forward to both, and, of ours, each hears the other.
func awaitService(ctx context.Context, system plan.System) error {
	ctx, cancel := context.WithTimeout(ctx, serveLimit)
	defer cancel()
	tick := time.NewTicker(servePoll)
	defer tick.Stop()
	for {
		missing := firstMissing(ctx, system)
		if missing == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until it serves: %w: %w", ctx.Err(), missing)
		case <-tick.C:
		}
	}
}

func firstMissing(ctx context.Context, system plan.System) error {
	own, err := os.Executable()
	if err != nil {
		return fmt.Errorf("looking for this program: %w", err)
	}
	for _, host := range plan.Hosts() {
		if !host.Director() {
			continue
		}
		if err := programmed(ctx, host.Name); err != nil {
			return err
		}
		if system != plan.Ours {
			continue
		}
		if _, err := ip(ctx, "netns", "exec", host.Name, own, "hears"); err != nil {
			return err
		}
	}
	if _, err := ip(ctx, "netns", "exec", plan.Client, own, "ask"); err != nil {
		return err
	}
	_, err = active(ctx)
	return err
}

// programmed says what a director's kernel lacks.
func programmed(ctx context.Context, director string) error {
	table, err := ip(ctx, "netns", "exec", director, "ipvsadm", "-Ln")
	if err != nil {
		return err
	}
	for _, host := range plan.Hosts() {
		if host.Weight > 0 && !forwards(table, host) {
			return fmt.Errorf("%s does not forward to %s", director, host.Name)
		}
	}
	return nil
}

// forwards reads ipvsadm's table for a line with a real server's address and
// weight.
func forwards(table string, server plan.Host) bool {
	address, _, _ := strings.Cut(server.Segment, "/")
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) >= 4 && fields[0] == "->" && fields[1] == address+":80" && fields[3] == strconv.Itoa(server.Weight) {
			return true
		}
	}
	return false
}

// active is the director that the client sends to.
func active(ctx context.Context) (string, error) {
	entry, err := ip(ctx, "-n", plan.Client, "neighbour", "show", plan.VIP)
	if err != nil {
		return "", err
	}
	for _, host := range plan.Hosts() {
		if host.Director() && strings.Contains(entry, host.MAC) {
			return host.Name, nil
		}
	}
	return "", fmt.Errorf("no director has the VIP for the client: %q", strings.TrimSpace(entry))
}
