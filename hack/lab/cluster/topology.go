package cluster

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
)

// Limits of a lab: the address plan has a block of ten for the directors, and
// workers follow up to 99. Then come plain real servers, from 140 pods, and
// from 200 nothing of ours: those are for VIPs.
const (
	maxDirectors = 9
	maxWorkers   = 69
)

// Hosts outside the cluster, as Exec, In and Stop take them. Control is where
// the control plane runs.
const (
	Control = "control"
	Client  = "client"
	Router  = "router"
	Far     = "far"
	RS1     = "rs1"
	RS2     = "rs2"
)

// Addresses that are the same in every lab.
const (
	// DirectorLabel is the label, with the value true, on director nodes.
	DirectorLabel = "lvs-operator.io/director"

	controlAddress = "10.99.0.1"
	apiPort        = "6443"
	clusterCIDR    = "10.244.0.0/16"
	serviceCIDR    = "10.96.0.0/16"
	apiServiceIP   = "10.96.0.1"
	routerAddress  = "192.168.11.1"
	routerAddress6 = "fd00:11::1"
	farNetwork     = "192.168.12.0/24"
	farNetwork6    = "fd00:12::/64"
)

// names keeps a lab's namespaces within what the kernel and people can read.
var names = regexp.MustCompile(`^[a-z][a-z0-9-]{0,15}$`)

// Config is what a lab is made of.
type Config struct {
	Name      string `json:"name"`
	Directors int    `json:"directors"`
	Workers   int    `json:"workers"`
	// Pods are the workers' pod networks, in order; a worker beyond them, like
	// every director, has routed pods.
	Pods []PodNetwork `json:"pods,omitempty"`
	// Bare says that nodes run nothing: no kubelet, no containerd, no kube-proxy.
	// They have AdminKubeconfig instead, and whoever made the lab runs programs on
	// them. Of the control plane there are etcd and the API server.
	Bare bool `json:"bare,omitempty"`
	// MemoryMiB is each node's memory.
	MemoryMiB int `json:"memoryMiB"`
	// Accelerator is how qemu runs the nodes, see package guest.
	Accelerator string `json:"accelerator"`
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case !names.MatchString(c.Name):
		return fmt.Errorf("%q is no name for a lab: use up to 16 lower-case letters, digits and hyphens, a letter first", c.Name)
	case c.Directors < 0 || c.Directors > maxDirectors:
		return fmt.Errorf("%d directors: use 0 to %d", c.Directors, maxDirectors)
	case c.Workers < 0 || c.Workers > maxWorkers:
		return fmt.Errorf("%d workers: use 0 to %d", c.Workers, maxWorkers)
	case c.Directors+c.Workers == 0:
		return fmt.Errorf("a lab needs a node")
	case c.MemoryMiB < 768:
		return fmt.Errorf("%d MiB of memory: a node needs 768", c.MemoryMiB)
	}
	return c.validatePods()
}

// Node is a machine of the cluster.
type Node struct {
	Name     string
	Director bool
	// Number is the last part of its addresses.
	Number     int
	Segment    netip.Prefix
	Segment6   netip.Prefix
	Management netip.Prefix
	Pods       PodNetwork
	// PodCIDR is the network of routed pods, invalid for others.
	PodCIDR netip.Prefix
	// PodRange and PodRange6 are the addresses of pods on the segment, invalid
	// for others.
	PodRange  AddressRange
	PodRange6 AddressRange
}

// Nodes lists the lab's nodes, directors first.
func (c Config) Nodes() []Node {
	var nodes []Node
	for i := range c.Directors {
		nodes = append(nodes, newNode(fmt.Sprintf("director%d", i+1), 21+i, true))
	}
	for i := range c.Workers {
		worker := newNode(fmt.Sprintf("worker%d", i+1), 31+i, false)
		if i < len(c.Pods) && c.Pods[i].onSegment() {
			worker.Pods, worker.PodCIDR = c.Pods[i], netip.Prefix{}
			worker.PodRange, worker.PodRange6 = podRanges(i)
		}
		nodes = append(nodes, worker)
	}
	return nodes
}

func newNode(name string, number int, director bool) Node {
	return Node{
		Name: name, Director: director, Number: number,
		Segment: segment(number), Segment6: segment6(number),
		Management: netip.MustParsePrefix(fmt.Sprintf("10.99.0.%d/24", number)),
		Pods:       PodsRouted,
		PodCIDR:    netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", number)),
	}
}

func segment(number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("192.168.11.%d/24", number))
}

// segment6 has the same digits in the text of the address, so that people see
// whose it is.
func segment6(number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd00:11::%d/64", number))
}

// segmentTap and managementTap are the host's ends of a node's two cards.
func (n Node) segmentTap() string    { return "s-" + n.Name }
func (n Node) managementTap() string { return "m-" + n.Name }

func (n Node) segmentMAC() string    { return fmt.Sprintf("52:54:00:11:00:%02x", n.Number) }
func (n Node) managementMAC() string { return fmt.Sprintf("52:54:00:99:00:%02x", n.Number) }

// Host is a machine outside the cluster: a network namespace.
type Host struct {
	Name string
	// Segment is its address on the segment, invalid if it has none.
	Segment  netip.Prefix
	Segment6 netip.Prefix
	// Responder says that it is a real server with our program.
	Responder bool
}

// Hosts lists the machines outside the cluster.
func Hosts() []Host {
	return []Host{
		{Name: Client, Segment: segment(10), Segment6: segment6(10)},
		{Name: RS1, Segment: segment(135), Segment6: segment6(135), Responder: true},
		{Name: RS2, Segment: segment(138), Segment6: segment6(138), Responder: true},
		{Name: Router, Segment: segment(1), Segment6: segment6(1)},
		{Name: Far},
	}
}

func findHost(name string) (Host, bool) {
	hosts := Hosts()
	i := slices.IndexFunc(hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return Host{}, false
	}
	return hosts[i], true
}

func (c Config) findNode(name string) (Node, bool) {
	nodes := c.Nodes()
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return nodes[i], true
}

// memberNames is for messages about a name that is none.
func (c Config) memberNames() string {
	var all []string
	for _, node := range c.Nodes() {
		all = append(all, node.Name)
	}
	for _, host := range Hosts() {
		all = append(all, host.Name)
	}
	return strings.Join(append(all, Control), " ")
}

// namespace is the name of a host's network namespace.
func namespace(lab, host string) string { return lab + "-" + host }

// namespaces lists all that a lab of this name can have.
func namespaces(lab string) []string {
	all := []string{namespace(lab, Control)}
	for _, host := range Hosts() {
		all = append(all, namespace(lab, host.Name))
	}
	return all
}

// Defaults are what a lab is made of unless it is asked for otherwise.
func Defaults(name string) Config {
	return Config{Name: name, Directors: 2, Workers: 1, MemoryMiB: 1536, Accelerator: string(guest.Auto)}
}
