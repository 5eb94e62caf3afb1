package gossip

import (
	"net/netip"
	"testing"
	"time"
)

var (
	noon   = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	atPeer = netip.MustParseAddrPort("192.0.2.12:7956")
)

func after(d time.Duration) time.Time { return noon.Add(d) }

// said is a message of lb-2 with this number, which claims group 0 in the epoch of
// its number.
func said(started int64, number uint64) message {
	return message{
		State:   State{Node: "lb-2", Instance: "x", Claims: []Claim{{Epoch: int64(number)}}},
		Started: started, Number: number, Every: beatActive,
	}
}

func TestAnOldMessageNeverOverwritesANewerOne(t *testing.T) {
	for name, tc := range map[string]struct {
		known, next message
		knownOwn    bool
		nextOwn     bool
		at          time.Duration
		want        uint64
		wantRelayed bool
	}{
		"the next":                  {said(1, 5), said(1, 6), true, true, 0, 6, false},
		"the one before":            {said(1, 5), said(1, 4), true, true, 0, 5, false},
		"the next, told by another": {said(1, 5), said(1, 6), true, false, 0, 6, true},
		"the same, told by another": {said(1, 5), said(1, 5), true, false, 0, 5, false},
		"the same from itself":      {said(1, 5), said(1, 5), false, true, 0, 5, false},
		"the one before, which took longer than what another told": {said(1, 5), said(1, 4), false, true, 0, 5, true},
		"of the next process":                      {said(1, 5), said(2, 1), true, true, 0, 1, false},
		"of the process before":                    {said(2, 1), said(1, 9), true, true, 0, 1, false},
		"of the process before, told":              {said(2, 1), said(1, 9), true, false, time.Hour, 1, false},
		"of a process whose clock was set back":    {said(2, 1), said(1, 9), true, true, olderAfter, 9, false},
		"from itself, where another told nonsense": {said(2, 1), said(1, 9), false, true, 0, 9, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook("lb-1")
			b.take(tc.known, nil, tc.knownOwn, noon)
			b.take(tc.next, nil, tc.nextOwn, after(tc.at))
			m := b.members(after(tc.at), time.Time{})[0]
			if got := m.State.Claims[0].Epoch; got != int64(tc.want) || m.Relayed != tc.wantRelayed {
				t.Errorf("number %d counts, relayed: %t; want %d, %t", got, m.Relayed, tc.want, tc.wantRelayed)
			}
		})
	}
}

func TestOnlyWhatAMemberSaysItselfIsHeard(t *testing.T) {
	b := newBook("lb-1")
	if told := b.take(said(1, 1), nil, false, noon); !told.news || told.doubted {
		t.Errorf("told %+v by another, want news", told)
	}
	if m := b.members(noon, time.Time{})[0]; !m.HeardAt.IsZero() || !m.Relayed || len(m.State.Claims) != 1 || len(m.Said) != 0 {
		t.Errorf("told by another: %+v", m)
	}
	// The same said by itself is news: now it counts.
	if told := b.take(said(1, 1), nil, true, after(time.Second)); !told.news || !told.doubted {
		t.Errorf("told %+v by itself, want news and doubt that it is away", told)
	}
	if m := b.members(noon, time.Time{})[0]; !m.HeardAt.Equal(after(time.Second)) || m.Relayed || len(m.Said) != 1 {
		t.Errorf("heard: %+v", m)
	}
	again := said(1, 2)
	again.State = said(1, 1).State
	if told := b.take(again, nil, false, after(2*time.Second)); told.news {
		t.Errorf("told %+v by another what it said itself, want no news", told)
	}
	if m := b.members(noon, time.Time{})[0]; !m.HeardAt.Equal(after(time.Second)) || m.Relayed {
		t.Errorf("said, and told by another: %+v", m)
	}
	if told := b.take(said(1, 1), nil, true, after(2*time.Second)); told.news {
		t.Errorf("told %+v, want that a repetition is no news", told)
	}
	if m := b.members(noon, time.Time{})[0]; !m.HeardAt.Equal(after(time.Second)) {
		t.Errorf("a message that came twice was heard twice: %+v", m)
	}
}

// TestWhatOthersTellFasterSilencesNobody has another member tell all that one says
// before that one's own message is read, as on a machine that is very busy.
func TestWhatOthersTellFasterSilencesNobody(t *testing.T) {
	b := newBook("lb-1")
	for i := range 10 {
		now, m := after(time.Duration(i)*beatActive), said(1, uint64(i+1))
		later := said(1, uint64(i+3))
		m.Claims, later.Claims = nil, nil
		b.take(later, nil, false, now)
		b.take(m, nil, true, now)
		if got := b.members(now, time.Time{})[0]; !got.HeardAt.Equal(now) || got.Relayed {
			t.Fatalf("after %d messages: %+v, want that it was just heard", i+1, got)
		}
	}
}

func TestWhatADirectorSaysOfItselfIsNotTakenFromOthers(t *testing.T) {
	b := newBook("lb-2")
	b.take(said(1, 1), nil, true, noon)
	b.joined("lb-2", atPeer)
	if all := b.members(noon, time.Time{}); len(all) != 0 {
		t.Errorf("members: %+v", all)
	}
}

// TestDeathTakesSilence walks through what one member is taken for.
func TestDeathTakesSilence(t *testing.T) {
	b := newBook("lb-1")
	woke := time.Time{}
	expect := func(d time.Duration, what string, alive, dead bool, diedAt time.Duration) {
		t.Helper()
		m := b.members(after(d), woke)[0]
		if m.Alive != alive || m.Dead != dead || dead && !m.DeadAt.Equal(after(diedAt)) {
			t.Errorf("%s: %+v, want alive %t, dead %t after %s", what, m, alive, dead, diedAt)
		}
	}
	b.joined("lb-2", atPeer)
	b.take(said(1, 1), nil, true, after(0))
	expect(0, "it is there", true, false, 0)
	expect(time.Minute, "it is silent and answers probes", true, false, 0)

	b.gone("lb-2", after(100*time.Millisecond))
	expect(199*time.Millisecond, "it answers no probe and was heard a moment ago", true, false, 0)
	expect(200*time.Millisecond, "and no more", false, true, 200*time.Millisecond)
	b.take(said(1, 2), nil, true, after(300*time.Millisecond))
	expect(400*time.Millisecond, "it is heard", true, false, 0)
	expect(time.Second, "and no more", false, true, 500*time.Millisecond)

	woke = after(time.Hour)
	expect(time.Hour, "nobody listened for an hour", true, false, 0)
	expect(time.Hour+200*time.Millisecond, "nor was it there then", false, true, time.Hour+200*time.Millisecond)

	b.joined("lb-2", atPeer)
	expect(2*time.Hour, "it is back", true, false, 0)
	b.gone("lb-2", after(3*time.Hour))
	expect(3*time.Hour, "and gone", false, true, 3*time.Hour)
}

func TestAMemberThatWasNeverHeardDiesByProbesAlone(t *testing.T) {
	b := newBook("lb-1")
	b.joined("lb-2", atPeer)
	b.gone("lb-2", noon)
	if m := b.members(noon, time.Time{})[0]; !m.Dead || !m.HeardAt.IsZero() {
		t.Errorf("%+v, want it dead and never heard", m)
	}
}

func TestWhoTakesLeaveIsNotDead(t *testing.T) {
	b := newBook("lb-1")
	b.joined("lb-2", atPeer)
	b.take(said(1, 1), nil, true, noon)
	last := said(1, 2)
	last.Leaving = true
	b.take(last, nil, true, noon)
	b.gone("lb-2", noon)
	b.take(said(1, 1), nil, true, noon) // on its way for longer
	m := b.members(after(time.Minute), time.Time{})[0]
	if !m.Left || m.Dead || m.Alive || len(m.State.Claims) != 0 || len(b.targets()) != 0 || len(b.relays()) != 0 {
		t.Errorf("%+v, want that it left, claims nothing and is told nothing", m)
	}
	// The next process on its node.
	if told := b.take(said(2, 1), nil, true, noon); !told.doubted || !told.news {
		t.Errorf("told %+v by the next process, want that it is looked for", told)
	}
	b.joined("lb-2", atPeer)
	if m := b.members(noon, time.Time{})[0]; m.Left || !m.Alive || len(m.State.Claims) != 1 {
		t.Errorf("%+v, want it to be back", m)
	}
}

func TestTheDeadStayUntilTheyAreNoDirectors(t *testing.T) {
	b := newBook("lb-1")
	b.joined("lb-2", atPeer)
	if b.retain(nil) {
		t.Error("a member that is there was forgotten because the API server does not know it")
	}
	b.gone("lb-2", noon)
	if b.retain(map[string]bool{"lb-2": true}) || len(b.targets()) != 1 {
		t.Error("a director that is dead was forgotten")
	}
	if !b.retain(map[string]bool{"lb-3": true}) || len(b.members(noon, time.Time{})) != 0 {
		t.Error("one that is no director any more was not forgotten")
	}
}

func TestViewTellsSilence(t *testing.T) {
	v := View{Woke: after(time.Second), Members: []Member{{Node: "lb-2", HeardAt: noon}, {Node: "lb-3", HeardAt: after(2 * time.Second)}}}
	for node, want := range map[string]time.Duration{"lb-2": 2 * time.Second, "lb-3": time.Second} {
		m, met := v.Member(node)
		if got := v.Silence(m, after(3*time.Second)); !met || got != want {
			t.Errorf("%s is silent for %s, want %s", node, got, want)
		}
	}
	if _, met := v.Member("lb-1"); met {
		t.Error("lb-1 was met")
	}
}

func TestMembersAreBounded(t *testing.T) {
	b := newBook("lb-1")
	for i := range 2 * maxMembers {
		m := said(1, 1)
		m.Node = time.Duration(i).String()
		b.take(m, nil, true, noon)
	}
	if n := len(b.members(noon, time.Time{})); n != maxMembers {
		t.Errorf("%d members", n)
	}
}
