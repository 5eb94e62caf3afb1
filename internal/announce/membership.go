package announce

import (
	"errors"
	"fmt"
	"net/netip"
)

// groupsPerSocket bounds the groups joined on one socket. The kernel takes
// their memory from the socket's option memory (net.core.optmem_max), of which
// the usual 20 KiB are full after 365.
const groupsPerSocket = 200

// memberships keeps an interface in multicast groups, with as many sockets as
// it takes.
type memberships struct {
	open    func() (member, error)
	sockets []*memberSocket
	in      map[netip.Addr]*memberSocket
}

type memberSocket struct {
	member
	groups int
	// full says that the kernel took no more, at fewer than groupsPerSocket.
	full bool
}

func newMemberships(open func() (member, error)) *memberships {
	return &memberships{open: open, in: map[netip.Addr]*memberSocket{}}
}

// set makes the interface be in the wanted groups and no others. After an
// error it is in some of them, and set can be called again.
func (m *memberships) set(want map[netip.Addr]struct{}) error {
	var failed error
	for group, s := range m.in {
		if _, ok := want[group]; !ok {
			failed = errors.Join(failed, m.leave(group, s))
		}
	}
	for group := range want {
		if m.in[group] != nil {
			continue
		}
		if err := m.join(group); err != nil {
			// The next one would hardly fare better.
			return errors.Join(failed, fmt.Errorf("joining %s: %w", group, err))
		}
	}
	return failed
}

func (m *memberships) leave(group netip.Addr, s *memberSocket) error {
	delete(m.in, group)
	s.groups--
	s.full = false
	if err := s.leave(group); err != nil {
		return fmt.Errorf("leaving %s: %w", group, err)
	}
	return nil
}

func (m *memberships) join(group netip.Addr) error {
	for {
		s, err := m.roomy()
		if err != nil {
			return err
		}
		err = s.join(group)
		if err == nil {
			s.groups++
			m.in[group] = s
			return nil
		}
		if s.groups == 0 {
			return err
		}
		// The socket may be full before its time; an empty one can't be.
		s.full = true
	}
}

// roomy returns a socket that can take one more group.
func (m *memberships) roomy() (*memberSocket, error) {
	for _, s := range m.sockets {
		if s.groups < groupsPerSocket && !s.full {
			return s, nil
		}
	}
	opened, err := m.open()
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	s := &memberSocket{member: opened}
	m.sockets = append(m.sockets, s)
	return s, nil
}

// close leaves all groups.
func (m *memberships) close() error {
	var failed error
	for _, s := range m.sockets {
		failed = errors.Join(failed, s.close())
	}
	m.sockets = nil
	clear(m.in)
	return failed
}
