package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// inheritance says what of the guest's own network settings a new host has: nothing,
// with 2. Else it would forward packets, as the guest does, and a director of
// keepalived's that gave the VIP up would hand on what still comes for it. No
// director of the classic set-up does.
const inheritance = "/proc/sys/net/core/devconf_inherit_init_net"

// buildNetwork makes the bridges and the hosts.
func buildNetwork(ctx context.Context) error {
	if err := os.WriteFile(inheritance, []byte("2"), 0o644); err != nil {
		return fmt.Errorf("giving hosts settings of their own: %w", err)
	}
	commands := []string{}
	for _, bridge := range []string{segment, management} {
		commands = append(commands,
			"link add "+bridge+" type bridge forward_delay 0 mcast_snooping 0",
			"link set "+bridge+" up")
	}
	commands = append(commands,
		// The segment is a switch and no host: without this the guest would answer
		// there for its own addresses, which some of the hosts have too, or take for
		// a gateway's.
		"link set "+segment+" arp off",
		"address add "+plan.ManagementGateway+"/24 dev "+management)
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
			"route add default via "+plan.ManagementGateway,
			"route add "+plan.FarNetwork+" via "+router())
	}
	return commands
}

// router is the router's address.
func router() string {
	hosts := plan.Hosts()
	i := slices.IndexFunc(hosts, func(h plan.Host) bool { return h.Name == plan.Router })
	address, _, _ := strings.Cut(hosts[i].Segment, "/")
	return address
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
	var remove []string
	for _, host := range plan.Hosts() {
		pids, err := residents(host.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		failed = errors.Join(failed, err, kill(pids, syscall.SIGKILL))
		remove = append(remove, "netns delete "+host.Name)
	}
	if err := batch(ctx, "ip", remove); err != nil {
		return errors.Join(failed, err)
	}
	// With the namespaces most of this is gone already.
	remove = []string{"link delete " + segment, "link delete " + management}
	for _, host := range plan.Hosts() {
		remove = append(remove, "link delete "+segmentPort(host.Name), "link delete "+managementPort(host.Name))
	}
	for _, address := range cutAddresses() {
		remove = append(remove, "route delete blackhole "+address+"/32")
	}
	_ = batch(ctx, "ip", remove, "-force")
	return failed
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

// residents lists the processes in a host's namespace; fs.ErrNotExist says that
// there is no such host.
func residents(host string) ([]int, error) {
	home, err := os.Stat(filepath.Join(netnsDir, host))
	if err != nil {
		return nil, fmt.Errorf("listing the processes of %s: %w", host, err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("listing the processes of %s: %w", host, err)
	}
	var pids []int
	for _, file := range processes {
		// Processes end at any time, and those that have not been waited for have none.
		if at, err := os.Stat(file); err == nil && os.SameFile(home, at) {
			var pid int
			if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err != nil {
				return nil, fmt.Errorf("listing the processes of %s: %s: %w", host, file, err)
			}
			pids = append(pids, pid)
		}
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
