// Package keylist reads and writes the keys that directors' gossip is encrypted
// with, as a list in text: of several, all are understood and the first is spoken,
// so that they can be exchanged while directors run.
package keylist

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// KeySize of a key in bytes: AES-256.
const KeySize = 32

// Max is how many keys a list may have.
const Max = 8

// ErrNone says that a list has no key.
var ErrNone = errors.New("there is no key")

// NewKey returns a random key.
func NewKey() []byte {
	key := make([]byte, KeySize)
	// It never fails: crypto/rand ends the program instead.
	_, _ = rand.Read(key)
	return key
}

// Parse reads a list: one key a line in base64, the newest first. Empty lines count
// for nothing. The error says which line is wrong, and nothing of what it holds.
func Parse(text []byte) ([][]byte, error) {
	var list [][]byte
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		key, err := base64.StdEncoding.Strict().DecodeString(line)
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d is not in base64", number)
		case len(key) != KeySize:
			return nil, fmt.Errorf("the key on line %d has %d bytes, it needs %d", number, len(key), KeySize)
		case slices.ContainsFunc(list, func(k []byte) bool { return string(k) == string(key) }):
			return nil, fmt.Errorf("the key on line %d is there twice", number)
		case len(list) == Max:
			return nil, fmt.Errorf("there are more than %d keys", Max)
		}
		list = append(list, key)
	}
	if len(list) == 0 {
		return nil, ErrNone
	}
	return list, nil
}

// Format writes a list as Parse reads it.
func Format(list [][]byte) []byte {
	var text []byte
	for _, key := range list {
		text = base64.StdEncoding.AppendEncode(text, key)
		text = append(text, '\n')
	}
	return text
}

// Equal says whether two lists are the same, in the same order.
func Equal(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) })
}
