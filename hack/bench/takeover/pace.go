package main

import (
	"fmt"
	"strings"
	"time"
)

// laps are how long the parts of a round took.
type laps struct {
	last  time.Time
	parts []string
}

// lap ends a part.
func (l *laps) lap(name string) {
	now := time.Now()
	l.parts = append(l.parts, fmt.Sprintf("%s %.1f s", name, now.Sub(l.last).Seconds()))
	l.last = now
}

func (l laps) String() string { return strings.Join(l.parts, ", ") }

// unknownCost is what a round of which nothing is known is taken to cost besides
// its event.
const unknownCost = 40 * time.Second

// budget knows what rounds cost: as much as the longest of their kind.
type budget map[round]time.Duration

// kind is the round without its number.
func (b budget) kind(one round) round {
	one.Round = 0
	return one
}

func (b budget) note(one round, cost time.Duration) {
	b[b.kind(one)] = max(b[b.kind(one)], cost)
}

func (b budget) of(one round) time.Duration {
	if cost, known := b[b.kind(one)]; known {
		return cost
	}
	return unknownCost + one.Event.After()
}
