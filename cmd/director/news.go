package main

import (
	"sync"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// news gathers which keys have something to report until somebody takes them.
// It never blocks and never loses one; what changes twice meanwhile is one.
type news struct {
	mu   sync.Mutex
	keys map[netstate.Key]struct{}
	wake chan struct{}
}

func newNews() *news {
	return &news{keys: map[netstate.Key]struct{}{}, wake: make(chan struct{}, 1)}
}

// add notes a key.
func (n *news) add(key netstate.Key) {
	n.mu.Lock()
	n.keys[key] = struct{}{}
	n.mu.Unlock()
	n.call()
}

// call wakes whoever waits.
func (n *news) call() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take returns one key that has been added and not taken since; false if there
// is none. Wake has a token whenever some may be left.
func (n *news) take() (netstate.Key, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key := range n.keys {
		delete(n.keys, key)
		if len(n.keys) > 0 {
			n.call()
		}
		return key, true
	}
	return netstate.Key{}, false
}
