package podnetns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// detail is what a client remembers of a sandbox. What it says does not change
// as long as the sandbox is there; what could not be known is asked again.
type detail struct {
	hostNetwork bool
	netns       string
	addresses   []netip.Addr

	err   error
	again time.Time     // not before
	pause time.Duration // before the try after that
}

const (
	// together is how many sandboxes are asked for at once, and patience how many
	// times the time for one call all of a list may take: the others have to wait
	// for the next list.
	together, patience = 4, 4
	// A sandbox that could not be asked for is asked for again after these times:
	// one that makes the runtime hang must not hold up all others each time.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// Sandboxes lists all sandboxes of pods, those of one pod together and the
// newest first. Of those that are ready and wanted it says all there is to know;
// what keeps it from one sandbox is that one's Err. An error means that the
// runtime did not answer, and nothing is known. The wanted function is called
// before Sandboxes returns, and not concurrently.
func (c *Client) Sandboxes(ctx context.Context, wanted func(podUID, sandbox string) bool) ([]Sandbox, error) {
	listed, err := c.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the pod sandboxes of the container runtime at %s: %w", c.opts.Socket, err)
	}
	c.forget(listed)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	until := time.Now().Add(patience * c.opts.Timeout)
	for i := range listed {
		s := &listed[i]
		if !s.Ready || !wanted(s.PodUID, s.ID) {
			continue
		}
		group.Go(func() error { return c.complete(groupCtx, s, until) })
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("asking the container runtime at %s for a pod sandbox: %w", c.opts.Socket, err)
	}
	return listed, nil
}

// list asks for all sandboxes, with what a list says. Those that have no name
// that can be worked with, or no pod, are left out.
func (c *Client) list(ctx context.Context) ([]Sandbox, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	answer, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var listed []Sandbox
	for _, item := range answer.GetItems() {
		meta := item.GetMetadata()
		if !isFileName(item.GetId()) || meta.GetUid() == "" {
			continue
		}
		listed = append(listed, Sandbox{
			ID: item.GetId(), PodUID: meta.GetUid(), Namespace: meta.GetNamespace(), Name: meta.GetName(),
			Attempt: meta.GetAttempt(), Created: time.Unix(0, item.GetCreatedAt()),
			Ready: item.GetState() == cri.PodSandboxState_SANDBOX_READY,
		})
	}
	slices.SortFunc(listed, order)
	return listed, nil
}

// forget drops what is remembered of sandboxes that are gone.
func (c *Client) forget(listed []Sandbox) {
	there := make(map[string]bool, len(listed))
	for _, s := range listed {
		there[s.ID] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.known {
		if !there[id] {
			delete(c.known, id)
		}
	}
}

// complete fills in what is remembered or what the runtime says. An error is
// that of ctx.
func (c *Client) complete(ctx context.Context, s *Sandbox, until time.Time) error {
	c.mu.Lock()
	d, known := c.known[s.ID]
	c.mu.Unlock()
	if !known || d.err != nil && !time.Now().Before(d.again) {
		if time.Now().After(until) {
			s.Err = fmt.Errorf("the container runtime at %s is too slow to be asked for sandbox %s", c.opts.Socket, s.ID)
			return nil
		}
		pause := min(max(2*d.pause, firstPause), longestPause)
		d = c.ask(ctx, *s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(d.err, errGone) {
			s.Ready = false
			return nil
		}
		if d.err != nil {
			d.pause, d.again = pause, time.Now().Add(pause)
		}
		c.mu.Lock()
		c.known[s.ID] = d
		c.mu.Unlock()
	}
	s.HostNetwork, s.NetNS, s.Addresses, s.Err = d.hostNetwork, d.netns, slices.Clone(d.addresses), d.err
	return nil
}

// errGone says that a sandbox was taken down since it was listed.
var errGone = errors.New("the sandbox is gone")

func (c *Client) ask(ctx context.Context, s Sandbox) detail {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	answer, err := c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.ID, Verbose: true})
	if status.Code(err) == codes.NotFound {
		return detail{err: errGone}
	}
	if err != nil {
		return detail{err: fmt.Errorf("asking the container runtime at %s for sandbox %s: %w", c.opts.Socket, s.ID, err)}
	}
	d, err := c.read(s, answer)
	if err != nil {
		return detail{err: fmt.Errorf("sandbox %s of the container runtime at %s: %w", s.ID, c.opts.Socket, err)}
	}
	return d
}

// read takes an answer apart. Where the runtime contradicts itself about whose
// namespace it is the sandbox is refused.
func (c *Client) read(s Sandbox, answer *cri.PodSandboxStatusResponse) (detail, error) {
	if answer.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_READY {
		return detail{}, errGone
	}
	if uid := answer.GetStatus().GetMetadata().GetUid(); uid != s.PodUID {
		return detail{}, fmt.Errorf("it is listed as of pod %s and says that it is of %s", s.PodUID, uid)
	}
	addresses, err := addressesOf(answer.GetStatus().GetNetwork())
	if err != nil {
		return detail{}, err
	}
	if answer.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() == cri.NamespaceMode_NODE {
		return detail{hostNetwork: true, addresses: addresses}, nil
	}
	n, own, err := decodeInfo(answer.GetInfo()[infoKey])
	if err != nil {
		return detail{}, err
	}
	if !own {
		return detail{hostNetwork: true, addresses: addresses}, nil
	}
	path, err := c.path(n)
	if err != nil {
		return detail{}, err
	}
	if len(addresses) == 0 {
		return detail{}, errors.New("it has no address yet")
	}
	return detail{netns: path, addresses: addresses}, nil
}

// addressesOf returns the addresses of a sandbox in the runtime's order.
func addressesOf(network *cri.PodSandboxNetworkStatus) ([]netip.Addr, error) {
	texts := []string{network.GetIp()}
	for _, ip := range network.GetAdditionalIps() {
		texts = append(texts, ip.GetIp())
	}
	var addresses []netip.Addr
	for _, text := range texts {
		if text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("its address %q is none", text)
		}
		addresses = append(addresses, addr.Unmap().WithZone(""))
	}
	return addresses, nil
}
