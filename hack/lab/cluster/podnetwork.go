package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// PodNetwork is how a node's pods are connected.
type PodNetwork string

// The pod networks. Those of bridge and macvlan put pods on the segment, with
// an address of both families each: directors and clients reach them without a
// router between.
const (
	// PodsRouted gives the node a network of its own for its pods, and routes
	// to it.
	PodsRouted PodNetwork = "routed"
	// PodsBridge makes the node's card on the segment a port of a bridge, and
	// pods the other ports. The node's own address is the bridge's.
	PodsBridge PodNetwork = "bridge"
	// PodsMacvlan gives each pod a macvlan interface on the node's card.
	PodsMacvlan PodNetwork = "macvlan"
)

// PodNetworks lists all kinds.
func PodNetworks() []PodNetwork { return []PodNetwork{PodsRouted, PodsBridge, PodsMacvlan} }

// onSegment says that pods have addresses of the segment.
func (p PodNetwork) onSegment() bool { return p == PodsBridge || p == PodsMacvlan }

// The segment has room for the pods of so many workers, the first ones, each
// with a block of ten addresses.
const (
	maxSegmentPodWorkers = 6
	firstPodNumber       = 140
	podsPerWorker        = 10
)

// AddressRange is from the first address to the last, both included.
type AddressRange struct{ First, Last netip.Addr }

func (r AddressRange) String() string { return r.First.String() + "-" + r.Last.String() }

// podRanges are the addresses on the segment for pods of a worker, counted
// from 0.
func podRanges(worker int) (v4, v6 AddressRange) {
	first := firstPodNumber + worker*podsPerWorker
	last := first + podsPerWorker - 1
	return AddressRange{segment(first).Addr(), segment(last).Addr()},
		AddressRange{segment6(first).Addr(), segment6(last).Addr()}
}

func (c Config) validatePods() error {
	if len(c.Pods) > c.Workers {
		return fmt.Errorf("pod networks for %d workers, of %d", len(c.Pods), c.Workers)
	}
	for i, pods := range c.Pods {
		switch {
		case !slices.Contains(PodNetworks(), pods):
			return fmt.Errorf("%q is no pod network: use routed, bridge or macvlan", pods)
		case pods.onSegment() && i >= maxSegmentPodWorkers:
			return fmt.Errorf("pods on the segment for worker %d: there is room for those of the first %d", i+1, maxSegmentPodWorkers)
		}
	}
	return nil
}

// Names on a node: its cards, and what has its address on the segment where
// the card can't.
const (
	segmentCard    = "eth0"
	managementCard = "eth1"
	segmentBridge  = "br0"
	segmentShim    = "shim0"
)

// segmentLink is the interface with the node's address on the segment.
func (n Node) segmentLink() string {
	switch n.Pods {
	case PodsBridge:
		return segmentBridge
	case PodsMacvlan:
		return segmentShim
	case PodsRouted:
	}
	return segmentCard
}

// shimMAC differs from the card's: a macvlan interface can't have that one.
func (n Node) shimMAC() string { return fmt.Sprintf("52:54:00:22:00:%02x", n.Number) }

// segmentLinks are the commands that make segmentLink, up and without an
// address.
func (n Node) segmentLinks() []string {
	commands := []string{"ip link set " + segmentCard + " up"}
	switch n.Pods {
	case PodsBridge:
		commands = append(commands,
			// Bridged frames pass iptables and conntrack, as on most people's
			// nodes: Kubernetes asked for it for years.
			"modprobe br_netfilter",
			"sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
			// With an address of its own the bridge doesn't change to a pod's.
			"ip link add "+segmentBridge+" address "+n.segmentMAC()+" type bridge forward_delay 0 mcast_snooping 0",
			"ip link set "+segmentCard+" master "+segmentBridge,
			"ip link set "+segmentBridge+" up")
	case PodsMacvlan:
		commands = append(commands,
			// Macvlan interfaces reach each other and what is outside, and not
			// the card that they are on. So the node has one too, or its kubelet
			// could not probe its pods.
			"ip link add "+segmentShim+" link "+segmentCard+" address "+n.shimMAC()+" type macvlan mode bridge",
			"ip link set "+segmentShim+" up")
	case PodsRouted:
	}
	return commands
}

// segmentPodSettings are commands for the node of pods on the segment.
func segmentPodSettings() []string {
	return []string{
		// The plugin for macvlan leaves duplicate address detection on, which
		// takes a second; new namespaces are to have this node's default.
		"sysctl -qw net.core.devconf_inherit_init_net=1",
		// A pod whose packet to a service goes on to a pod on the segment is
		// not to be told to send there directly: nothing would translate then.
		"sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0",
		// The management network has no way back to the pods.
		"iptables -w -t nat -A POSTROUTING -s " + segment(0).Masked().String() + " -o " + managementCard + " -j MASQUERADE",
	}
}

// cniNetwork is a configuration list of CNI.
type cniNetwork struct {
	Version string      `json:"cniVersion"`
	Name    string      `json:"name"`
	Plugins []cniPlugin `json:"plugins"`
}

type cniPlugin struct {
	Type         string          `json:"type"`
	Bridge       string          `json:"bridge,omitempty"`
	Master       string          `json:"master,omitempty"`
	Mode         string          `json:"mode,omitempty"`
	IPAM         *cniIPAM        `json:"ipam,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
}

type cniIPAM struct {
	Type    string       `json:"type"`
	DataDir string       `json:"dataDir"`
	Ranges  [][]cniRange `json:"ranges"`
	Routes  []cniRoute   `json:"routes"`
}

type cniRange struct {
	Subnet  string `json:"subnet"`
	Start   string `json:"rangeStart,omitempty"`
	End     string `json:"rangeEnd,omitempty"`
	Gateway string `json:"gateway,omitempty"`
}

type cniRoute struct {
	Destination string `json:"dst"`
	Gateway     string `json:"gw,omitempty"`
}

// cniConfig is the node's network for pods, one of nodes.
func cniConfig(n Node, nodes []Node) ([]byte, error) {
	ipam := &cniIPAM{Type: "host-local", DataDir: "/var/lib/cni/networks"}
	plugin := cniPlugin{IPAM: ipam}
	switch n.Pods {
	case PodsRouted:
		plugin.Type = "ptp"
		ipam.Ranges = [][]cniRange{{{Subnet: n.PodCIDR.String()}}}
		ipam.Routes = []cniRoute{{Destination: "0.0.0.0/0"}}
	case PodsBridge:
		plugin.Type, plugin.Bridge = "bridge", segmentBridge
	case PodsMacvlan:
		plugin.Type, plugin.Master, plugin.Mode = "macvlan", segmentCard, "bridge"
	}
	if n.Pods.onSegment() {
		ipam.Ranges = [][]cniRange{
			{segmentRange(n.Segment, n.PodRange, routerAddress)},
			{segmentRange(n.Segment6, n.PodRange6, routerAddress6)},
		}
		ipam.Routes = segmentPodRoutes(n, nodes)
	}
	network := cniNetwork{
		Version: "1.0.0", Name: "lab",
		Plugins: []cniPlugin{plugin, {Type: "portmap", Capabilities: map[string]bool{"portMappings": true}}},
	}
	return json.MarshalIndent(network, "", "  ")
}

func segmentRange(of netip.Prefix, pods AddressRange, gateway string) cniRange {
	return cniRange{Subnet: of.Masked().String(), Start: pods.First.String(), End: pods.Last.String(), Gateway: gateway}
}

// segmentPodRoutes sends a pod's answers to clients straight to them on the
// segment or by its router, as a plain real server's. What only the cluster
// knows goes by nodes: services and the management network by its own, and
// routed pods by theirs, so that each sees both directions.
func segmentPodRoutes(n Node, nodes []Node) []cniRoute {
	node := n.Segment.Addr().String()
	routes := []cniRoute{
		{"0.0.0.0/0", routerAddress},
		{"::/0", routerAddress6},
		{serviceCIDR, node},
		{n.Management.Masked().String(), node},
	}
	for _, other := range nodes {
		if other.Pods == PodsRouted {
			routes = append(routes, cniRoute{other.PodCIDR.String(), other.Segment.Addr().String()})
		}
	}
	return routes
}
