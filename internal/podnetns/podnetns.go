// Package podnetns finds the network namespaces of a node's pods by asking the
// container runtime, containerd or CRI-O, over the CRI. It asks and changes
// nothing.
package podnetns

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandbox is what a container runtime makes for a pod: its network namespace
// among other things. A pod can have several, one after another.
type Sandbox struct {
	// ID is the runtime's name of it; it is fit to be a file's name.
	ID string
	// PodUID, Namespace and Name are those of the pod.
	PodUID, Namespace, Name string
	// Attempt counts the pod's sandboxes.
	Attempt uint32
	Created time.Time
	// Ready says that the pod runs in it. One that is not is being taken down.
	Ready bool

	// What follows is known of a sandbox that is ready and was asked for.

	// HostNetwork says that it has the node's network and no namespace of its own.
	HostNetwork bool
	// NetNS is the path of its network namespace; empty with HostNetwork.
	NetNS string
	// Addresses are the pod's, the first one first; some runtimes say none with
	// HostNetwork.
	Addresses []netip.Addr
	// Err says why none of this is known although it was asked for.
	Err error
}

// The sockets where runtimes listen unless they are told otherwise.
const (
	ContainerdSocket = "/run/containerd/containerd.sock"
	CRIOSocket       = "/run/crio/crio.sock"
)

// Options say whom to ask.
type Options struct {
	// Socket is the path of the runtime's socket.
	Socket string
	// NetNS is where the host's /run/netns is mounted, with what the host mounts
	// there later on; empty is DefaultNetNS.
	NetNS string
	// Proc is where the host's /proc is mounted. If it is empty a namespace that
	// has its only name there is refused: /proc of this process's own PID
	// namespace says something else.
	Proc string
	// Timeout is how long the runtime may take for one call; 0 is DefaultTimeout.
	Timeout time.Duration
}

// The defaults of Options.
const (
	DefaultNetNS   = "/run/netns"
	DefaultTimeout = 5 * time.Second
)

// Client asks one container runtime. It connects when it is asked, and again
// when the connection broke. Its methods may be called concurrently.
type Client struct {
	opts    Options
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient

	mu    sync.Mutex
	known map[string]detail // by sandbox
}

// The bounds of an answer's size, which are the kubelet's, and of the time
// between two tries to connect.
const (
	largestAnswer = 16 << 20
	connectPause  = 3 * time.Second
)

// New makes a client. It does not connect yet.
func New(opts Options) (*Client, error) {
	if !filepath.IsAbs(opts.Socket) {
		return nil, fmt.Errorf("the container runtime's socket %q is no absolute path", opts.Socket)
	}
	if opts.NetNS == "" {
		opts.NetNS = DefaultNetNS
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	pace := backoff.DefaultConfig
	pace.BaseDelay, pace.MaxDelay = connectPause/10, connectPause
	conn, err := grpc.NewClient("unix://"+opts.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pace, MinConnectTimeout: opts.Timeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestAnswer)))
	if err != nil {
		return nil, fmt.Errorf("preparing to ask the container runtime at %s: %w", opts.Socket, err)
	}
	return &Client{
		opts: opts, conn: conn, runtime: cri.NewRuntimeServiceClient(conn), known: map[string]detail{},
	}, nil
}

// Close ends the connection. Calls that wait for an answer fail.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("leaving the container runtime at %s: %w", c.opts.Socket, err)
	}
	return nil
}

// path is where this process finds a namespace.
func (c *Client) path(n netns) (string, error) {
	if n.name != "" {
		return filepath.Join(c.opts.NetNS, n.name), nil
	}
	if c.opts.Proc == "" {
		return "", errors.New("its network namespace has a name in the host's /proc only, which is not there")
	}
	return filepath.Join(c.opts.Proc, n.pid, "ns/net"), nil
}

// order puts the sandboxes of a pod side by side, the newest first.
func order(a, b Sandbox) int {
	return cmp.Or(cmp.Compare(a.PodUID, b.PodUID), b.Created.Compare(a.Created),
		cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(a.ID, b.ID))
}

// Newest returns of each pod the newest of its sandboxes that are ready, by
// the pod's UID.
func Newest(sandboxes []Sandbox) map[string]Sandbox {
	newest := map[string]Sandbox{}
	for _, s := range slices.SortedFunc(slices.Values(sandboxes), order) {
		if _, found := newest[s.PodUID]; s.Ready && !found {
			newest[s.PodUID] = s
		}
	}
	return newest
}
