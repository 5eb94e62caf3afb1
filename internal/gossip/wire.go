package gossip

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// value is a field's value as it was read.
type value struct {
	kind   protowire.Type
	varint uint64
	bytes  []byte
}

var errKind = errors.New("it is of another type")

// fields reads fields one after the other. Each may be there once, except the one
// that is repeated (0 for none). Numbers that know does not know it has to ignore.
func fields(buf []byte, repeated protowire.Number, know func(protowire.Number, value) error) error {
	seen := map[protowire.Number]bool{}
	for len(buf) > 0 {
		field, kind, n := protowire.ConsumeTag(buf)
		if n < 0 {
			return fmt.Errorf("reading a field: %w", protowire.ParseError(n))
		}
		buf = buf[n:]
		v := value{kind: kind}
		switch kind {
		case protowire.VarintType:
			v.varint, n = protowire.ConsumeVarint(buf)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(buf)
		default:
			n = protowire.ConsumeFieldValue(field, kind, buf)
		}
		if n < 0 {
			return fmt.Errorf("reading field %d: %w", field, protowire.ParseError(n))
		}
		buf = buf[n:]
		if seen[field] && field != repeated {
			return fmt.Errorf("field %d is there twice", field)
		}
		seen[field] = true
		if err := know(field, v); err != nil {
			return fmt.Errorf("reading field %d: %w", field, err)
		}
	}
	return nil
}

func (v value) number(most uint64) (uint64, error) {
	switch {
	case v.kind != protowire.VarintType:
		return 0, errKind
	case v.varint > most:
		return 0, fmt.Errorf("%d is too large", v.varint)
	default:
		return v.varint, nil
	}
}

func (v value) positive() (int64, error) {
	n, err := v.number(math.MaxInt64)
	return int64(n), err
}

func (v value) milliseconds() (time.Duration, error) {
	n, err := v.number(uint64(maxEvery / time.Millisecond))
	return time.Duration(n) * time.Millisecond, err
}

func (v value) zigzag() (int32, error) {
	n, err := v.number(math.MaxUint32)
	return int32(protowire.DecodeZigZag(n)), err
}

func (v value) text(most int) (string, error) {
	switch {
	case v.kind != protowire.BytesType:
		return "", errKind
	case len(v.bytes) > most || !utf8.Valid(v.bytes):
		return "", errors.New("it is too long, or no text")
	default:
		return string(v.bytes), nil
	}
}

// flags reads flags, the first of which is the lowest bit. Those beyond are a newer
// director's.
func (v value) flags(all ...*bool) error {
	n, err := v.number(math.MaxUint64)
	for i, flag := range all {
		*flag = n&(1<<i) != 0
	}
	return err
}

func (v value) claim() (Claim, error) {
	var claim Claim
	if v.kind != protowire.BytesType {
		return claim, errKind
	}
	err := fields(v.bytes, 0, func(field protowire.Number, v value) error {
		var err error
		switch field {
		case claimGroup:
			var n uint64
			n, err = v.number(MaxGroups - 1)
			claim.Group = int(n)
		case claimEpoch:
			claim.Epoch, err = v.positive()
		case claimFlags:
			err = v.flags(&claim.Confirmed, &claim.Yielding)
		default:
			// A newer director's.
		}
		return err
	})
	return claim, err
}

func (v value) macs() ([]MAC, error) {
	if v.kind != protowire.BytesType {
		return nil, errKind
	}
	if len(v.bytes)%len(MAC{}) != 0 {
		return nil, errors.New("half a MAC address")
	}
	all := make([]MAC, 0, len(v.bytes)/len(MAC{}))
	for part := range slices.Chunk(v.bytes, len(MAC{})) {
		all = append(all, MAC(part))
	}
	return all, nil
}

// bundle makes one text of several messages, for who joins.
func bundle(messages [][]byte) []byte {
	var buf []byte
	for _, m := range messages {
		buf = protowire.AppendBytes(buf, m)
	}
	return buf
}

// unbundle returns the messages in a bundle, up to what cannot be read.
func unbundle(buf []byte) [][]byte {
	var messages [][]byte
	for len(buf) > 0 && len(messages) < maxMembers {
		m, n := protowire.ConsumeBytes(buf)
		if n < 0 {
			break
		}
		messages, buf = append(messages, m), buf[n:]
	}
	return messages
}
