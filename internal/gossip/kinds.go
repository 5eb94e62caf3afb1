package gossip

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// kind is what a message is about. A director passes over kinds that it does not
// know; those that knew of states alone refuse all others.
type kind uint64

const (
	// kindState is a message, which does not name its kind.
	kindState kind = 0
	// kindVerdicts is a verdictsMessage.
	kindVerdicts kind = 1
)

// kindsNeed is the version that knows kinds.
const kindsNeed = 2

// Fields of all messages but a state's, besides fieldNeeds, fieldNode, fieldStarted
// and fieldNumber; a state has none of these numbers.
const (
	fieldKind     protowire.Number = 11
	fieldVerdicts protowire.Number = 12 // repeated
)

// Fields of Verdicts.
const (
	verdictsVIP      protowire.Number = 1 // 4 or 16 bytes
	verdictsProtocol protowire.Number = 2
	verdictsPort     protowire.Number = 3
	verdictsFlags    protowire.Number = 4
	verdictsServers  protowire.Number = 5
	verdictsDown     protowire.Number = 6
)

// kindOf returns what a message is about.
func kindOf(buf []byte) (kind, error) {
	for len(buf) > 0 {
		field, wire, n := protowire.ConsumeTag(buf)
		if n < 0 {
			return 0, fmt.Errorf("reading a field: %w", protowire.ParseError(n))
		}
		buf = buf[n:]
		if field == fieldKind && wire == protowire.VarintType {
			number, n := protowire.ConsumeVarint(buf)
			if n < 0 {
				return 0, fmt.Errorf("reading its kind: %w", protowire.ParseError(n))
			}
			return kind(number), nil
		}
		if n = protowire.ConsumeFieldValue(field, wire, buf); n < 0 {
			return 0, fmt.Errorf("reading field %d: %w", field, protowire.ParseError(n))
		}
		buf = buf[n:]
	}
	return kindState, nil
}

// verdictsMessage is what a director says of its services, or of some of them: of two
// messages that say something of one the newer counts, see message.
type verdictsMessage struct {
	Node     string
	Started  int64
	Number   uint64
	Verdicts []Verdicts
}

// encodeVerdicts makes as many messages as it takes, with numbers from m's on; none
// if there is nothing to say. It refuses what decodeVerdicts would.
func encodeVerdicts(m verdictsMessage) ([][]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	var messages [][]byte
	var buf []byte
	for _, v := range m.Verdicts {
		part := protowire.AppendBytes(protowire.AppendTag(nil, fieldVerdicts, protowire.BytesType), v.encode())
		if buf == nil || len(buf)+len(part) > maxBytes {
			if buf != nil {
				messages = append(messages, buf)
				m.Number++
			}
			buf = m.header()
		}
		buf = append(buf, part...)
	}
	if buf != nil {
		messages = append(messages, buf)
	}
	return messages, nil
}

func (m verdictsMessage) header() []byte {
	buf := number(nil, fieldNeeds, kindsNeed)
	buf = text(buf, fieldNode, m.Node)
	buf = number(buf, fieldStarted, uint64(m.Started))
	buf = number(buf, fieldNumber, m.Number)
	return number(buf, fieldKind, uint64(kindVerdicts))
}

func (v Verdicts) encode() []byte {
	buf := text(nil, verdictsVIP, string(v.Service.VIP.AsSlice()))
	buf = number(buf, verdictsProtocol, uint64(v.Service.Protocol))
	buf = number(buf, verdictsPort, uint64(v.Service.Port))
	buf = number(buf, verdictsFlags, bits(v.Service.Marked))
	buf = number(buf, verdictsServers, v.Servers)
	return text(buf, verdictsDown, v.Down)
}

// size is about what it takes in a message, and not less.
func (v Verdicts) size() int { return 48 + len(v.Down) }

// decodeVerdicts reads a message. What a newer director may add is passed over; all
// else that no director writes is refused.
func decodeVerdicts(buf []byte) (verdictsMessage, error) {
	var m verdictsMessage
	if len(buf) > maxBytes {
		return m, fmt.Errorf("it has %d bytes, more than %d", len(buf), maxBytes)
	}
	version := uint64(0)
	err := fields(buf, fieldVerdicts, func(field protowire.Number, v value) error {
		var err error
		switch field {
		case fieldNeeds:
			version, err = v.number(math.MaxInt64)
		case fieldNode:
			m.Node, err = v.text(maxName)
		case fieldStarted:
			m.Started, err = v.positive()
		case fieldNumber:
			m.Number, err = v.number(math.MaxUint64)
		case fieldVerdicts:
			var verdicts Verdicts
			verdicts, err = v.verdicts()
			m.Verdicts = append(m.Verdicts, verdicts)
		default:
			// A newer director's.
		}
		return err
	})
	switch {
	case err == nil && version > needs:
		return verdictsMessage{}, errNewer
	case err == nil:
		err = m.validate()
	}
	if err != nil {
		return verdictsMessage{}, err
	}
	return m, nil
}

func (v value) verdicts() (Verdicts, error) {
	var all Verdicts
	if v.kind != protowire.BytesType {
		return all, errKind
	}
	err := fields(v.bytes, 0, func(field protowire.Number, v value) error {
		var n uint64
		var err error
		switch field {
		case verdictsVIP:
			all.Service.VIP, err = v.addr()
		case verdictsProtocol:
			n, err = v.number(math.MaxUint8)
			all.Service.Protocol = uint8(n)
		case verdictsPort:
			n, err = v.number(math.MaxUint16)
			all.Service.Port = uint16(n)
		case verdictsFlags:
			err = v.flags(&all.Service.Marked)
		case verdictsServers:
			all.Servers, err = v.number(math.MaxUint64)
		case verdictsDown:
			all.Down, err = v.octets(MaxServers / 8)
		default:
			// A newer director's.
		}
		return err
	})
	return all, err
}

func (v value) addr() (netip.Addr, error) {
	addr, ok := netip.AddrFromSlice(v.bytes)
	if v.kind != protowire.BytesType || !ok {
		return netip.Addr{}, errors.New("it is no address")
	}
	return addr, nil
}

func (v value) octets(most int) (string, error) {
	switch {
	case v.kind != protowire.BytesType:
		return "", errKind
	case len(v.bytes) > most:
		return "", errors.New("it is too long")
	default:
		return string(v.bytes), nil
	}
}

// validate refuses what no director says.
func (m verdictsMessage) validate() error {
	switch {
	case m.Node == "" || len(m.Node) > maxName || !utf8.ValidString(m.Node):
		return errors.New("it has no name of a node")
	case m.Started <= 0 || m.Number == 0:
		return errors.New("it has no number")
	}
	for _, v := range m.Verdicts {
		if err := v.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (v Verdicts) validate() error {
	switch {
	case !v.Service.VIP.IsValid() || v.Service.VIP.Zone() != "":
		return errors.New("a service has no VIP")
	case v.Service.Protocol == 0:
		return errors.New("a service has no protocol")
	case len(v.Down) > MaxServers/8:
		return errors.New("a service has too many servers")
	case len(v.Down) > 0 && v.Down[len(v.Down)-1] == 0:
		return errors.New("the servers of a service end with zeros")
	default:
		return nil
	}
}
