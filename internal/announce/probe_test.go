package announce

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	own4, own6  = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	ownNetworks = []netip.Prefix{netip.PrefixFrom(own4, 24), netip.PrefixFrom(own6, 64)}
	stranger    = MAC{0x02, 0, 0, 0, 0, 0x66}
)

// probeRun is a Probe that runs beside the test.
type probeRun struct {
	found Probed
	err   error
	done  chan struct{}
}

func (b *bench) startProbe(targets ...netip.Addr) *probeRun {
	r := &probeRun{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.found, r.err = b.Probe(b.t.Context(), targets)
	}()
	synctest.Wait()
	return r
}

// arpAnswer is the reply of a station to a question of ours.
func arpAnswer(from MAC, addr netip.Addr) []byte {
	return arpPacket{
		destination: ours, source: from, op: arpReply, senderMAC: from, senderIP: addr, targetMAC: ours, targetIP: own4,
	}.encode()
}

func ndpAnswer(from MAC, addr netip.Addr) []byte {
	return advertisement(from, addr, ours, own6, ndpSolicited|ndpOverride)
}

func TestProbeAsksThreeTimesAndTellsWhoAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetOwn(ownNetworks)
		b.pass(time.Second)
		begun := b.fence.Now()
		r := b.startProbe(vip4, router4, vip6, nobody4)
		p4, p6 := b.net.open(ipv4), b.net.open(ipv6)
		time.Sleep(20 * time.Millisecond)
		if got := len(p4.take()) + len(p6.take()); got != 3 {
			t.Errorf("%d questions at once, want one for each target", got)
		}
		p4.arrive(arpAnswer(peer, vip4), arpAnswer(peer, vip4), arpAnswer(stranger, vip4))
		time.Sleep(70 * time.Millisecond)
		b.beat()
		synctest.Wait()
		b.expectFrames("IPv6", [][]byte{question(ours, own6, vip6), question(ours, own6, vip6)}, p6.take())
		if got := len(p4.take()); got != 4 {
			t.Errorf("%d more questions by ARP, want two for each target", got)
		}
		p6.arrive(ndpAnswer(peer, vip6))
		<-r.done
		if r.err != nil {
			t.Fatal(r.err)
		}
		want := Probed{
			Answers: map[netip.Addr][]MAC{vip4: {peer, stranger}, vip6: {peer}},
			Begun:   begun, Ended: begun + probeTime,
		}
		if diff := cmp.Diff(want, r.found, compareAddrs); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
		if !r.found.Answered(vip4, stranger) || r.found.Answered(router4, peer) {
			t.Error("Answered says otherwise")
		}
		// A question is for 100 ms, and what comes later is another's.
		again := b.startProbe(vip4)
		<-again.done
		if len(again.found.Answers) != 0 || again.err != nil {
			t.Errorf("found %v, %v in a silent segment", again.found.Answers, again.err)
		}
	})
}

func TestOnlyAnswersToUsCount(t *testing.T) {
	reply := func(change func(*arpPacket)) []byte {
		p := arpPacket{
			destination: ours, source: peer, op: arpReply, senderMAC: peer, senderIP: vip4, targetMAC: ours, targetIP: own4,
		}
		change(&p)
		return p.encode()
	}
	advertised := func(change func(*ndpPacket)) []byte {
		p := ndpPacket{
			destination: ours, source: peer, from: vip6, to: own6, kind: ndpAdvertisement,
			flags: ndpSolicited | ndpOverride, target: vip6, linkLayer: peer,
		}
		change(&p)
		return p.encode()
	}
	for name, tc := range map[string]struct {
		frame []byte
		count bool
	}{
		"a reply":                       {reply(func(*arpPacket) {}), true},
		"a reply to all (RFC 5227)":     {reply(func(p *arpPacket) { p.destination = broadcast }), true},
		"a reply to another":            {reply(func(p *arpPacket) { p.destination, p.targetMAC = broadcast, client }), false},
		"a request":                     {reply(func(p *arpPacket) { p.op = arpRequest }), false},
		"a gratuitous reply":            {gratuitous(peer, vip4)[1], false},
		"our own reply, reflected":      {reply(func(p *arpPacket) { p.source, p.senderMAC = ours, ours }), false},
		"a reply in our name":           {reply(func(p *arpPacket) { p.senderMAC = ours }), false},
		"a reply of another VIP":        {reply(func(p *arpPacket) { p.senderIP = vip4b }), false},
		"a reply of a group":            {reply(func(p *arpPacket) { p.senderMAC = broadcast }), false},
		"an advertisement":              {advertised(func(*ndpPacket) {}), true},
		"an advertisement without MAC":  {advertised(func(p *ndpPacket) { p.linkLayer = MAC{} }), true},
		"an advertisement to all":       {gratuitous(peer, vip6)[0], false},
		"an advertisement unasked":      {advertised(func(p *ndpPacket) { p.flags = ndpOverride }), false},
		"our own advertisement":         {advertised(func(p *ndpPacket) { p.source, p.linkLayer = ours, ours }), false},
		"a solicitation":                {ndpQuestion(peer, vip6, own6), false},
		"an advertisement of another's": {advertised(func(p *ndpPacket) { p.target = vip6b }), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBench(t, nil)
				b.SetOwn(ownNetworks)
				r := b.startProbe(vip4, vip6)
				f := ipv4
				if _, err := decodeNDP(tc.frame); err == nil {
					f = ipv6
				}
				b.net.open(f).arrive(tc.frame)
				<-r.done
				if got := len(r.found.Answers) == 1; r.err != nil || got != tc.count {
					t.Errorf("found %v, %v; counts: want %t", r.found.Answers, r.err, tc.count)
				}
			})
		})
	}
}

// A peer must not learn from a probe that a VIP has moved.
func TestProbeIsNeverSentFromAVIP(t *testing.T) {
	for name, tc := range map[string]struct {
		own    []netip.Prefix
		target netip.Addr
		want   netip.Addr
	}{
		"from the network of the target": {
			[]netip.Prefix{netip.MustParsePrefix("10.0.0.1/8"), netip.MustParsePrefix("192.0.2.2/24")}, router4, own4,
		},
		"from another if there is none": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}, router4, netip.MustParseAddr("10.0.0.1")},
		"not from a VIP":                {[]netip.Prefix{netip.PrefixFrom(vip4, 32), netip.PrefixFrom(own4, 24)}, vip4b, own4},
		"from nothing":                  {[]netip.Prefix{netip.PrefixFrom(vip4, 24), netip.PrefixFrom(own6, 64)}, router4, netip.Addr{}},
		"by IPv6":                       {ownNetworks, vip6, own6},
		"a link-local address": {
			[]netip.Prefix{netip.MustParsePrefix("2001:db8::2/64"), netip.MustParsePrefix("fe80::1/64")}, router6, netip.MustParseAddr("fe80::1"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBench(t, nil)
				b.SetOwn(tc.own)
				r := b.startProbe(tc.target)
				b.expectFrames("question", [][]byte{question(ours, tc.want, tc.target)}, b.net.open(familyOf(tc.target)).take())
				<-r.done
			})
		})
	}
}

func TestQuestionWithoutASenderTeachesNobody(t *testing.T) {
	p, err := decodeARP(question(ours, netip.Addr{}, vip4))
	if err != nil || p.senderIP != nobody4 || p.targetIP != vip4 {
		t.Errorf("asks %+v, %v", p, err)
	}
	q, err := decodeNDP(question(ours, netip.Addr{}, vip6))
	if err != nil || q.from != noAddress6 || !q.linkLayer.IsZero() {
		t.Errorf("asks %+v, %v", q, err)
	}
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		r := b.startProbe(vip6)
		b.net.open(ipv6).arrive(gratuitous(peer, vip6)...)
		<-r.done
		if !r.found.Answered(vip6, peer) {
			t.Errorf("found %v, want the answer to all", r.found.Answers)
		}
	})
}

func TestInterfaceThatIsDownIsNoSilence(t *testing.T) {
	down, gone, moved := upLink, LinkState{}, upLink
	down.Up = false
	moved.MAC = stranger
	for name, events := range map[string][]LinkState{
		"down during the probe":         {down},
		"gone":                          {gone},
		"down for a moment":             {down, upLink},
		"with another MAC for a moment": {moved, upLink},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBench(t, nil)
				b.SetOwn(ownNetworks)
				r := b.startProbe(vip4)
				time.Sleep(70 * time.Millisecond)
				for _, link := range events {
					if err := b.LinkChanged(link); err != nil {
						t.Fatal(err)
					}
				}
				<-r.done
				if !errors.Is(r.err, ErrSilent) {
					t.Errorf("found %v, %v, want ErrSilent", r.found, r.err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		if err := b.LinkChanged(down); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Probe(t.Context(), []netip.Addr{vip4}); !errors.Is(err, ErrSilent) {
			t.Errorf("probed a link that is down: %v, want ErrSilent", err)
		}
		if err := b.LinkChanged(upLink); err != nil {
			t.Fatal(err)
		}
		refused := errors.New("network is down")
		p := b.net.open(ipv4)
		p.mu.Lock()
		p.refuse = refused
		p.mu.Unlock()
		if _, err := b.Probe(t.Context(), []netip.Addr{vip4}); !errors.Is(err, refused) {
			t.Errorf("probed with %v, want the kernel's error", err)
		}
	})
}

func TestProbeDuringAStallIsVoid(t *testing.T) {
	for name, after := range map[string]time.Duration{
		"between two questions": 10 * time.Millisecond,
		"before the last":       50 * time.Millisecond,
		"while waiting":         80 * time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBench(t, nil)
				b.SetOwn(ownNetworks)
				r := b.startProbe(vip4)
				time.Sleep(after)
				b.stalled.Add(int64(StallLimit + 50*time.Millisecond))
				<-r.done
				if !errors.Is(r.err, ErrStalled) {
					t.Errorf("found %v, %v, want ErrStalled", r.found, r.err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetOwn(ownNetworks)
		r := b.startProbe(vip4)
		time.Sleep(10 * time.Millisecond)
		b.stalled.Add(int64(100 * time.Millisecond))
		<-r.done
		if r.err != nil || r.found.Ended-r.found.Begun < probeTime {
			t.Errorf("found %+v, %v after a short delay", r.found, r.err)
		}
	})
}

func TestProbesRunSideBySideAndBesideTheResponder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetOwn(ownNetworks)
		b.SetActive([]netip.Addr{vip4})
		b.pass(45 * time.Second)
		begun := b.fence.Now()
		var runs []*probeRun
		for range probesAtOnce + 1 {
			runs = append(runs, b.startProbe(vip4b))
		}
		b.beat()
		if got := b.exchange(ipv4, arpQuestion(client, client4, vip4)); len(got) != 1 {
			t.Errorf("%d answers during a probe, want 1", len(got))
		}
		b.net.open(ipv4).arrive(arpAnswer(peer, vip4b))
		for i, r := range runs {
			<-r.done
			late := i == probesAtOnce
			if r.err != nil || r.found.Answered(vip4b, peer) == late || (r.found.Begun > begun) != late {
				t.Errorf("probe %d found %+v, %v", i, r.found, r.err)
			}
		}
		if len(b.probes) != 0 || len(b.probeSlots) != 0 {
			t.Errorf("%d probes and %d slots are left", len(b.probes), len(b.probeSlots))
		}
	})
}

func TestProbeOfAFamilyWithoutVIPsOpensItsSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetVIPs([]netip.Addr{vip6})
		b.SetOwn(ownNetworks)
		synctest.Wait()
		if b.net.open(ipv4) != nil {
			t.Fatal("a socket that nobody needs")
		}
		for range 2 {
			r := b.startProbe(router4)
			b.net.open(ipv4).arrive(arpAnswer(router, router4))
			<-r.done
			if r.err != nil || !r.found.Answered(router4, router) {
				t.Errorf("found %v, %v", r.found.Answers, r.err)
			}
		}
		if got := len(b.net.ports); got != 3 {
			t.Errorf("opened %d sockets, want 3", got)
		}
	})
}

func TestProbeRefusesWhatItCannotAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		var many []netip.Addr
		for addr := vip4; len(many) <= ProbeLimit; addr = addr.Next() {
			many = append(many, addr)
		}
		for name, targets := range map[string][]netip.Addr{"nothing": nil, "no station": {nobody4, allNodes}, "too many": many} {
			if _, err := b.Probe(t.Context(), targets); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Probe(ctx, []netip.Addr{vip4}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

// A station that answers by unicast, and announces nothing, is found by asking.
func TestActiveLooksForOthersAlongWithAnnouncements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetOwn(ownNetworks)
		b.SetActive([]netip.Addr{vip4})
		b.pass(900 * time.Millisecond)
		if got := b.Stats().Asked; got != 0 {
			t.Errorf("asked %d times during the burst, want 0", got)
		}
		b.pass(99 * time.Second)
		if got := b.Stats().Asked; got != 6 {
			t.Errorf("asked %d times in 100 s, want 6", got)
		}
		b.net.open(ipv4).take()
		b.pass(time.Minute)
		b.expectFrames("a refresh", append(gratuitous(ours, vip4), question(ours, own4, vip4)), b.net.open(ipv4).take())
		b.exchange(ipv4, arpAnswer(stranger, vip4))
		if got := b.drain(); len(got) != 1 || got[0].Kind != Answer || got[0].MAC != stranger {
			t.Errorf("claims %v, want the stranger's", got)
		}
		b.LookForOthers(vip4, vip4b)
		b.expectFrames("on request", [][]byte{question(ours, own4, vip4)}, b.net.open(ipv4).take())
	})
}

// The goroutine that reads a socket may not get to run for a while.
func TestWhatWaitsInTheSocketCountsByWhenItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetOwn(ownNetworks)
		p := b.net.open(ipv4)
		wait := func(frame []byte) {
			p.mu.Lock()
			defer p.mu.Unlock()
			// No broadcast: the reader does not run.
			p.queue = append(p.queue, frame)
		}
		wait(arpAnswer(stranger, vip4))
		r := b.startProbe(vip4)
		time.Sleep(90 * time.Millisecond)
		wait(arpAnswer(peer, vip4))
		<-r.done
		if diff := cmp.Diff([]MAC{peer}, r.found.Answers[vip4]); diff != "" || r.err != nil {
			t.Errorf("answers, %v (-want +got):\n%s", r.err, diff)
		}
	})
}
