package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

const (
	segment    = "segment"
	management = "management"
	netnsDir   = "/run/netns"
)

// segmentPort and managementPort are a host's ports of the two bridges, which are
// in the guest's own namespace: there one command takes both from a host.
func segmentPort(host string) string    { return "s-" + host }
func managementPort(host string) string { return "m-" + host }

// buildNetwork makes the bridges and the hosts.
func buildNetwork(ctx context.Context) error {
	commands := []string{}
	for _, bridge := range []string{segment, management} {
		commands = append(commands,
			"link add "+bridge+" type bridge forward_delay 0 mcast_snooping 0",
			"link set "+bridge+" up")
	}
	commands = append(commands, "address add "+plan.ManagementGateway+"/24 dev "+management)
	for _, host := range plan.Hosts() {
		commands = append(commands,
			"netns add "+host.Name,
			"link add "+segmentPort(host.Name)+" type veth peer name eth0 address "+host.MAC+" netns "+host.Name,
			"link set "+segmentPort(host.Name)+" master "+segment+" up")
		if host.Director() {
			commands = append(commands,
				"link add "+managementPort(host.Name)+" type veth peer name eth1 netns "+host.Name,
				"link set "+managementPort(host.Name)+" master "+management+" up")
		}
	}
	if err := batch(ctx, "ip", commands); err != nil {
		return err
	}
	for _, host := range plan.Hosts() {
		if err := batch(ctx, "ip", hostCommands(host), "-n", host.Name); err != nil {
			return err
		}
		if host.Weight > 0 {
			if err := silence(ctx, host.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func hostCommands(host plan.Host) []string {
	commands := []string{"link set lo up"}
	if host.Weight > 0 {
		commands = append(commands, "address add "+plan.VIP+"/32 dev lo")
	}
	commands = append(commands, "link set eth0 up", "address add "+host.Segment+" dev eth0")
	if host.Director() {
		commands = append(commands,
			"link set eth1 up", "address add "+host.Management+" dev eth1",
			"route add default via "+plan.ManagementGateway)
	}
	return commands
}

// silence keeps a real server from answering for its VIP, as the classic set-up
// does: the real servers are the same for all systems.
func silence(ctx context.Context, host string) error {
	_, err := ip(ctx, "netns", "exec", host, "sysctl", "-qw",
		"net.ipv4.conf.lo.arp_ignore=1", "net.ipv4.conf.lo.arp_announce=2",
		"net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
	return err
}

// down ends all processes of the hosts and removes the network. What isn't there
// is no error.
func down(ctx context.Context) error {
	var failed error
	for _, host := range plan.Hosts() {
		if _, err := os.Stat(filepath.Join(netnsDir, host.Name)); err != nil {
			continue
		}
		pids, err := residents(ctx, host.Name)
		failed = errors.Join(failed, err, kill(pids, syscall.SIGKILL))
		_, err = ip(ctx, "netns", "delete", host.Name)
		failed = errors.Join(failed, err)
	}
	for _, host := range plan.Hosts() {
		removeLink(ctx, segmentPort(host.Name))
		removeLink(ctx, managementPort(host.Name))
	}
	removeLink(ctx, segment)
	removeLink(ctx, management)
	restoreAPI(ctx)
	return failed
}

// removeLink removes a link; with the namespace of its peer it is gone already.
func removeLink(ctx context.Context, name string) {
	_, _ = ip(ctx, "link", "delete", name)
}

// cutAPI drops what goes between directors and the API server, without a word to
// either.
func cutAPI(ctx context.Context) error {
	var commands []string
	for _, address := range cutAddresses() {
		commands = append(commands, "route add blackhole "+address+"/32")
	}
	return batch(ctx, "ip", commands)
}

// restoreAPI undoes cutAPI, if it was done.
func restoreAPI(ctx context.Context) {
	for _, address := range cutAddresses() {
		_, _ = ip(ctx, "route", "delete", "blackhole", address+"/32")
	}
}

// cutAddresses are those that the guest forwards to.
func cutAddresses() []string {
	addresses := []string{plan.APIServer}
	for _, host := range plan.Hosts() {
		if host.Director() {
			address, _, _ := strings.Cut(host.Management, "/")
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// residents lists the processes in a host's namespace.
func residents(ctx context.Context, host string) ([]int, error) {
	text, err := ip(ctx, "netns", "pids", host)
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("listing the processes of %s: %w", host, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// kill sends a signal to processes; those that have ended are no error.
func kill(pids []int, signal syscall.Signal) error {
	var failed error
	for _, pid := range pids {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			failed = errors.Join(failed, fmt.Errorf("sending %s to process %d: %w", signal, pid, err))
		}
	}
	return failed
}

// batch gives commands to ip or bridge, which runs them up to the first that
// fails.
func batch(ctx context.Context, program string, commands []string, flags ...string) error {
	cmd := exec.CommandContext(ctx, program, append(flags, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s %s: %w: %s", program, strings.Join(flags, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ip runs ip and returns what it, or the program that it becomes, wrote.
func ip(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("running ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
