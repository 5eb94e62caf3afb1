package election

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestGroupsAreSpreadEvenlyInTheEnd: whoever held what, and in whatever order the
// directors come to ask, in the end no two of them differ by more than one group,
// and no more groups have moved than had to.
func TestGroupsAreSpreadEvenlyInTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []string{"a", "b", "c", "d", "e"}[:rapid.IntRange(1, 5).Draw(t, "directors")]
		s := Spread{Pool: "pool"}
		for range rapid.IntRange(1, MaxGroups).Draw(t, "groups") {
			s.Holders = append(s.Holders, rapid.SampledFrom(nodes).Draw(t, "holder"))
		}
		floor, rest := len(s.Holders)/len(nodes), len(s.Holders)%len(nodes)
		var held []int
		for _, node := range nodes {
			held = append(held, s.Held(node))
		}
		slices.SortFunc(held, func(a, b int) int { return b - a })
		needed := 0
		for i, count := range held {
			if i < rest {
				count--
			}
			needed += max(0, count-floor)
		}
		for moves := 0; ; moves++ {
			type move struct {
				group int
				to    string
			}
			var open []move
			for _, node := range nodes {
				if group, any := s.Wanted(Peer{Node: node, Candidate: true}, others(nodes, node)); any {
					open = append(open, move{group, node})
				}
			}
			if len(open) == 0 {
				break
			}
			if moves >= needed {
				t.Fatalf("more than %d moves, which would do: %v", moves, s.Holders)
			}
			next := rapid.SampledFrom(open).Draw(t, "move")
			if s.Holders[next.group] == next.to {
				t.Fatalf("%s asks for what it holds", next.to)
			}
			s.Holders[next.group] = next.to
		}
		for _, node := range nodes {
			if held := s.Held(node); held < floor || held > floor+min(rest, 1) {
				t.Fatalf("%s holds %d of %d groups among %d: %v", node, held, len(s.Holders), len(nodes), s.Holders)
			}
		}
	})
}

func others(nodes []string, self string) []Peer {
	var peers []Peer
	for _, node := range nodes {
		if node != self {
			peers = append(peers, Peer{Node: node, Candidate: true})
		}
	}
	return peers
}

func TestWhoAsksForNothing(t *testing.T) {
	b := Peer{Node: "b", Candidate: true}
	for name, tc := range map[string]struct {
		holders []string
		self    Peer
		peer    Peer
	}{
		"while a group has no holder":    {[]string{"b", "b", "b", ""}, Peer{}, b},
		"one group is no two":            {[]string{"b"}, Peer{}, b},
		"it has as many":                 {[]string{"b", "b", "a", "a"}, Peer{}, b},
		"it has one less":                {[]string{"b", "b", "a"}, Peer{}, b},
		"the holder is no peer":          {[]string{"c", "c", "c"}, Peer{}, b},
		"the holder is of higher rank":   {[]string{"b", "b"}, Peer{}, Peer{Node: "b", Candidate: true, Priority: 1}},
		"it is of higher rank itself":    {[]string{"b", "b"}, Peer{Priority: 1}, b},
		"its kernel refuses something":   {[]string{"b", "b"}, Peer{Impaired: true}, b},
		"its node is to be emptied":      {[]string{"b", "b"}, Peer{Cordoned: true}, b},
		"the holder's is to be emptied":  {[]string{"b", "b"}, Peer{}, Peer{Node: "b", Candidate: true, Cordoned: true}},
		"both their nodes are":           {[]string{"b", "b"}, Peer{Cordoned: true}, Peer{Node: "b", Candidate: true, Cordoned: true}},
		"no Lease has been read so far":  {[]string{"", ""}, Peer{}, b},
		"it holds all that there is now": {[]string{"a", "a", "a"}, Peer{}, b},
	} {
		t.Run(name, func(t *testing.T) {
			tc.self.Node, tc.self.Candidate = "a", true
			if group, any := (Spread{"pool", tc.holders}).Wanted(tc.self, []Peer{tc.peer}); any {
				t.Errorf("it asks for group %d", group)
			}
		})
	}
}

// TestBalance is about a director "a" and its peer "b", which rank alike.
func TestBalance(t *testing.T) {
	self := func(held int, wants bool) Self {
		return Self{Node: "a", Instance: "a1", Candidate: true, Held: held, Wants: wants}
	}
	peer := func(held int) Peer { return Peer{Node: "b", Candidate: true, Held: held} }
	mine := Lease{Known: true, Exists: true, Holder: "a", Instance: "a1", Epoch: 7, ChangedAt: at(0), RequestedBy: "b"}
	others := Lease{Known: true, Exists: true, Holder: "b", Instance: "b1", Epoch: 8, ChangedAt: at(0)}
	byC := others
	byC.RequestedBy = "c"
	holding := Own{Announcing: true, RenewSent: at(0)}
	ready := Own{CandidateSince: at(-10000)}
	moved := ready
	moved.Moves = []time.Time{at(-4000), at(-3000), at(-2000), at(-1000)}
	c := Peer{Node: "c", Candidate: true}
	for name, tc := range map[string]struct {
		self  Self
		peers []Peer
		lease Lease
		own   Own
		never bool
		want  Write
	}{
		"who holds two more gives one away":               {self(3, false), []Peer{peer(1)}, mine, holding, false, Release},
		"who holds one more keeps it":                     {self(2, false), []Peer{peer(1)}, mine, holding, false, None},
		"who took one back waits":                         {self(3, false), []Peer{peer(1)}, mine, Own{Announcing: true, RenewSent: at(0), TookBackAt: at(-1000)}, false, None},
		"nothing is given away where nothing is to move":  {self(3, false), []Peer{peer(1)}, mine, holding, true, None},
		"nothing is given to one that is no candidate":    {self(3, false), []Peer{{Node: "b", Held: 1}}, mine, holding, false, None},
		"who holds two less asks":                         {self(1, true), []Peer{peer(3)}, others, ready, false, Request},
		"but for one group only":                          {self(1, false), []Peer{peer(3)}, others, ready, false, None},
		"and not for what would be no gain":               {self(2, true), []Peer{peer(3)}, others, ready, false, None},
		"and not where nothing is to move":                {self(1, true), []Peer{peer(3)}, others, ready, true, None},
		"and not before it has been ready for a while":    {self(1, true), []Peer{peer(3)}, others, Own{CandidateSince: at(-4000)}, false, None},
		"and not while the group has moved too much":      {self(1, true), []Peer{peer(3)}, others, moved, false, None},
		"and not while another may have it for asking":    {self(1, true), []Peer{peer(3), c}, byC, ready, false, None},
		"but if that one may not":                         {self(1, true), []Peer{peer(3), {Node: "c", Candidate: true, Held: 2}}, byC, ready, false, Request},
		"and not twice":                                   {self(1, true), []Peer{peer(3)}, func() Lease { l := others; l.RequestedBy = "a"; return l }(), ready, false, None},
		"one of higher rank asks whoever holds how much":  {Self{Node: "a", Instance: "a1", Candidate: true, Priority: 1, Held: 9}, []Peer{peer(1)}, others, ready, false, Request},
		"one of lower rank asks for nothing, and may not": {self(0, true), []Peer{{Node: "b", Candidate: true, Priority: 1, Held: 9}}, others, ready, false, None},
	} {
		t.Run(name, func(t *testing.T) {
			got := Decide(View{
				Now: at(500), LeaseDuration: 3 * time.Second, Group: "pool-1", Preemption: Preemption{Never: tc.never, Delay: 5 * time.Second},
				Self: tc.self, Peers: tc.peers, Lease: tc.lease, Contact: Contact{Answered: at(400)}, Own: tc.own,
			})
			if got.Write != tc.want {
				t.Errorf("it writes %s, want %s", got.Write, tc.want)
			}
			if got.Write == Release && (got.Successor != "b" || got.Why != Balanced || !got.Announce) {
				t.Errorf("it hands over by %+v", got)
			}
		})
	}
}

// TestTheWantedGroupIsTheBestOfTheFullest: all of one kind are alike but for their
// names, and the fullest gives.
func TestTheWantedGroupIsTheBestOfTheFullest(t *testing.T) {
	s := Spread{Pool: "pool", Holders: []string{"b", "c", "c", "b", "c", "c", "b"}}
	group, any := s.Wanted(Peer{Node: "a", Candidate: true}, others([]string{"b", "c"}, ""))
	if !any || s.Holders[group] != "c" {
		t.Fatalf("it asks for group %d, any: %t; want one of c's", group, any)
	}
	var weights []string
	for number, holder := range s.Holders {
		if holder == "c" {
			weights = append(weights, fmt.Sprintf("%x %d", View{Group: LeaseName("pool", number)}.weight("a"), number))
		}
	}
	if want := slices.Max(weights); !cmp.Equal(want[len(want)-1:], fmt.Sprint(group)) {
		t.Errorf("it asks for group %d, want the one of %s", group, want)
	}
}
