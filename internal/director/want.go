package director

import (
	"cmp"
	"maps"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// answers says for which VIPs the kernel is to answer itself.
type answers struct {
	// groups is how many groups the VIPs are divided into.
	groups int
	// decided are the groups of which somebody has said so; for the others what the
	// kernel does is left as an earlier process had it. On are those for which it is
	// to answer.
	decided, on groupSet
	// link is the interface that it answers on, if for any.
	link string
}

// groupSet is a set of groups.
type groupSet uint32

func (s groupSet) with(group int) groupSet { return s | 1<<group }

func (s groupSet) has(group int) bool { return s>>group&1 != 0 }

// after returns what is decided when this is said after before.
func (a answers) after(before answers) answers {
	if before.groups != a.groups {
		return a
	}
	a.on |= before.on &^ a.decided
	a.decided |= before.decided
	a.link = cmp.Or(a.link, before.link)
	if a.on == 0 {
		a.link = ""
	}
	return a
}

// permits says whether an operation may be done: a plan that the API has not
// confirmed (it is from a checkpoint, and may be old) adds and removes no
// service, and nothing that is of no use without one.
func (e *entry) permits(op netstate.Op, have netstate.State) bool {
	if e.phase != served || e.confirmed {
		return true
	}
	there := len(have.Services) > 0
	switch change := op.(type) {
	case netstate.ServiceChange:
		return false
	case netstate.DestinationChange:
		_, there = have.Services[change.Entry.Service]
	case netstate.GuardChange:
		if change.Entry.Port != 0 {
			there = have.Serves(change.Entry)
		}
	}
	return there
}

// want returns what the kernel is to hold of a key in its phase, what to
// remember, and when to look again although nothing happens; 0 is never.
func (w *Worker) want(job *entry, have netstate.Observation, how answers) (netstate.State, plan.Memory, time.Duration) {
	switch job.phase {
	case adopted:
		return how.in(withoutAnswers(have.State), have.State), plan.Memory{}, 0
	case gone:
		return netstate.New(), plan.Memory{}, 0
	case leaving:
		if len(job.desired.State.Services) == 0 {
			return withoutAnswers(have.State), plan.Memory{}, 0
		}
	case served:
	}
	want, memory, next := plan.Want(w.agreed(job.desired), have, w.verdicts, job.memory, time.Now())
	if job.phase == served {
		want = how.in(want, have.State)
	}
	return want, memory, next
}

// in returns want with the addresses by which the kernel answers for its VIPs.
func (a answers) in(want, have netstate.State) netstate.State {
	addresses := maps.Clone(want.Addresses)
	for vip := range want.Addresses {
		if a.on.has(election.GroupOf(vip.Addr, a.groups)) {
			addresses[netstate.AddressKey{Link: a.link, Addr: vip.Addr}] = netstate.Address{}
		}
	}
	for address, value := range have.Addresses {
		_, stays := want.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: address.Addr}]
		decided := a.decided.has(election.GroupOf(address.Addr, a.groups))
		if !decided && stays && address.Link != netstate.DummyLink {
			addresses[address] = value
		}
	}
	want.Addresses = addresses
	return want
}

// withoutAnswers returns the state without the addresses by which the kernel
// answers for a VIP.
func withoutAnswers(s netstate.State) netstate.State {
	s.Addresses = maps.Clone(s.Addresses)
	maps.DeleteFunc(s.Addresses, func(k netstate.AddressKey, _ netstate.Address) bool { return k.Link != netstate.DummyLink })
	return s
}
