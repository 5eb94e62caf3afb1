package announce

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestStalledAnnouncerSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4, vip6})
		b.pass(60 * time.Millisecond)
		b.net.open(ipv4).take()

		time.Sleep(StallLimit + time.Millisecond)
		b.expectFrames("to a question", nil, b.exchange(ipv4, arpQuestion(client, client4, vip4)))
		time.Sleep(time.Hour)
		b.expectFrames("on the schedule", nil, b.net.open(ipv4).take())
		if err := b.Defend(vip4); !errors.Is(err, ErrStale) {
			t.Errorf("defended: %v, want ErrStale", err)
		}
		if got := b.Stats().StaleDrops; got != 1 {
			t.Errorf("counted %d, want 1", got)
		}

		// Fresh again: what is overdue goes out, once, and questions are answered.
		b.beat()
		synctest.Wait()
		sent := b.net.open(ipv4).take()
		if len(sent) < 2 || !slices.EqualFunc(sent[:2], gratuitous(ours, vip4), slices.Equal) {
			t.Errorf("after the stall: %x, want one announcement", sent)
		}
		if got := b.exchange(ipv4, arpQuestion(client, client4, vip4)); len(got) != 1 {
			t.Errorf("%d answers after the stall, want 1", len(got))
		}
	})
}

// The agent as a whole was stopped: its sockets filled, and the loop that
// decides may be the first to run again.
func TestQuestionsFromAStallStayUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4, vip6})
		b.pass(60 * time.Millisecond)
		p4, p6 := b.net.open(ipv4), b.net.open(ipv6)
		p4.take()
		p6.take()
		stale := func(p *fakePort, frames ...[]byte) {
			p.mu.Lock()
			defer p.mu.Unlock()
			// No broadcast: nobody runs.
			p.queue = append(p.queue, frames...)
		}
		time.Sleep(5 * time.Second)
		stale(p4, arpQuestion(client, client4, vip4), arpQuestion(router, router4, vip4), arpQuestion(peer, vip4, vip4))
		stale(p6, ndpQuestion(client, client6, vip6))
		b.beat()
		p4.arrive(arpQuestion(client, client4, vip4))
		p6.arrive()
		synctest.Wait()

		answers := 0
		for _, frame := range append(p4.take(), p6.take()...) {
			if p, err := decodeARP(frame); err == nil && p.op == arpReply && p.destination != broadcast {
				answers++
			}
			if p, err := decodeNDP(frame); err == nil && p.flags&ndpSolicited != 0 {
				answers++
			}
		}
		if got := b.Stats(); answers != 0 || got.Answered != 0 || got.StaleDrops != 4 {
			t.Errorf("%d answers, counted %d and %d stale drops; want none, 0 and 4", answers, got.Answered, got.StaleDrops)
		}
		// Who claimed a VIP meanwhile is worth knowing.
		if got := b.drain(); len(got) != 1 || got[0].MAC != peer {
			t.Errorf("claims %v, want the peer's", got)
		}
		if got := b.exchange(ipv4, arpQuestion(client, client4, vip4)); len(got) != 1 {
			t.Errorf("%d answers to a new question, want 1", len(got))
		}
	})
}

// The agent is stopped between reading a question and answering it.
func TestQuestionInHandDuringAStallStaysUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		b.pass(60 * time.Millisecond)
		p := b.net.open(ipv4)
		p.mu.Lock()
		p.onReceive = func() {
			b.stalled.Add(int64(5 * time.Second))
			// The deciding loop runs first, and finds that it is still active.
			b.beat()
		}
		p.mu.Unlock()
		p.take()
		p.arrive(arpQuestion(client, client4, vip4))
		synctest.Wait()
		if got := b.Stats(); got.Answered != 0 || got.StaleDrops != 1 {
			t.Errorf("counted %+v, want no answer and one stale drop", got)
		}
	})
}
