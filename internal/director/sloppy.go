package director

import (
	"slices"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// mix is what the services of a director ask for: whether any director can take
// up their open connections by their hash alone.
type mix struct {
	// TCP and SCTP say that there is a service that is netstate.Stateless, otherTCP
	// that there is a TCP service that is not.
	TCP, SCTP, otherTCP bool
}

// mix returns what the services of all plans ask for. Those of keys that are leaving
// count too, since neighbours go on sending.
func (w *Worker) mix() mix {
	w.mu.Lock()
	defer w.mu.Unlock()
	var m mix
	for _, e := range w.entries {
		if e.phase != served && e.phase != leaving {
			continue
		}
		for key, service := range e.desired.State.Services {
			switch {
			case key.Protocol == netstate.TCP && service.Stateless():
				m.TCP = true
			case key.Protocol == netstate.TCP:
				m.otherTCP = true
			case key.Protocol == netstate.SCTP && service.Stateless():
				m.SCTP = true
			}
		}
	}
	return m
}

// sloppy returns for which protocols IPVS is to take up connections of which it
// did not see the beginning; nil leaves that as it is, until it can be told.
//
// That a packet of an unknown connection is scheduled is right for a service that is
// Stateless: it goes to the server that has the connection. For any other TCP
// service it is wrong as long as there is a director before that may know the
// connection: a server that does not would reset it. IPVS makes no such
// difference, so with both kinds of services connections are taken up only while
// nothing is handed on. See docs/decisions/0027-mh.md.
func (m mix) sloppy(relaying relaying) *netstate.Sloppy {
	s := netstate.Sloppy{TCP: m.TCP, SCTP: m.SCTP}
	if m.TCP && m.otherTCP {
		switch relaying {
		case undecided:
			return nil
		case handsOn:
			s.TCP = false
		case handsNothingOn:
		}
	}
	return &s
}

// relaying is whether packets of unknown connections go to the director before.
type relaying int

const (
	// undecided: what an earlier process told the kernel stays.
	undecided relaying = iota
	handsOn
	handsNothingOn
)

// relaying says whether the relay is wanted and in place: only then may IPVS let
// through what it does not know. Known says that there was a director before, guard
// that there is a guard to do it. s.mu is held.
func (r *relay) relaying(wanted kernel.Relay, known, guard bool) relaying {
	switch {
	case !guard || !known:
		return handsNothingOn
	case r.set == nil && r.problem == "":
		return undecided
	case r.set == nil || len(r.set.To) == 0 || len(wanted.To) == 0:
		return handsNothingOn
	default:
		return handsOn
	}
}

// sloppy returns what IPVS is to be told, and whether it was told so already. If
// that is nothing, what an earlier process told it can wait for the next audit.
func (s *session) sloppy() (want *netstate.Sloppy, told bool) {
	if !s.d.planned(s.name) {
		return nil, true
	}
	m := s.d.worker.mix()
	wanted, decided := s.relayed()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !decided && s.relay.set != nil {
		wanted = *s.relay.set
	}
	known := slices.ContainsFunc(s.groups, func(g *group) bool { return g.previous != "" })
	want = m.sloppy(s.relay.relaying(wanted, known, s.pool.Guard))
	if s.told == nil {
		return want, want == nil || *want == netstate.Sloppy{}
	}
	return want, want == nil || *s.told == *want
}

// slop has the node prepared again if IPVS is to be told something else.
func (s *session) slop() {
	if _, told := s.sloppy(); !told {
		s.relink()
	}
}

// noteSloppy notes what IPVS was told.
func (s *session) noteSloppy(sloppy *netstate.Sloppy) {
	if sloppy == nil {
		return
	}
	s.mu.Lock()
	before := s.told
	s.told = sloppy
	s.mu.Unlock()
	if before == nil && *sloppy != (netstate.Sloppy{}) || before != nil && *before != *sloppy {
		s.d.cfg.Log.Info("Taking up connections in their middle", "tcp", sloppy.TCP, "sctp", sloppy.SCTP)
	}
}
