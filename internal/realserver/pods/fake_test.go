package pods_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/podnetns"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

var errBroken = errors.New("operation not permitted")

// namespace is a network namespace in memory.
type namespace struct {
	lo, eth0 []netip.Addr
	settings map[string]int // by Setting.Path
	broken   bool           // nothing works in it
	open     int            // hosts
	changes  []chan kernel.Link
	added    map[netip.Addr]int
}

func newNamespace(own ...netip.Addr) *namespace {
	n := &namespace{eth0: own, settings: map[string]int{}, added: map[netip.Addr]int{}}
	for _, link := range []string{"all", "eth0", "lo"} {
		for _, name := range []string{kernel.ARPIgnore, kernel.ARPAnnounce} {
			n.settings[kernel.Setting{Link: link, Name: name}.Path()] = 0
		}
	}
	return n
}

// asFound says whether a namespace is like a new one.
func (n *namespace) asFound() bool {
	return len(n.lo) == 0 && !slices.ContainsFunc(slices.Collect(maps.Values(n.settings)), func(v int) bool { return v != 0 })
}

// found is what a record holds.
type found struct {
	settings map[string]int
	vips     []netip.Addr
}

// node is a node in memory: its namespaces by path, its container runtime, and the
// records by state directory. It outlives agents.
type node struct {
	t   testing.TB
	dir string

	mu         sync.Mutex
	namespaces map[string]*namespace
	records    map[string]*found
	sandboxes  []podnetns.Sandbox
	down       error // what the runtime answers
	asked      map[string]int
	told       chan struct{}
	calls      int
	process    *process // the last one
	// adding is called, with the lock, before a VIP is put on lo.
	adding func(netns string, vip netip.Addr)
	// removing is called, without the lock, before a VIP is taken off.
	removing func(netns string, vip netip.Addr)
}

func newNode(t testing.TB) *node {
	return &node{
		t: t, dir: t.TempDir(), namespaces: map[string]*namespace{"": newNamespace(addr("192.0.2.250"))},
		records: map[string]*found{}, asked: map[string]int{}, told: make(chan struct{}, 1),
	}
}

// run makes a sandbox for a pod. ID and namespace are named alike.
func (n *node) run(id, uid string, own ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.namespaces[netnsOf(id)] = newNamespace(own...)
	n.sandboxes = append(n.sandboxes, podnetns.Sandbox{
		ID: id, PodUID: uid, Namespace: "default", Name: "pod-" + uid, Ready: true,
		Created: time.Unix(int64(len(n.sandboxes)), 0), NetNS: netnsOf(id), Addresses: own,
	})
}

// runOnHost makes a sandbox of a pod in the node's network.
func (n *node) runOnHost(id, uid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sandboxes = append(n.sandboxes, podnetns.Sandbox{
		ID: id, PodUID: uid, Namespace: "default", Name: "pod-" + uid, Ready: true, HostNetwork: true,
	})
}

// kill takes a sandbox and its namespace away.
func (n *node) kill(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sandboxes = slices.DeleteFunc(n.sandboxes, func(s podnetns.Sandbox) bool { return s.ID == id })
	delete(n.namespaces, netnsOf(id))
}

func netnsOf(id string) string { return "/run/netns/cni-" + id }

// with changes the node.
func (n *node) with(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// at returns what a namespace is like; one that is gone is nil.
func (n *node) at(id string) (lo []netip.Addr, asFound bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ns := n.namespaces[netnsOf(id)]
	if id == "" {
		ns = n.namespaces[""]
	}
	return slices.Clone(ns.lo), ns.asFound()
}

func (n *node) Sandboxes(_ context.Context, wanted func(podUID, sandbox string) bool) ([]podnetns.Sandbox, error) {
	n.mu.Lock()
	listed, down := slices.Clone(n.sandboxes), n.down
	n.mu.Unlock()
	if down != nil {
		return nil, down
	}
	for i, s := range listed {
		if !wanted(s.PodUID, s.ID) {
			listed[i].HostNetwork, listed[i].NetNS, listed[i].Addresses = false, "", nil
			continue
		}
		n.with(func() { n.asked[s.ID]++ })
	}
	return listed, nil
}

func (n *node) Changes(context.Context) <-chan struct{} { return n.told }

// tell is the runtime telling that sandboxes changed.
func (n *node) tell() {
	select {
	case n.told <- struct{}{}:
	default:
	}
}

func (n *node) openHost(netns, stateDir string) (pods.Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ns := n.namespaces[netns]
	if ns == nil {
		return nil, fmt.Errorf("opening network namespace %s: no such file", netns)
	}
	if ns.broken {
		return nil, errBroken
	}
	ns.open++
	return &host{node: n, netns: netns, stateDir: stateDir, ns: ns}, nil
}

// host is a namespace as an agent has opened it.
type host struct {
	node            *node
	netns, stateDir string
	ns              *namespace
}

// do works in the namespace, under the lock.
func (h *host) do(work func() error) error {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	h.node.calls++
	if h.ns.broken {
		return errBroken
	}
	return work()
}

// record returns the record, as a file that recorded() of the agent sees.
func (h *host) record() *found {
	r := h.node.records[h.stateDir]
	if r == nil {
		r = &found{settings: map[string]int{}}
		h.node.records[h.stateDir] = r
		if err := errors.Join(
			os.MkdirAll(h.stateDir, 0o700),
			os.WriteFile(filepath.Join(h.stateDir, "record"), nil, 0o600),
		); err != nil {
			h.node.t.Error(err)
		}
	}
	return r
}

func (h *host) Observe(context.Context) (state kernel.RealServerState, err error) {
	err = h.do(func() error {
		if r := h.node.records[h.stateDir]; r != nil {
			state.Recorded = slices.Clone(r.vips)
		}
		for _, a := range h.ns.lo {
			state.Addresses = append(state.Addresses, kernel.HostAddress{Addr: a, Link: "lo"})
		}
		for _, a := range h.ns.eth0 {
			state.Addresses = append(state.Addresses, kernel.HostAddress{Addr: a, Link: "eth0"})
		}
		for _, link := range []string{"all", "eth0", "lo"} {
			for _, name := range []string{kernel.ARPIgnore, kernel.ARPAnnounce} {
				s := kernel.Setting{Link: link, Name: name}
				s.Value = h.ns.settings[s.Path()]
				state.Settings = append(state.Settings, s)
			}
		}
		return nil
	})
	return state, err
}

func (h *host) Configure(_ context.Context, settings []kernel.Setting) error {
	return h.do(func() error {
		for _, s := range settings {
			if _, recorded := h.record().settings[s.Path()]; !recorded {
				h.record().settings[s.Path()] = h.ns.settings[s.Path()]
			}
			h.ns.settings[s.Path()] = s.Value
		}
		return nil
	})
}

func (h *host) Prepare(_ context.Context, vips []netip.Addr) error {
	var leaving []netip.Addr
	err := h.do(func() error {
		for _, vip := range vips {
			if slices.Contains(h.ns.lo, vip) {
				continue
			}
			if !slices.Contains(h.record().vips, vip) {
				h.record().vips = append(h.record().vips, vip)
			}
			if h.node.adding != nil {
				h.node.adding(h.netns, vip)
			}
			h.ns.lo = append(h.ns.lo, vip)
			h.ns.added[vip]++
			h.changed()
		}
		for _, vip := range h.record().vips {
			if !slices.Contains(vips, vip) {
				leaving = append(leaving, vip)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.remove(leaving)
}

func (h *host) remove(vips []netip.Addr) error {
	for _, vip := range vips {
		if hook := h.hook(vip); hook != nil {
			hook(h.netns, vip)
		}
		err := h.do(func() error {
			same := func(a netip.Addr) bool { return a == vip }
			h.ns.lo = slices.DeleteFunc(h.ns.lo, same)
			h.record().vips = slices.DeleteFunc(h.record().vips, same)
			h.changed()
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hook is what is to be called before a VIP is taken off, if it is there.
func (h *host) hook(vip netip.Addr) func(string, netip.Addr) {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	if !slices.Contains(h.ns.lo, vip) {
		return nil
	}
	return h.node.removing
}

// onRemoval sets removing.
func (n *node) onRemoval(hook func(netns string, vip netip.Addr)) {
	n.with(func() { n.removing = hook })
}

func (h *host) Restore(context.Context) error {
	var ours []netip.Addr
	err := h.do(func() error {
		if r := h.node.records[h.stateDir]; r != nil {
			ours = slices.Clone(r.vips)
		}
		return nil
	})
	if err == nil {
		err = h.remove(ours)
	}
	if err != nil {
		return err
	}
	return h.do(func() error {
		if r := h.node.records[h.stateDir]; r != nil {
			maps.Copy(h.ns.settings, r.settings)
			delete(h.node.records, h.stateDir)
			return os.Remove(filepath.Join(h.stateDir, "record"))
		}
		return nil
	})
}

// changed reports a change of addresses; the lock is held.
func (h *host) changed() { h.ns.notify() }

func (n *namespace) notify() {
	for _, ch := range n.changes {
		select {
		case ch <- kernel.Link{}:
		default:
		}
	}
}

func (h *host) Watch(ctx context.Context) (<-chan kernel.Link, error) {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	ch := make(chan kernel.Link, 1)
	h.ns.changes = append(h.ns.changes, ch)
	context.AfterFunc(ctx, func() {
		h.node.mu.Lock()
		defer h.node.mu.Unlock()
		h.ns.changes = slices.DeleteFunc(h.ns.changes, func(c chan kernel.Link) bool { return c == ch })
		close(ch)
	})
	return ch, nil
}

func (h *host) Close() error {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	h.ns.open--
	return nil
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// after lets time pass until all wait again.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
