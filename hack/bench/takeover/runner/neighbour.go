package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

// neighbourFile lists the neighbours of the namespace of whoever reads it.
const neighbourFile = "/proc/net/arp"

// neighbourPoll is short beside anything that two directors could do in turn.
const neighbourPoll = 100 * time.Millisecond

// mover notes when the client was sent to another director.
type mover struct {
	mu    sync.Mutex
	last  string
	moves []time.Time
}

// watch looks until ctx ends.
func (m *mover) watch(ctx context.Context) {
	tick := time.NewTicker(neighbourPoll)
	defer tick.Stop()
	for {
		if table, err := os.ReadFile(neighbourFile); err == nil {
			m.note(time.Now(), neighbour(string(table), plan.VIP))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// note takes the MAC of the VIP; empty is none that is known.
func (m *mover) note(now time.Time, mac string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mac == "" || mac == m.last {
		return
	}
	if m.last != "" {
		m.moves = append(m.moves, now)
	}
	m.last = mac
}

// latest is when the last move was; zero if there was none.
func (m *mover) latest() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.moves) == 0 {
		return time.Time{}
	}
	return m.moves[len(m.moves)-1]
}

// split counts the moves before a moment, and those from then on.
func (m *mover) split(at time.Time) (before, after int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, move := range m.moves {
		if move.Before(at) {
			before++
		} else {
			after++
		}
	}
	return before, after
}

// neighbour finds the MAC of an address in /proc/net/arp; empty if there is none
// that is complete.
func neighbour(table, address string) string {
	const addressField, macField, fields = 0, 3, 6
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) == fields && words[addressField] == address && words[macField] != "00:00:00:00:00:00" {
			return words[macField]
		}
	}
	return ""
}
