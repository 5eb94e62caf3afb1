package kernel

import (
	"encoding/binary"
	"hash/fnv"
	"sync"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Firewall marks of ours have markPrefix in their first byte; the others tell
// services apart. IPVS compares a mark as a whole, so no bits can be left to
// others. They need none: a packet has the mark from just before IPVS looks at it
// (when kube-proxy, the CNI and routing have read theirs) until IPVS sends it on,
// where it is taken off before anybody else's rules for sending.
const (
	markPrefix = 0x4c000000
	markMask   = 0xff000000
)

// marks says which mark each marked service has. It begins with a hash of the
// service's name, so that directors agree and shared connections find their
// service, and goes on from there where another has that one. What was given out
// is in the guard, where the next process finds it.
type marks struct {
	mu    sync.Mutex
	of    map[netstate.ServiceKey]uint32
	owner map[uint32]netstate.ServiceKey
}

// get returns the mark of a service, the same one each time.
func (m *marks) get(k netstate.ServiceKey) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mark, known := m.of[k]; known {
		return mark
	}
	mark := firstMark(k)
	for m.owned(mark) {
		mark = markPrefix | (mark+1)&^markMask
	}
	m.put(k, mark)
	return mark
}

func (m *marks) owned(mark uint32) bool {
	_, owned := m.owner[mark]
	return owned
}

// learn takes note of a mark that the guard gives to a service. What this process
// knows of either counts for more.
func (m *marks) learn(k netstate.ServiceKey, mark uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.of[k]; !known && isOurs(mark) && !m.owned(mark) {
		m.put(k, mark)
	}
}

// service returns the service that has a mark.
func (m *marks) service(mark uint32) (netstate.ServiceKey, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, owned := m.owner[mark]
	return k, owned
}

// forget gives up the mark of a service that is gone.
func (m *marks) forget(k netstate.ServiceKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.owner, m.of[k])
	delete(m.of, k)
}

func (m *marks) put(k netstate.ServiceKey, mark uint32) {
	if m.of == nil {
		m.of, m.owner = map[netstate.ServiceKey]uint32{}, map[uint32]netstate.ServiceKey{}
	}
	m.of[k], m.owner[mark] = mark, k
}

// isOurs says whether a mark is one that services of ours have.
func isOurs(mark uint32) bool { return mark&markMask == markPrefix }

// firstMark is the mark that a service has unless another has it.
func firstMark(k netstate.ServiceKey) uint32 {
	name := append(k.Key.Addr.AsSlice(), byte(k.Protocol))
	name = binary.BigEndian.AppendUint16(name, k.Port)
	h := fnv.New32a()
	h.Write(name)
	sum := h.Sum32()
	// Folded as FNV's authors advise for fewer bits than 32.
	return markPrefix | (sum>>24^sum)&^markMask
}

// markedService is the service whose packets an entry of the guard marks.
func markedService(k netstate.GuardKey) netstate.ServiceKey {
	return netstate.ServiceKey{Key: netstate.Key{Addr: k.VIP}, Protocol: k.Protocol, Port: k.Port, Marked: true}
}
