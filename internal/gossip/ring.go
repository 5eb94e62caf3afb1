package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

// ring brings new keys into use one step after the other, so that directors which
// hear of them one after the other understand each other all the time: at once
// they are understood, after a grace the first of them is spoken, after another
// the keys that are not among them are dropped.
type ring struct {
	wanted [][]byte
	// spoken is what was spoken before, others what was understood besides.
	spoken []byte
	others [][]byte
	since  time.Time
}

// newRing uses keys without any grace: nobody was spoken to before.
func newRing(list [][]byte) ring { return ring{wanted: list} }

// set wants other keys from now on.
func (r *ring) set(list [][]byte, now time.Time, grace time.Duration) {
	if keylist.Equal(list, r.wanted) {
		return
	}
	before := r.at(now, grace)
	*r = ring{wanted: list, spoken: before[0], others: before[1:], since: now}
}

// at returns the keys to use: the one that is spoken, and then the others that are
// understood.
func (r *ring) at(now time.Time, grace time.Duration) [][]byte {
	var list [][]byte
	add := func(more ...[]byte) {
		for _, key := range more {
			if !slices.ContainsFunc(list, func(k []byte) bool { return bytes.Equal(k, key) }) {
				list = append(list, key)
			}
		}
	}
	switch passed := now.Sub(r.since); {
	case r.spoken == nil || passed >= 2*grace:
		return r.wanted
	case passed < grace:
		add(r.spoken)
		add(r.wanted...)
	default:
		add(r.wanted...)
		add(r.spoken)
	}
	add(r.others...)
	return list
}

// errNoKeys says that there is nothing to encrypt with.
var errNoKeys = errors.New("there are no keys")

// checkKeys refuses what the keyring would, and all but AES-256.
func checkKeys(list [][]byte) error {
	if len(list) == 0 {
		return errNoKeys
	}
	for i, key := range list {
		if len(key) != keylist.KeySize {
			return fmt.Errorf("key %d has %d bytes, it needs %d", i+1, len(key), keylist.KeySize)
		}
	}
	return nil
}

// install makes a keyring hold exactly the keys, the first of which is spoken. It
// may be in use. RemoveKey moves the keys behind the removed one within a slice
// that others may be reading, so only the last key is ever removed: UseKey, which
// makes a new slice, first brings those that stay to the front.
func install(on *memberlist.Keyring, list [][]byte) error {
	for _, key := range list {
		if err := on.AddKey(key); err != nil {
			return fmt.Errorf("adding a key: %w", err)
		}
	}
	if same(on, list) {
		return nil
	}
	for _, key := range slices.Backward(list) {
		if err := on.UseKey(key); err != nil {
			return fmt.Errorf("using a key: %w", err)
		}
	}
	for all := on.GetKeys(); len(all) > len(list); all = on.GetKeys() {
		if err := on.RemoveKey(all[len(all)-1]); err != nil {
			return fmt.Errorf("removing a key: %w", err)
		}
	}
	return nil
}

func same(on *memberlist.Keyring, list [][]byte) bool { return keylist.Equal(on.GetKeys(), list) }
