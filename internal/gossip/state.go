package gossip

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// State is what a director says of itself.
type State struct {
	// Node is the name of its node, Instance tells its process from the next.
	Node, Instance string
	// MAC is the link-layer address of its announcement interface, in the usual
	// notation; empty if it has none.
	MAC string
	// Candidate says that it could become active, Impaired that its kernel refuses
	// some of the VIPs, Cordoned that its node is to be emptied.
	Candidate, Impaired, Cordoned bool
	// Cold says that it does not know the connections of others yet.
	Cold bool
	// APIReachable says that the API server answers it.
	APIReachable bool
	// Priority is its node's in the election.
	Priority int32
	// Claims are the groups whose VIPs it announces, in order, each once.
	Claims []Claim
	// Directors are the MAC addresses of the other directors that its guard knows, in
	// order, each once, at most MaxDirectors; nil says nothing of them.
	Directors []MAC
}

// MAC is the link-layer address of an Ethernet interface.
type MAC [6]byte

func (m MAC) compare(n MAC) int { return bytes.Compare(m[:], n[:]) }

// Claim says that a director announces a group's VIPs.
type Claim struct {
	Group int
	Epoch int64
	// Confirmed says that the group's Lease is its own and valid.
	Confirmed bool
	// Yielding says that it is handing the group over.
	Yielding bool
}

// equal says whether both say the same.
func (s State) equal(t State) bool {
	return s.Node == t.Node && s.Instance == t.Instance && s.MAC == t.MAC && s.Candidate == t.Candidate &&
		s.Impaired == t.Impaired && s.Cordoned == t.Cordoned && s.Cold == t.Cold && s.APIReachable == t.APIReachable &&
		s.Priority == t.Priority && slices.Equal(s.Claims, t.Claims) &&
		(s.Directors == nil) == (t.Directors == nil) && slices.Equal(s.Directors, t.Directors)
}

// Limits of what a message may hold. One with all of them fits into a packet.
const (
	// MaxGroups is how many groups there may be; they count from 0.
	MaxGroups = 32
	// MaxDirectors is how many MAC addresses of others a director can tell.
	MaxDirectors = 24
	maxName      = 253
	maxMAC       = 64
	maxBytes     = 1280
	// maxEvery is the longest time between two messages of one director.
	maxEvery = 5 * time.Second
)

// message is a State as it is sent. Of two of one node the one with the later
// start, and then with the higher number, is newer.
type message struct {
	State
	// Started is when the sender's gossip started by its clock, in nanoseconds of
	// Unix time; Number counts its messages from then on.
	Started int64
	Number  uint64
	// Every is how long after this message its next is to be expected.
	Every time.Duration
	// Leaving says that it is the last one, because the sender takes its leave.
	Leaving bool
}

func (m message) compare(n message) int {
	return cmp.Or(cmp.Compare(m.Started, n.Started), cmp.Compare(m.Number, n.Number))
}

// errNewer says that a message needs a director of a newer version to be read.
var errNewer = errors.New("it is of a newer version")

// needs is the version of the encoding that is read here. A message says which one
// it takes to read it: a field that older directors may pass over does not raise it,
// so a state takes the first.
const (
	needs      = 2
	stateNeeds = 1
)

// The encoding is protobuf's (https://protobuf.dev/programming-guides/encoding):
// numbered fields, of which a reader passes over those that it does not know.
const (
	fieldNeeds    protowire.Number = 1
	fieldNode     protowire.Number = 2
	fieldInstance protowire.Number = 3
	fieldStarted  protowire.Number = 4
	fieldNumber   protowire.Number = 5
	fieldEvery    protowire.Number = 6 // milliseconds
	fieldFlags    protowire.Number = 7
	fieldPriority protowire.Number = 8 // zigzag
	fieldMAC      protowire.Number = 9
	fieldClaim    protowire.Number = 10 // repeated
	// 11 and 12 are other kinds'.
	fieldDirectors protowire.Number = 13 // of 6 bytes each
	claimGroup     protowire.Number = 1
	claimEpoch     protowire.Number = 2
	claimFlags     protowire.Number = 3
)

// encode refuses what decode would.
func encode(m message) ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	buf := number(nil, fieldNeeds, stateNeeds)
	buf = text(buf, fieldNode, m.Node)
	buf = text(buf, fieldInstance, m.Instance)
	buf = number(buf, fieldStarted, uint64(m.Started))
	buf = number(buf, fieldNumber, m.Number)
	buf = number(buf, fieldEvery, uint64(m.Every.Milliseconds()))
	buf = number(buf, fieldFlags, bits(m.Candidate, m.Impaired, m.Cordoned, m.Cold, m.APIReachable, m.Leaving))
	buf = number(buf, fieldPriority, protowire.EncodeZigZag(int64(m.Priority)))
	buf = text(buf, fieldMAC, m.MAC)
	for _, claim := range m.Claims {
		inner := number(nil, claimGroup, uint64(claim.Group))
		inner = number(inner, claimEpoch, uint64(claim.Epoch))
		inner = number(inner, claimFlags, bits(claim.Confirmed, claim.Yielding))
		buf = protowire.AppendBytes(protowire.AppendTag(buf, fieldClaim, protowire.BytesType), inner)
	}
	if m.Directors != nil {
		var all []byte
		for _, mac := range m.Directors {
			all = append(all, mac[:]...)
		}
		buf = protowire.AppendBytes(protowire.AppendTag(buf, fieldDirectors, protowire.BytesType), all)
	}
	return buf, nil
}

// number appends a field, which is left out if it is 0.
func number(buf []byte, field protowire.Number, value uint64) []byte {
	if value == 0 {
		return buf
	}
	return protowire.AppendVarint(protowire.AppendTag(buf, field, protowire.VarintType), value)
}

// text appends a field, which is left out if it is empty.
func text(buf []byte, field protowire.Number, value string) []byte {
	if value == "" {
		return buf
	}
	return protowire.AppendString(protowire.AppendTag(buf, field, protowire.BytesType), value)
}

// bits makes a number of flags, the first of which is its lowest bit.
func bits(flags ...bool) uint64 {
	var all uint64
	for i, flag := range flags {
		if flag {
			all |= 1 << i
		}
	}
	return all
}

// decode reads a message. What a newer director may add is passed over; all else
// that no director writes is refused.
func decode(buf []byte) (message, error) {
	var m message
	if len(buf) > maxBytes {
		return m, fmt.Errorf("it has %d bytes, more than %d", len(buf), maxBytes)
	}
	version := uint64(0)
	err := fields(buf, fieldClaim, func(field protowire.Number, v value) error {
		var err error
		switch field {
		case fieldNeeds:
			version, err = v.number(math.MaxInt64)
		case fieldNode:
			m.Node, err = v.text(maxName)
		case fieldInstance:
			m.Instance, err = v.text(maxName)
		case fieldStarted:
			m.Started, err = v.positive()
		case fieldNumber:
			m.Number, err = v.number(math.MaxUint64)
		case fieldEvery:
			m.Every, err = v.milliseconds()
		case fieldFlags:
			err = v.flags(&m.Candidate, &m.Impaired, &m.Cordoned, &m.Cold, &m.APIReachable, &m.Leaving)
		case fieldPriority:
			m.Priority, err = v.zigzag()
		case fieldMAC:
			m.MAC, err = v.text(maxMAC)
		case fieldClaim:
			var claim Claim
			claim, err = v.claim()
			m.Claims = append(m.Claims, claim)
		case fieldDirectors:
			m.Directors, err = v.macs()
		default:
			// A newer director's.
		}
		return err
	})
	switch {
	case err == nil && version > needs:
		return message{}, errNewer
	case err == nil:
		err = m.validate()
	}
	if err != nil {
		return message{}, err
	}
	return m, nil
}

// validate refuses what no director says.
func (m message) validate() error {
	switch {
	case m.Node == "" || len(m.Node) > maxName || !utf8.ValidString(m.Node):
		return errors.New("it has no name of a node")
	case m.Instance == "" || len(m.Instance) > maxName || !utf8.ValidString(m.Instance):
		return errors.New("it has no name of an instance")
	case len(m.MAC) > maxMAC || !utf8.ValidString(m.MAC):
		return errors.New("it has no link-layer address")
	case m.Started <= 0 || m.Number == 0:
		return errors.New("it has no number")
	case m.Every < time.Millisecond || m.Every > maxEvery:
		return fmt.Errorf("its next is to come after %s", m.Every)
	}
	last := -1
	for _, claim := range m.Claims {
		if claim.Group <= last || claim.Group >= MaxGroups || claim.Epoch < 0 {
			return errors.New("its claims are out of order")
		}
		last = claim.Group
	}
	if len(m.Directors) > MaxDirectors || !slices.IsSortedFunc(m.Directors, MAC.compare) || len(slices.Compact(slices.Clone(m.Directors))) < len(m.Directors) {
		return errors.New("its directors are out of order, or too many")
	}
	return nil
}
