package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// clientPorts are the ports that connections come from unless they ask for others.
// Linux takes about every eighth, so that so many of them are used up, at 50
// connections a second, in the two minutes for which IPVS remembers a closed one:
// with fewer, a director that gets a VIP back would have old entries for new
// connections.
const clientPorts = "12000 65535"

// buildNetwork makes the namespaces, the two bridges, and what hangs on them.
func (l *Lab) buildNetwork(ctx context.Context) error {
	for _, name := range namespaces(l.config.Name) {
		if _, err := machine.Run(ctx, "", "ip", "netns", "add", name); err != nil {
			return fmt.Errorf("making namespace %s: %w", name, err)
		}
		// Duplicate address detection would make each address unusable for
		// a second, and nothing here can have the same.
		if err := sysctl(name, "net/ipv6/conf/default/accept_dad", "0"); err != nil {
			return err
		}
		if err := sysctl(name, "net/ipv4/ip_local_port_range", clientPorts); err != nil {
			return err
		}
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := sysctl(namespace(l.config.Name, Router), key, "1"); err != nil {
			return err
		}
	}
	if err := l.ip(ctx, Control, l.controlLinks()); err != nil {
		return err
	}
	for _, host := range Hosts() {
		if err := l.ip(ctx, host.Name, hostLinks(l.config.Name, host)); err != nil {
			return err
		}
	}
	return nil
}

// ip runs commands of ip in a host's namespace, all or up to the first that
// fails.
func (l *Lab) ip(ctx context.Context, host string, commands []string) error {
	name := namespace(l.config.Name, host)
	path, err := machine.Program("ip")
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "-netns", name, "-batch", "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(strings.Join(commands, "\n")+"\n"), &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("configuring namespace %s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// sysctl sets one in a namespace. A kernel without it, such as one without
// IPv6, is no error.
func sysctl(name, key, value string) error {
	return inNamespace(name, func() error {
		err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("setting %s in %s: %w", key, name, err)
		}
		return nil
	})
}

func (l *Lab) controlLinks() []string {
	commands := []string{"link set lo up"}
	for _, bridge := range []string{"segment", "management"} {
		commands = append(commands,
			// Without snooping the bridge floods multicast, as a cheap switch.
			"link add "+bridge+" type bridge forward_delay 0 mcast_snooping 0",
			"link set "+bridge+" up")
	}
	commands = append(commands, "address add "+controlAddress+"/24 dev management")
	for _, host := range Hosts() {
		if !host.Segment.IsValid() {
			continue
		}
		commands = append(commands,
			"link add v-"+host.Name+" type veth peer name eth0 netns "+namespace(l.config.Name, host.Name),
			"link set v-"+host.Name+" master segment up")
	}
	for _, node := range l.config.Nodes() {
		commands = append(commands,
			"tuntap add dev "+node.segmentTap()+" mode tap",
			"link set "+node.segmentTap()+" master segment up",
			"tuntap add dev "+node.managementTap()+" mode tap",
			"link set "+node.managementTap()+" master management up")
		if node.Pods == PodsRouted {
			commands = append(commands, fmt.Sprintf("route add %s via %s", node.PodCIDR, node.Management.Addr()))
		}
	}
	return commands
}

// hostLinks expects Control's links to be there, and for Far those of Router.
func hostLinks(lab string, host Host) []string {
	commands := []string{"link set lo up", "link set eth0 up"}
	switch host.Name {
	case Far:
		return append(commands,
			"address add 192.168.12.10/24 dev eth0", "address add fd00:12::10/64 dev eth0 nodad",
			"route add default via 192.168.12.1", "route add default via fd00:12::1")
	case Router:
		commands = append(commands,
			"link add eth1 type veth peer name eth0 netns "+namespace(lab, Far), "link set eth1 up",
			"address add 192.168.12.1/24 dev eth1", "address add fd00:12::1/64 dev eth1 nodad")
	}
	commands = append(commands,
		"address add "+host.Segment.String()+" dev eth0",
		"address add "+host.Segment6.String()+" dev eth0 nodad")
	if host.Name != Router {
		commands = append(commands,
			"route add "+farNetwork+" via "+routerAddress,
			"route add "+farNetwork6+" via "+routerAddress6)
	}
	return commands
}
