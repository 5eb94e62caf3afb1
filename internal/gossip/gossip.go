// Package gossip lets the directors of a pool tell each other how they are, faster
// than the API server could and without it, and says which of them have died.
//
// Who is there is memberlist's knowledge (SWIM: each member probes the others, and
// asks third ones to when it gets no answer). What a director says of itself
// goes straight to every other, at once when it changes and again and again: every
// 50 ms while it announces a group, so that its silence is noticed.
package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// DefaultPort is the port of gossip where the pool does not say; TCP and UDP.
	DefaultPort = 7956
	// DefaultProbeInterval is the time between two probes where it does not say.
	DefaultProbeInterval = 100 * time.Millisecond
	// leastInterval and mostInterval bound it.
	leastInterval = 50 * time.Millisecond
	mostInterval  = time.Second
	// beatActive and beatIdle are how often a director says how it is, while it
	// claims a group and else.
	beatActive = 50 * time.Millisecond
	beatIdle   = 500 * time.Millisecond
	// repeats is how often what is new is said again within the next beats.
	repeats = 2
	// stall is how much later than due a beat has to be for this process to have
	// stood still.
	stall = 150 * time.Millisecond
	// rejoinEvery is how often all directors are contacted: memberlist forgets
	// members for good. rejoinPause is the shortest time between two contacts.
	rejoinEvery = 5 * time.Second
	rejoinPause = 500 * time.Millisecond
	// leavePatience bounds how long others are told that this director leaves.
	leavePatience = 300 * time.Millisecond
	// keyGrace is how long directors have to hear of new keys.
	keyGrace = 30 * time.Second
)

// Event is what is counted.
type Event string

// The events: a message sent to one member, one received, one received that cannot
// be read, and something that went wrong, such as a packet in another key.
const (
	Sent     Event = "Sent"
	Received Event = "Received"
	Refused  Event = "Refused"
	Fault    Event = "Fault"
)

// Config is what a Gossip is made of.
type Config struct {
	// Node is the name of this director's node, Instance tells its process from the
	// next, Pool is its DirectorPool: others' packets are dropped.
	Node, Instance, Pool string
	// Bind is the node's own address on the announcement interface, global and
	// without a zone. Port is the port there, TCP and UDP, and that of all others.
	Bind netip.Addr
	Port uint16
	// ProbeInterval is the time between two probes, 0 for DefaultProbeInterval. A
	// dead member is known to be after about four of them, and not before 0.3 s.
	ProbeInterval time.Duration
	// Keys for AES-256, of 32 bytes each: the first is spoken, all are understood.
	Keys [][]byte
	// Changed is called after what View returns has changed by more than times. It
	// must not block; nil calls nothing.
	Changed func()
	// Count counts events; nil does not.
	Count func(Event)
	Log   *slog.Logger
	// Now is the clock of all times in a View; nil is time.Now.
	Now func() time.Time

	// keyGrace is keyGrace, 0 for the constant. wrap is put around the network.
	keyGrace time.Duration
	wrap     func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport
}

// Peer is another director of the pool.
type Peer struct {
	Node string
	// Addr is its node's own address on its announcement interface, of the family
	// of Config.Bind.
	Addr netip.Addr
}

// Gossip is one director's part in the gossip of its pool. All methods may be
// called at any time.
type Gossip struct {
	cfg     Config
	started int64
	// said wakes who sends, rejoin who contacts the others.
	said, rejoin chan struct{}
	warnings     rarely

	mu    sync.Mutex
	book  *book
	ring  ring
	peers []Peer
	state *State
	// recital is what it says of its services.
	recital recital
	// number is that of the last message, again how often the last news are still to
	// be repeated, sentAt when the last message was sent.
	number uint64
	again  int
	sentAt time.Time
	// beatAt is when this process was last seen to run, zero while it does not.
	beatAt, woke time.Time
	// shown is who was last said to be alive and dead.
	shown string
}

// New returns a Gossip that has yet to Run. It refuses what no pool may ask for, and
// keys that are none.
func New(cfg Config) (*Gossip, error) {
	if err := checkKeys(cfg.Keys); err != nil {
		return nil, fmt.Errorf("preparing gossip: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Count == nil {
		cfg.Count = func(Event) {}
	}
	if cfg.ProbeInterval == 0 {
		cfg.ProbeInterval = DefaultProbeInterval
	}
	if cfg.ProbeInterval < leastInterval || cfg.ProbeInterval > mostInterval {
		return nil, fmt.Errorf("preparing gossip: a probe every %s is not within %s and %s", cfg.ProbeInterval, leastInterval, mostInterval)
	}
	if cfg.keyGrace == 0 {
		cfg.keyGrace = keyGrace
	}
	return &Gossip{
		cfg: cfg, started: time.Now().UnixNano(),
		said: make(chan struct{}, 1), rejoin: make(chan struct{}, 1),
		warnings: rarely{log: cfg.Log, every: time.Minute},
		book:     newBook(cfg.Node), ring: newRing(cfg.Keys),
	}, nil
}

// Tell sets what this director says of itself, as Node and Instance of the
// Config. Whoever is there hears of a change at once. It does not block.
func (g *Gossip) Tell(state State) {
	state.Node, state.Instance = g.cfg.Node, g.cfg.Instance
	g.mu.Lock()
	same := g.state != nil && g.state.equal(state)
	if !same {
		g.state, g.again = &state, repeats+1
	}
	g.mu.Unlock()
	if !same {
		wake(g.said)
	}
}

// SetPeers says which other directors the pool has. They are contacted at once if
// they are others than before, and again every 5 s. Members that are gone and not
// among them are forgotten.
func (g *Gossip) SetPeers(peers []Peer) {
	nodes := map[string]bool{}
	for _, peer := range peers {
		nodes[peer.Node] = true
	}
	g.mu.Lock()
	same := fmt.Sprint(g.peers) == fmt.Sprint(peers)
	g.peers = peers
	forgot := g.book.retain(nodes)
	g.mu.Unlock()
	if !same {
		wake(g.rejoin)
	}
	if forgot {
		g.cfg.Changed()
	}
}

// SetKeys exchanges the keys. All are understood at once; the first is spoken after
// 30 s, and those that are not among them are dropped after 60 s, so that no
// director that hears of them within 30 s loses a message.
func (g *Gossip) SetKeys(list [][]byte) error {
	if err := checkKeys(list); err != nil {
		return fmt.Errorf("exchanging the keys of gossip: %w", err)
	}
	g.mu.Lock()
	g.ring.set(list, g.cfg.Now(), g.cfg.keyGrace)
	g.mu.Unlock()
	wake(g.said)
	return nil
}

// View returns what is known of the other members now.
func (g *Gossip) View() View {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.look()
	return View{Now: now, Members: g.book.members(now, g.woke), Woke: g.woke}
}

// Run takes part in the gossip until ctx ends, and then takes leave, for at most
// 0.3 s and what a try to contact somebody takes, 1 s. An error says that it
// could not begin, because the address is not there or in use, say; then it may be
// called again.
func (g *Gossip) Run(ctx context.Context) error {
	list, keyring, err := g.open()
	if err != nil {
		return fmt.Errorf("gossiping on %s: %w", netip.AddrPortFrom(g.cfg.Bind, g.cfg.Port), err)
	}
	var running sync.WaitGroup
	running.Go(func() { g.contact(ctx, list) })
	g.beats(ctx, list, keyring)
	g.leave(list)
	running.Wait()
	return nil
}

// beats sends and looks at the clock until ctx ends.
func (g *Gossip) beats(ctx context.Context, list *memberlist.Memberlist, keyring *memberlist.Keyring) {
	ticker := time.NewTicker(beatActive)
	defer ticker.Stop()
	for {
		g.beat(list, keyring)
		select {
		case <-ctx.Done():
			return
		case <-g.said:
		case <-ticker.C:
		}
	}
}

// beat is one look at what is to be done.
func (g *Gossip) beat(list *memberlist.Memberlist, keyring *memberlist.Keyring) {
	g.mu.Lock()
	now := g.look()
	g.beatAt = now
	keys := g.ring.at(now, g.cfg.keyGrace)
	var messages [][]byte
	if message := g.due(now); message != nil {
		messages = append(messages, message)
	}
	messages = append(messages, g.dueVerdicts(now)...)
	targets := g.book.targets()
	shown := fmt.Sprint(g.woke)
	for _, m := range g.book.members(now, g.woke) {
		shown += fmt.Sprint(m.Node, m.Alive, m.Dead, m.Left)
	}
	changed := shown != g.shown
	g.shown = shown
	g.mu.Unlock()
	if !same(keyring, keys) {
		if err := install(keyring, keys); err != nil {
			g.warnings.warn("Exchanging the keys of gossip", "error", err)
		}
	}
	for _, message := range messages {
		g.send(list, targets, message)
	}
	if changed {
		g.cfg.Changed()
	}
}

// look returns the time, and notes if this process has stood still. g.mu is held.
func (g *Gossip) look() time.Time {
	now := g.cfg.Now()
	if !g.beatAt.IsZero() && now.Sub(g.beatAt) > beatActive+stall {
		g.woke = now
	}
	return now
}

// due returns the message that is to be sent now, nil if none is. g.mu is held.
func (g *Gossip) due(now time.Time) []byte {
	if g.state == nil {
		return nil
	}
	// A beat may be a little early by this clock.
	if g.again == 0 && now.Sub(g.sentAt) < g.every()-beatActive/2 {
		return nil
	}
	g.again = max(g.again-1, 0)
	g.sentAt = now
	return g.message(false)
}

func (g *Gossip) every() time.Duration {
	if len(g.state.Claims) > 0 {
		return beatActive
	}
	return beatIdle
}

// message returns the next message. g.mu is held.
func (g *Gossip) message(leaving bool) []byte {
	g.number++
	buf, err := encode(message{State: *g.state, Started: g.started, Number: g.number, Every: g.every(), Leaving: leaving})
	if err != nil {
		g.warnings.warn("This director says what no director says", "error", err)
		return nil
	}
	return buf
}

func (g *Gossip) send(list *memberlist.Memberlist, targets map[string]netip.AddrPort, message []byte) {
	for node, addr := range targets {
		if err := list.SendToAddress(memberlist.Address{Addr: addr.String(), Name: node}, message); err != nil {
			g.cfg.Count(Fault)
			g.cfg.Log.Debug("Sending gossip", "to", node, "address", addr, "error", err)
			continue
		}
		g.cfg.Count(Sent)
	}
}

// leave tells all others that this director goes, and closes the network.
func (g *Gossip) leave(list *memberlist.Memberlist) {
	g.mu.Lock()
	var last []byte
	if g.state != nil {
		last = g.message(true)
	}
	targets := g.book.targets()
	g.beatAt = time.Time{}
	g.mu.Unlock()
	if last != nil {
		g.send(list, targets, last)
	}
	if err := list.Leave(leavePatience); err != nil {
		g.cfg.Log.Debug("Leaving the gossip", "error", err)
	}
	if last != nil {
		g.send(list, targets, last)
	}
	if err := list.Shutdown(); err != nil {
		g.cfg.Log.Debug("Closing the gossip", "error", err)
	}
}

// contact contacts all other directors, again and again, until ctx ends.
func (g *Gossip) contact(ctx context.Context, list *memberlist.Memberlist) {
	for {
		g.join(list)
		if !pause(ctx, rejoinPause, nil) || !pause(ctx, rejoinEvery-rejoinPause, g.rejoin) {
			return
		}
	}
}

// join contacts every other director once.
func (g *Gossip) join(list *memberlist.Memberlist) {
	g.mu.Lock()
	peers := g.peers
	g.mu.Unlock()
	var joining sync.WaitGroup
	for _, peer := range peers {
		if !peer.Addr.IsValid() || peer.Addr == g.cfg.Bind || peer.Addr.Is4() != g.cfg.Bind.Is4() {
			continue
		}
		joining.Go(func() {
			addr := netip.AddrPortFrom(peer.Addr, g.cfg.Port)
			if _, err := list.Join([]string{peer.Node + "/" + addr.String()}); err != nil {
				g.cfg.Log.Debug("Contacting a director", "node", peer.Node, "address", addr, "error", err)
			}
		})
	}
	joining.Wait()
}

// pause waits, or until it is woken. False says that ctx ended.
func pause(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-woken:
	}
	return true
}

func wake(channel chan<- struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
