package gossip

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// leastSuspicion is how long at least a member that did not answer a probe has
	// to refute that it is dead.
	leastSuspicion = 300 * time.Millisecond
	// streamTimeout bounds a contact over TCP.
	streamTimeout = time.Second
	// packetSize is what a packet may hold: an Ethernet frame, and room for tunnels.
	packetSize = 1400
)

// open binds the address and begins to probe.
func (g *Gossip) open() (*memberlist.Memberlist, *memberlist.Keyring, error) {
	g.mu.Lock()
	keys := g.ring.at(g.cfg.Now(), g.cfg.keyGrace)
	g.mu.Unlock()
	keyring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, nil, fmt.Errorf("preparing the keys: %w", err)
	}
	logger := log.New(g.complaints(), "", 0)
	network, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{g.cfg.Bind.String()}, BindPort: int(g.cfg.Port), Logger: logger,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("binding: %w", err)
	}
	var transport memberlist.NodeAwareTransport = bound{network, g.cfg.Bind}
	if g.cfg.wrap != nil {
		transport = g.cfg.wrap(transport)
	}
	config := settings(g.cfg)
	config.Keyring, config.Logger, config.Transport = keyring, logger, transport
	listener := delegate{g}
	config.Delegate, config.Events, config.Conflict = listener, listener, listener
	list, err := memberlist.Create(config)
	if err != nil {
		_ = network.Shutdown()
		return nil, nil, fmt.Errorf("starting: %w", err)
	}
	return list, keyring, nil
}

// settings tunes memberlist. A member that died is probed within one interval,
// suspected at the end of that one, and dead after the suspicion.
func settings(cfg Config) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = cfg.Node, cfg.Pool
	c.BindAddr, c.BindPort = cfg.Bind.String(), int(cfg.Port)
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.ProbeInterval, c.ProbeTimeout = cfg.ProbeInterval, cfg.ProbeInterval*8/10
	c.SuspicionMult = max(2, int((leastSuspicion+c.ProbeInterval-1)/c.ProbeInterval))
	// With more than two members those that nobody else suspects have twice as long.
	c.SuspicionMaxTimeoutMult = 2
	// Who stands still itself is known better: see View.Woke.
	c.AwarenessMaxMultiplier = 1
	c.GossipInterval, c.GossipNodes = c.ProbeInterval/2, 3
	c.GossipToTheDeadTime = 30 * time.Second
	// A node that died may come back with another address.
	c.DeadNodeReclaimTime = time.Second
	// A segment that carries TCP alone is no way for what a director says.
	c.DisableTcpPings = true
	c.TCPTimeout, c.PushPullInterval = streamTimeout, 10*time.Second
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	c.EnableCompression = false
	c.UDPBufferSize = packetSize
	return c
}

// bound is the network, with connections that come from the address too that the
// others know.
type bound struct {
	*memberlist.NetTransport
	addr netip.Addr
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (b bound) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, done := context.WithTimeout(context.Background(), timeout)
	defer done()
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(b.addr, 0))}
	return dialer.DialContext(ctx, "tcp", a.Addr)
}

// DialTimeout implements memberlist.Transport.
func (b bound) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return b.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// delegate hears from memberlist. It is called with memberlist's locks held, so it
// never calls back.
type delegate struct{ g *Gossip }

// NodeMeta implements memberlist.Delegate.
func (delegate) NodeMeta(int) []byte { return nil }

// GetBroadcasts implements memberlist.Delegate. Nothing of ours is passed on from
// one to the next: a message comes from its author.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// NotifyMsg implements memberlist.Delegate.
func (d delegate) NotifyMsg(buf []byte) {
	d.g.cfg.Count(Received)
	d.g.read(buf, true)
}

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(bool) []byte {
	g := d.g
	g.mu.Lock()
	defer g.mu.Unlock()
	messages := g.book.relays()
	if g.state != nil && !g.beatAt.IsZero() {
		if own := g.message(false); own != nil {
			messages = append(messages, own)
		}
	}
	return bundle(messages)
}

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(buf []byte, _ bool) {
	for _, message := range unbundle(buf) {
		d.g.read(message, false)
	}
}

// read takes note of a message, of a kind that this director knows.
func (g *Gossip) read(buf []byte, own bool) {
	about, err := kindOf(buf)
	switch {
	case err != nil:
		g.refuse(err)
	case about == kindState:
		g.readState(buf, own)
	case about == kindVerdicts && own:
		g.readVerdicts(buf)
	}
}

func (g *Gossip) refuse(err error) {
	g.cfg.Count(Refused)
	g.warnings.warn("Gossip cannot be read", "error", err)
}

func (g *Gossip) readVerdicts(buf []byte) {
	m, err := decodeVerdicts(buf)
	if err != nil {
		g.refuse(err)
		return
	}
	g.mu.Lock()
	news := g.book.takeVerdicts(m, g.look())
	g.mu.Unlock()
	if news {
		g.cfg.Changed()
	}
}

func (g *Gossip) readState(buf []byte, own bool) {
	m, err := decode(buf)
	if err != nil {
		g.refuse(err)
		return
	}
	g.mu.Lock()
	told := g.book.take(m, buf, own, g.look())
	g.mu.Unlock()
	if told.doubted {
		wake(g.rejoin)
	}
	if told.news {
		g.cfg.Changed()
	}
}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(node *memberlist.Node) {
	addr, _ := netip.AddrFromSlice(node.Addr)
	addr = addr.Unmap()
	d.g.note(node.Name, func(b *book, _ time.Time) { b.joined(node.Name, netip.AddrPortFrom(addr, node.Port)) })
	if node.Name != d.g.cfg.Node {
		d.g.cfg.Log.Debug("A director is there", "node", node.Name, "address", addr)
		// It hears at once how this one is.
		d.g.mu.Lock()
		d.g.again = repeats + 1
		d.g.recital.again()
		d.g.mu.Unlock()
		wake(d.g.said)
	}
}

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(node *memberlist.Node) {
	d.g.note(node.Name, func(b *book, now time.Time) { b.gone(node.Name, now) })
	if node.Name != d.g.cfg.Node {
		d.g.cfg.Log.Debug("A director does not answer, or has left", "node", node.Name)
	}
}

// NotifyUpdate implements memberlist.EventDelegate.
func (delegate) NotifyUpdate(*memberlist.Node) {}

// NotifyConflict implements memberlist.ConflictDelegate. The one that was there
// first stays until it dies.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.cfg.Count(Fault)
	d.g.warnings.warn("Two directors have the name of one node", "node", existing.Name,
		"address", existing.Addr.String(), "other", other.Addr.String())
}

// note changes the book.
func (g *Gossip) note(node string, change func(*book, time.Time)) {
	if node == g.cfg.Node {
		return
	}
	g.mu.Lock()
	change(g.book, g.look())
	g.mu.Unlock()
	g.cfg.Changed()
}

// complaints is where memberlist logs: for whoever debugs. What it takes for an
// error is counted, and said once in a while.
func (g *Gossip) complaints() io.Writer {
	return lines(func(line string) {
		level, text, _ := strings.Cut(line, " ")
		text = strings.TrimPrefix(text, "memberlist: ")
		g.cfg.Log.Debug("The gossip library says", "level", level, "text", text)
		if level == "[ERR]" {
			g.cfg.Count(Fault)
			g.warnings.warn("Gossip is disturbed: somebody cannot be reached, is of another pool or has another key", "last", text)
		}
	})
}

// lines is a writer of lines.
type lines func(string)

// Write implements io.Writer. A logger calls it once a line.
func (l lines) Write(line []byte) (int, error) {
	l(strings.TrimSpace(string(line)))
	return len(line), nil
}

// rarely logs no more than once in a while: what it says comes from the network,
// where anybody can send anything.
type rarely struct {
	log   *slog.Logger
	every time.Duration

	mu    sync.Mutex
	last  time.Time
	count int
}

func (r *rarely) warn(text string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	if now := time.Now(); r.last.IsZero() || now.Sub(r.last) >= r.every {
		r.log.Warn(text, append(args, "times", r.count)...)
		r.last, r.count = now, 0
	}
}
