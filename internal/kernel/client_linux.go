package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Options say what a client works on. The zero value is the network namespace
// of the caller and this process's /proc.
type Options struct {
	// NetNS is the path of a network namespace (/run/netns/NAME,
	// /proc/PID/ns/net). Empty is the namespace of the thread that calls New.
	NetNS string
	// Sysctls is the directory that holds ipv4/ and ipv6/; empty is
	// /proc/sys/net. In a container, whose own /proc/sys is read-only, it is
	// the mount of the host's.
	Sysctls string
	// StateDir keeps the record of what was found before it was changed. It has
	// to outlive the process and to vanish with the kernel's state, so it belongs
	// under /run. Empty is /run/lvs-operator.
	StateDir string
	// Timeout is how long the kernel may take for one exchange before the client
	// gives it up with ErrLostReply, whatever the context allows; 0 is 10 s (the
	// first of a kind may make the kernel load a module).
	Timeout time.Duration
}

// The defaults of Options.
const (
	DefaultSysctls  = "/proc/sys/net"
	DefaultStateDir = "/run/lvs-operator"
	DefaultTimeout  = 10 * time.Second
)

// Client works on one network namespace. Its methods may be called
// concurrently; exchanges of one kind with the kernel take turns.
//
// The client remembers what it saw and did only to know where to look: whatever
// it reports has been read from the kernel for that report, but for the
// LastWeight of a destination, which the kernel does not tell.
type Client struct {
	opts   Options
	netns  namespace
	route  *netlink.Handle
	ipvs   *ipvsConn
	record *record

	// mu guards what follows.
	mu    sync.Mutex
	index index
	// lastWeights is what no kernel tells.
	lastWeights lastWeights
	node        *netstate.Node // as last prepared
	relay       *Relay         // as last set; nil leaves what is there
	// directors are as last set; nil leaves what is there.
	directors *[]net.HardwareAddr

	marks marks

	// sharing is the guard's part of what SyncConnections was last told; nil leaves
	// what is there.
	sharing *Sync

	// syncing is held by whoever starts or stops the synchronisation daemons.
	syncing sync.Mutex
}

// New opens a client. It changes nothing, and needs no IPVS yet.
func New(opts Options) (*Client, error) {
	if opts.Sysctls == "" {
		opts.Sysctls = DefaultSysctls
	}
	if opts.StateDir == "" {
		opts.StateDir = DefaultStateDir
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	ns, err := openNamespace(opts.NetNS)
	if err != nil {
		return nil, err
	}
	route, err := netlink.NewHandleAt(ns.handle, unix.NETLINK_ROUTE, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", join(err, ns.close()))
	}
	if err := route.SetSocketTimeout(opts.Timeout); err != nil {
		route.Close()
		return nil, fmt.Errorf("limiting netlink's time: %w", join(err, ns.close()))
	}
	return &Client{
		opts:   opts,
		netns:  ns,
		route:  route,
		ipvs:   newIPVSConn(ns, opts.Timeout),
		record: newRecord(opts.StateDir, directorRecord),
	}, nil
}

// Close gives up the client's sockets. What is in the kernel stays.
func (c *Client) Close() error {
	c.ipvs.close()
	c.route.Close()
	return c.netns.close()
}

// Facts are what a node has and lacks.
type Facts struct {
	// Release of the kernel, as uname -r prints it.
	Release string
	// IPVS says whether the kernel has it.
	IPVS bool
	// Schedulers says of each scheduler that the API knows whether a service
	// can use it. Asking makes the kernel load the module; a scheduler is not
	// listed if the kernel could not be asked.
	Schedulers map[string]bool
	// ConnectionTableSize is the number of buckets of IPVS's connection table; 0
	// without IPVS.
	ConnectionTableSize int
	// Addresses of the node, without those on netstate.DummyLink.
	Addresses []netip.Prefix
	// Gateways of the node's routes.
	Gateways []netip.Addr
	// KubeProxyIPVS says that kube-proxy works, or worked, in its ipvs mode here
	// (the device kube-ipvs0 exists): it deletes services that it does not know.
	KubeProxyIPVS bool
}

// Link is what a network interface is like at one moment. The zero Link is one
// that does not exist.
type Link struct {
	Name  string
	Index int
	// Kind is rtnetlink's: "device", "veth", "bond", "vlan", "bridge", ...
	Kind string
	// Up is the administrative state, Running the operational one: a carrier.
	Up, Running bool
	MAC         net.HardwareAddr
	MTU         int
	// Addresses in canonical order.
	Addresses []netip.Prefix
	// Master is the name of the bridge, bond or VRF that the link is in.
	Master string
	// BondMode is set for bonds only: "balance-alb", "active-backup", ...
	BondMode string
}

// Exists says whether there is such an interface.
func (l Link) Exists() bool { return l.Index != 0 }

// Prepare brings the node into the state that VIPs need, and repairs it: the
// guard's rules, netstate.DummyLink, sysctls (recorded before they are changed,
// and put back where node.Links and node.Sloppy ask for them no more) and IPVS
// timeouts. It may be called again at any time, for example to audit.
// Without IPVS it is ErrNoIPVS, without the announcement interface ErrNoLink,
// and nothing is changed.
//
// The guard's entries are not Prepare's: after a ruleset was flushed Prepare
// makes an empty guard, which drops nothing, and Observe reports the entries as
// missing.
func (c *Client) Prepare(ctx context.Context, node netstate.Node) error {
	return c.prepare(ctx, node)
}

// Restore takes away all that the operator owns in the namespace (services of
// VIPs on netstate.DummyLink, VIPs, the device, the guard, the synchronisation
// daemons that SyncConnections started) and puts back the
// sysctls and timeouts that Prepare found, each only if it still has the value
// that Prepare gave it. It may be called again after a failure, and by a client
// that prepared nothing.
func (c *Client) Restore(ctx context.Context) error { return c.restore(ctx) }

// Keys returns what the operator owns in the namespace: a key for each VIP on
// netstate.DummyLink. It reads whole tables and refreshes with them what the
// client knows of where to look, so it belongs in an audit.
func (c *Client) Keys(ctx context.Context) ([]netstate.Key, error) { return c.keys(ctx) }

// Observe reads what the kernel holds of one key. The cost depends on that key
// alone: entries that the client neither made nor saw in its last audit (Keys;
// the first Observe makes one) are not found.
func (c *Client) Observe(ctx context.Context, key netstate.Key) (netstate.Observation, error) {
	return c.observe(ctx, key)
}

// Apply performs one operation. It is idempotent: adding what is there edits
// it, editing what is not there adds it, deleting what is gone is done.
func (c *Client) Apply(ctx context.Context, op netstate.Op) error { return c.apply(ctx, op) }

// Facts reads what the node has and lacks.
func (c *Client) Facts(ctx context.Context) (Facts, error) { return c.facts(ctx) }

// Link reads the state of an interface; ErrNoLink if there is none.
func (c *Client) Link(ctx context.Context, name string) (Link, error) { return c.link(ctx, name) }

// WatchLink sends the state of an interface: at once, and after each change
// once more. States that were not received in time are replaced by newer ones.
// An interface that does not exist is the zero Link. The channel is closed when
// ctx ends, or earlier if the kernel can't be watched any more.
func (c *Client) WatchLink(ctx context.Context, name string) (<-chan Link, error) {
	return c.watchLink(ctx, name)
}

// WatchGuard sends a value when somebody deletes the guard's table, as `nft
// flush ruleset` does: call Prepare, then observe and apply each key. Several
// deletions may make one value. The channel is closed when ctx ends or when the
// kernel stops reporting; an audit stays necessary.
func (c *Client) WatchGuard(ctx context.Context) (<-chan struct{}, error) {
	return c.watchGuard(ctx)
}
