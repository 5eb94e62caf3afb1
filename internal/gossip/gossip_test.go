package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// What must come at all is looked for so often: a machine that stands still for half
// a minute does not use its patience up.
const (
	looks     = 1500
	lookEvery = 20 * time.Millisecond
)

// segment is a network of directors on loopback, on which they can be cut off.
type segment struct {
	t    *testing.T
	port uint16

	mu  sync.Mutex
	cut map[[2]netip.Addr]bool
}

func newSegment(t *testing.T) *segment {
	t.Helper()
	// A port that is free on one address most likely is on its neighbours.
	l, err := net.Listen("tcp", netip.AddrPortFrom(addrOf(250), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return &segment{t: t, port: port, cut: map[[2]netip.Addr]bool{}}
}

// setCut cuts what goes from one address to another, or mends it.
func (s *segment) setCut(cut bool, from, to netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[[2]netip.Addr{from, to}] = cut
}

func (s *segment) isCut(from, to netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cut[[2]netip.Addr{from, to}]
}

// cable is one director's connection to the segment. Packets over it are lost
// and connections fail where it is cut.
type cable struct {
	memberlist.NodeAwareTransport
	segment *segment
	addr    netip.Addr
}

func (c cable) cut(to memberlist.Address) bool {
	addr, err := netip.ParseAddrPort(to.Addr)
	return err == nil && c.segment.isCut(c.addr, addr.Addr())
}

func (c cable) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if c.cut(to) {
		return time.Now(), nil
	}
	return c.NodeAwareTransport.WriteToAddress(b, to)
}

func (c cable) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if c.cut(to) {
		return nil, errors.New("cut")
	}
	return c.NodeAwareTransport.DialAddressTimeout(to, timeout)
}

// director is one that gossips.
type director struct {
	*Gossip
	t       *testing.T
	node    string
	addr    netip.Addr
	changed chan struct{}
	end     context.CancelFunc
	ended   chan struct{}

	mu sync.Mutex
	// faultCount counts Faults.
	faultCount int
}

// addrOf is director i's address, of a network of this process alone.
func addrOf(i int) netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(pid>>8)%250 + 1, byte(pid), byte(i)})
}

func nodeOf(i int) string { return fmt.Sprintf("lb-%d", i) }

// start starts director i of n, which knows the addresses of all.
func (s *segment) start(i, n int, change func(*Config)) *director {
	s.t.Helper()
	d := &director{t: s.t, node: nodeOf(i), addr: addrOf(i), changed: make(chan struct{}, 1), ended: make(chan struct{})}
	cfg := Config{
		Node: d.node, Instance: d.node + "-1", Pool: "default", Bind: d.addr, Port: s.port, Keys: keyList("a"),
		Changed: func() { wake(d.changed) },
		Count: func(e Event) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if e == Fault {
				d.faultCount++
			}
		},
		Log:  slog.New(slog.DiscardHandler),
		wrap: func(t memberlist.NodeAwareTransport) memberlist.NodeAwareTransport { return cable{t, s, d.addr} },
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if d.Gossip, err = New(cfg); err != nil {
		s.t.Fatal(err)
	}
	var peers []Peer
	for j := range n {
		if j+1 != i {
			peers = append(peers, Peer{nodeOf(j + 1), addrOf(j + 1)})
		}
	}
	d.SetPeers(peers)
	d.Tell(State{APIReachable: true})
	var ctx context.Context
	ctx, d.end = context.WithCancel(context.WithoutCancel(s.t.Context()))
	go func() {
		defer close(d.ended)
		if err := d.Run(ctx); err != nil {
			s.t.Errorf("%s: %v", d.node, err)
		}
	}()
	s.t.Cleanup(d.stop)
	return d
}

func (d *director) stop() {
	d.end()
	<-d.ended
}

func (d *director) faults() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.faultCount
}

// await waits until the director's view is as it should be.
func (d *director) await(what string, is func(View) bool) View {
	d.t.Helper()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for look := 0; ; {
		v := d.View()
		if is(v) {
			return v
		}
		select {
		case <-d.changed:
		case <-ticker.C:
			look++
		}
		if look == looks {
			d.t.Fatalf("%s waited in vain until %s: %+v", d.node, what, v.Members)
		}
	}
}

// sees says that a member is alive and heard, and claims this epoch of group 0; 0
// is no claim.
func sees(node string, epoch int64) func(View) bool {
	return func(v View) bool {
		m, _ := v.Member(node)
		claimed := int64(0)
		if len(m.State.Claims) > 0 {
			claimed = m.State.Claims[0].Epoch
		}
		return m.Alive && !m.HeardAt.IsZero() && !m.Relayed && claimed == epoch
	}
}

func isDead(node string) func(View) bool {
	return func(v View) bool { m, _ := v.Member(node); return m.Dead }
}

func claiming(epoch int64) State {
	return State{Claims: []Claim{{Group: 0, Epoch: epoch, Confirmed: true}}}
}

func TestAllHearWhatOneClaims(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newSegment(t)
			var all []*director
			for i := range n {
				all = append(all, s.start(i+1, n, nil))
			}
			all[0].Tell(claiming(7))
			for _, d := range all[1:] {
				d.await("lb-1 claims", sees("lb-1", 7))
				d.await("all are there", func(v View) bool { return v.Living() == n-1 && len(v.Members) == n-1 })
			}
			all[0].await("all are there", func(v View) bool { return v.Living() == n-1 })
			all[0].Tell(State{})
			for _, d := range all[1:] {
				d.await("lb-1 claims no more", sees("lb-1", 0))
			}
		})
	}
}

// TestADeathIsSeen cuts the active director off. The bounds are wide: it is not
// taken for dead at the first packet that is lost, and it is long before a Lease
// would tell.
func TestADeathIsSeen(t *testing.T) {
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newSegment(t)
			active, standby := s.start(1, n, nil), s.start(2, n, nil)
			for i := 3; i <= n; i++ {
				s.start(i, n, nil).await("lb-1 is there", sees("lb-1", 0))
			}
			active.Tell(claiming(3))
			standby.await("lb-1 claims", sees("lb-1", 3))
			cutAt := time.Now()
			for i := 1; i <= n; i++ {
				s.setCut(true, active.addr, addrOf(i))
				s.setCut(true, addrOf(i), active.addr)
			}
			v := standby.await("lb-1 is dead", isDead("lb-1"))
			m, _ := v.Member("lb-1")
			if m.Alive || m.Left || len(m.State.Claims) != 1 || m.State.Claims[0].Epoch != 3 || m.Relayed {
				t.Errorf("the dead member is %+v, want what it last said", m)
			}
			if m.HeardAt.After(cutAt.Add(time.Second)) || v.Silence(m, v.Now) <= 0 {
				t.Errorf("it was heard at %s, and is silent for %s", m.HeardAt, v.Silence(m, v.Now))
			}
			if took := m.DeadAt.Sub(m.HeardAt); took < 200*time.Millisecond || took > 1500*time.Millisecond && v.Woke.Before(cutAt) {
				t.Errorf("its death was seen %s after it was heard", took)
			}
			active.await("lb-2 is dead", isDead("lb-2"))

			for i := 1; i <= n; i++ {
				s.setCut(false, active.addr, addrOf(i))
				s.setCut(false, addrOf(i), active.addr)
			}
			standby.await("lb-1 is back", sees("lb-1", 3))
			active.await("lb-2 is back", sees("lb-2", 0))
		})
	}
}

// TestWhoIsHeardIsNotDead cuts one direction only: probes stay without an answer,
// and yet the other is there.
func TestWhoIsHeardIsNotDead(t *testing.T) {
	s := newSegment(t)
	active, standby := s.start(1, 2, nil), s.start(2, 2, nil)
	active.Tell(claiming(3))
	standby.await("lb-1 claims", sees("lb-1", 3))
	active.await("lb-2 is there", sees("lb-2", 0))
	s.setCut(true, standby.addr, active.addr)
	active.await("lb-2 is dead", isDead("lb-2"))
	v := standby.View()
	if m, _ := v.Member("lb-1"); m.Dead && v.Woke.IsZero() {
		t.Errorf("it is taken for dead: %+v", m)
	}
	s.setCut(false, standby.addr, active.addr)
	active.await("lb-2 is back", sees("lb-2", 0))
}

func TestWhoJoinsKnowsAtOnceWhatOthersKnow(t *testing.T) {
	s := newSegment(t)
	active, other := s.start(1, 3, nil), s.start(2, 3, nil)
	active.Tell(claiming(3))
	other.await("lb-1 claims", sees("lb-1", 3))
	// The third hears nothing of the first itself.
	s.setCut(true, active.addr, addrOf(3))
	third := s.start(3, 3, nil)
	v := third.await("lb-1 is known", func(v View) bool {
		m, _ := v.Member("lb-1")
		return len(m.State.Claims) == 1
	})
	if m, _ := v.Member("lb-1"); !m.Relayed || !m.HeardAt.IsZero() {
		t.Errorf("%+v, want that it was not heard", m)
	}
}

func TestWhoLeavesIsNotDead(t *testing.T) {
	s := newSegment(t)
	active, standby := s.start(1, 2, nil), s.start(2, 2, nil)
	active.Tell(claiming(3))
	standby.await("lb-1 claims", sees("lb-1", 3))
	active.stop()
	v := standby.await("lb-1 has left", func(v View) bool { m, _ := v.Member("lb-1"); return m.Left })
	if m, _ := v.Member("lb-1"); m.Dead || m.Alive || len(m.State.Claims) != 0 {
		t.Errorf("%+v, want neither a death nor claims", m)
	}
	// The next process on its node, at another address.
	again := s.start(1, 2, func(c *Config) { c.Instance, c.Bind = "lb-1-2", addrOf(9) })
	again.Tell(claiming(4))
	v = standby.await("lb-1 is back", sees("lb-1", 4))
	if m, _ := v.Member("lb-1"); m.State.Instance != "lb-1-2" || m.Addr != addrOf(9) || m.Left {
		t.Errorf("%+v, want the next process", m)
	}
}

func TestStrangersAreNotListenedTo(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"another key":  func(c *Config) { c.Keys = keyList("b") },
		"another pool": func(c *Config) { c.Pool = "edge" },
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			s := newSegment(t)
			one := s.start(1, 3, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			two := s.start(2, 3, nil)
			one.await("lb-2 is there", sees("lb-2", 0))
			stranger := s.start(3, 3, change)
			stranger.Tell(claiming(9))
			// It knocks again and again; so does garbage.
			conn, err := net.Dial("udp", netip.AddrPortFrom(one.addr, s.port).String())
			if err != nil {
				t.Fatal(err)
			}
			before := one.faults()
			for look := 0; one.faults() < before+20 && look < looks; look++ {
				for _, garbage := range []string{"x", "\xf4\x07default", "\xf4\xff", strings.Repeat("garbage", 100)} {
					if _, err := conn.Write([]byte(garbage)); err != nil {
						t.Fatal(err)
					}
				}
				stranger.SetPeers(nil)
				stranger.SetPeers([]Peer{{one.node, one.addr}, {two.node, two.addr}})
				time.Sleep(lookEvery)
			}
			if one.faults() < before+20 {
				t.Errorf("%d faults were counted, want more", one.faults()-before)
			}
			if v := one.View(); len(v.Members) != 1 || !sees("lb-2", 0)(v) {
				t.Errorf("members: %+v", v.Members)
			}
			if v := stranger.View(); len(v.Members) != 0 {
				t.Errorf("the stranger knows %+v", v.Members)
			}
			one.stop()
			if lines := strings.Count(log.String(), "level=WARN"); lines < 1 || lines > 3 {
				t.Errorf("%d warnings for all of that, want one in a while:\n%s", lines, log.String())
			}
		})
	}
}

func TestKeysAreExchangedWithoutAnybodyDying(t *testing.T) {
	s := newSegment(t)
	grace := func(c *Config) { c.keyGrace = time.Second }
	one, two := s.start(1, 2, grace), s.start(2, 2, grace)
	one.Tell(claiming(1))
	two.await("lb-1 claims", sees("lb-1", 1))
	one.await("lb-2 is there", sees("lb-2", 0))
	if err := one.SetKeys(keyList("b")); err != nil {
		t.Fatal(err)
	}
	one.Tell(claiming(2))
	two.await("lb-1 claims in the old key", sees("lb-1", 2))
	if err := two.SetKeys(keyList("b")); err != nil {
		t.Fatal(err)
	}
	// A third has the new key only: who hears it speaks it.
	third := s.start(3, 3, func(c *Config) { c.Keys = keyList("b") })
	third.await("lb-1 claims in the new key", sees("lb-1", 2))
	third.await("lb-2 is there", sees("lb-2", 0))
	one.Tell(claiming(3))
	two.await("lb-1 claims", sees("lb-1", 3))
	for _, d := range []*director{one, two} {
		for _, m := range d.View().Members {
			if m.Dead {
				t.Errorf("%s takes %s for dead", d.node, m.Node)
			}
		}
	}
	if err := one.SetKeys([][]byte{[]byte("short")}); err == nil {
		t.Error("a key that is too short was taken")
	}
}

func TestAnAddressThatIsInUseIsAnError(t *testing.T) {
	s := newSegment(t)
	one := s.start(1, 1, nil)
	one.await("it runs", func(View) bool { one.Gossip.mu.Lock(); defer one.Gossip.mu.Unlock(); return !one.beatAt.IsZero() })
	for name, bind := range map[string]netip.Addr{"in use": addrOf(1), "not there": netip.MustParseAddr("192.0.2.99")} {
		g, err := New(Config{Node: "lb-2", Instance: "x", Pool: "default", Bind: bind, Port: s.port, Keys: keyList("a"), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), bind.String()) {
			t.Errorf("%s: Run() = %v, want an error with the address", name, err)
		}
	}
	if _, err := New(Config{Node: "lb-2"}); !errors.Is(err, errNoKeys) {
		t.Errorf("New() = %v, want errNoKeys", err)
	}
	for _, interval := range []time.Duration{-time.Second, time.Millisecond, time.Minute} {
		if _, err := New(Config{Node: "lb-2", Keys: keyList("a"), ProbeInterval: interval}); err == nil {
			t.Errorf("New() takes a probe every %s", interval)
		}
	}
}

// TestSuspicionIsNeverShort is about what memberlist makes of the settings: with
// up to ten members a suspicion lasts SuspicionMult intervals.
func TestSuspicionIsNeverShort(t *testing.T) {
	for _, interval := range []time.Duration{leastInterval, 100 * time.Millisecond, 110 * time.Millisecond, mostInterval} {
		c := settings(Config{Node: "lb-1", Bind: addrOf(1), ProbeInterval: interval})
		lasts := time.Duration(c.SuspicionMult) * interval
		if lasts < leastSuspicion || c.SuspicionMult < 2 || lasts > leastSuspicion+2*interval {
			t.Errorf("with a probe every %s it lasts %s", interval, lasts)
		}
		if c.ProbeTimeout >= c.ProbeInterval || !c.DisableTcpPings || !c.GossipVerifyIncoming || !c.GossipVerifyOutgoing {
			t.Errorf("with a probe every %s: %+v", interval, c)
		}
	}
}

// TestTwoWithOneNameDoNotTakeTurns has a second director with the name of one
// that is there.
func TestTwoWithOneNameDoNotTakeTurns(t *testing.T) {
	s := newSegment(t)
	one, two := s.start(1, 3, nil), s.start(2, 3, nil)
	one.await("lb-2 is there", sees("lb-2", 0))
	two.await("lb-1 is there", sees("lb-1", 0))
	before := one.faults()
	impostor := s.start(2, 3, func(c *Config) { c.Bind = addrOf(3) })
	impostor.SetPeers([]Peer{{one.node, one.addr}})
	one.await("the conflict is noticed", func(View) bool { return one.faults() > before })
	if m, _ := one.View().Member("lb-2"); m.Addr != two.addr {
		t.Errorf("lb-2 is at %s, want it where it was first", m.Addr)
	}
}

// TestAProcessThatStoodStillListensFirst stops the clock that it sees, and thereby
// its beats.
func TestAProcessThatStoodStillListensFirst(t *testing.T) {
	g, err := New(Config{Node: "lb-1", Instance: "x", Keys: keyList("a"), Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	now := noon
	g.cfg.Now = func() time.Time { return now }
	g.beatAt = now
	g.note("lb-2", func(b *book, _ time.Time) { b.joined("lb-2", atPeer) })
	buf, err := encode(said(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	g.read(buf, true)
	now = now.Add(beatActive + stall)
	if v := g.View(); !v.Woke.IsZero() {
		t.Errorf("it woke at %s after %s", v.Woke, beatActive+stall)
	}
	now = noon.Add(time.Minute)
	g.note("lb-2", func(b *book, now time.Time) { b.gone("lb-2", now) })
	v := g.View()
	m, _ := v.Member("lb-2")
	if !v.Woke.Equal(now) || m.Dead || v.Silence(m, now) != 0 {
		t.Errorf("it woke at %s and finds %+v, silent for %s", v.Woke, m, v.Silence(m, now))
	}
}
