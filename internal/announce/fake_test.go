package announce

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
)

// fakeNetwork is a network without a kernel.
type fakeNetwork struct {
	mu      sync.Mutex
	ports   []*fakePort
	members []*fakeMember
	// broken, if set, is the error of every listen and join.
	broken error
	// capacity is how many groups one socket takes; 0 is any number.
	capacity int
}

func (n *fakeNetwork) listen(index int, f family) (port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken != nil {
		return nil, n.broken
	}
	p := &fakePort{index: index, family: f}
	p.arrived = sync.NewCond(&p.mu)
	n.ports = append(n.ports, p)
	return p, nil
}

func (n *fakeNetwork) member(index int) (member, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := &fakeMember{network: n, index: index, groups: map[netip.Addr]bool{}}
	n.members = append(n.members, m)
	return m, nil
}

func (n *fakeNetwork) setBroken(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = err
}

// open returns the open port of a family, or nil.
func (n *fakeNetwork) open(f family) *fakePort {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.ports {
		if p.family == f && !p.isClosed() {
			return p
		}
	}
	return nil
}

// groups returns all groups that an interface is in.
func (n *fakeNetwork) groups(index int) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	in := map[netip.Addr]bool{}
	for _, m := range n.members {
		if m.index == index {
			maps.Copy(in, m.groups)
		}
	}
	return slices.SortedFunc(maps.Keys(in), netip.Addr.Compare)
}

// fakePort is a packet socket in memory.
type fakePort struct {
	index  int
	family family

	mu      sync.Mutex
	arrived *sync.Cond
	queue   [][]byte
	sent    [][]byte
	closed  bool
	failed  error
	// refuse is the error of every send; onReceive is called with each frame
	// that is taken, without the lock.
	refuse    error
	onReceive func()
}

func (p *fakePort) wait() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.closed && p.failed == nil {
		p.arrived.Wait()
	}
	if p.closed {
		return os.ErrClosed
	}
	return nil
}

func (p *fakePort) receive(buf []byte) (int, bool, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, false, os.ErrClosed
	}
	if p.failed != nil || len(p.queue) == 0 {
		defer p.mu.Unlock()
		return 0, false, p.failed
	}
	n := copy(buf, p.queue[0])
	p.queue = p.queue[1:]
	called := p.onReceive
	p.mu.Unlock()
	if called != nil {
		called()
	}
	return n, true, nil
}

func (p *fakePort) send(frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return p.refuse
	}
	p.sent = append(p.sent, bytes.Clone(frame))
	return nil
}

func (p *fakePort) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("closed twice")
	}
	p.closed = true
	p.arrived.Broadcast()
	return nil
}

func (p *fakePort) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// arrive puts frames into the socket.
func (p *fakePort) arrive(frames ...[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, frames...)
	p.arrived.Broadcast()
}

// fail makes the socket unreadable.
func (p *fakePort) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = err
	p.arrived.Broadcast()
}

// take returns what was sent since it was last called.
func (p *fakePort) take() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := p.sent
	p.sent = nil
	return sent
}

// fakeMember is an IPv6 socket that joins groups.
type fakeMember struct {
	network *fakeNetwork
	index   int
	groups  map[netip.Addr]bool
	closed  bool
}

func (m *fakeMember) join(group netip.Addr) error {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	switch {
	case m.network.broken != nil:
		return m.network.broken
	case m.groups[group]:
		return errors.New("joined twice")
	case m.network.capacity > 0 && len(m.groups) >= m.network.capacity:
		return errors.New("no memory for options")
	}
	m.groups[group] = true
	return nil
}

func (m *fakeMember) leave(group netip.Addr) error {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	if !m.groups[group] {
		return errors.New("not joined")
	}
	delete(m.groups, group)
	return nil
}

func (m *fakeMember) close() error {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	m.groups, m.closed = nil, true
	return nil
}
