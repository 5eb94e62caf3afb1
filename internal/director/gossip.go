package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// gossipRetry is how soon gossip that could not begin is tried again: an address
// that is only just being given to the interface is used within it.
const gossipRetry = time.Second

// Gossiper is a director's part in the gossip of its pool. Run ends with ctx, or
// with an error if it could not begin; all else may be called at any time and does
// not block.
type Gossiper interface {
	Run(context.Context) error
	Tell(gossip.State)
	TellVerdicts([]gossip.Verdicts)
	Verdicts(node string) map[gossip.Service]gossip.Heard
	SetPeers([]gossip.Peer)
	SetKeys([][]byte) error
	View() gossip.View
}

// Gossip is how a pool's directors hear of each other.
type Gossip struct {
	// Port is the port of gossip, 0 for gossip.DefaultPort.
	Port uint16
	// ProbeInterval is the time between two probes, 0 for
	// gossip.DefaultProbeInterval.
	ProbeInterval time.Duration
}

// place is where a session's gossip runs. Another place is another Gossiper.
type place struct {
	bind  netip.Addr
	port  uint16
	probe time.Duration
}

// gossiping keeps a session's gossip running where it is to. Its lock is taken
// after those of the session and the director.
type gossiping struct {
	d    *Director
	pool string
	base gossip.Config
	// moved says that it is to run at another place, or that there are keys.
	moved chan struct{}

	mu    sync.Mutex
	place place
	keys  [][]byte
	state gossip.State
	// told are the verdicts that others are told.
	told []gossip.Verdicts
	// stands is how the director was last found to stand in the election.
	stands election.Standing
	// peers are known if not nil.
	peers []gossip.Peer
	// dead are the nodes of those that were dead when it was last looked.
	dead string
	// running is what runs, nil if nothing does.
	running Gossiper
}

// newGossiping makes the gossip of a session; wake is called after news.
func newGossiping(d *Director, pool string, now func() time.Time, wake func()) *gossiping {
	return &gossiping{
		d: d, pool: pool, moved: make(chan struct{}, 1),
		base: gossip.Config{
			Node: d.cfg.Node, Instance: d.cfg.Instance, Pool: pool, Changed: wake, Count: d.cfg.Metrics.gossiped, Log: d.cfg.Log, Now: now,
		},
	}
}

// run keeps gossip running until ctx ends.
func (g *gossiping) run(ctx context.Context) {
	if g.d.cfg.Gossip == nil {
		return
	}
	for ctx.Err() == nil {
		inner, end := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() { g.stay(inner) })
		select {
		case <-ctx.Done():
		case <-g.moved:
		}
		end()
		running.Wait()
	}
}

// stay runs gossip at the present place until ctx ends. What keeps it from
// running is said once.
func (g *gossiping) stay(ctx context.Context) {
	last := ""
	for {
		err := g.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != last {
			g.d.cfg.Log.Error("Directors do not hear of each other by gossip; trying again", "error", err)
			last = text
		}
		if !wait(ctx, gossipRetry) {
			return
		}
	}
}

// once runs gossip at the present place. Without an address or keys it waits.
func (g *gossiping) once(ctx context.Context) error {
	g.mu.Lock()
	cfg := g.base
	cfg.Bind, cfg.Port, cfg.ProbeInterval, cfg.Keys = g.place.bind, g.place.port, g.place.probe, g.keys
	g.mu.Unlock()
	if !cfg.Bind.IsValid() || len(cfg.Keys) == 0 {
		<-ctx.Done()
		return nil
	}
	runs, err := g.d.cfg.Gossip(cfg)
	if err != nil {
		return err
	}
	g.setRunning(runs)
	defer g.setRunning(nil)
	return runs.Run(ctx)
}

// setRunning notes what runs, and tells it how things are.
func (g *gossiping) setRunning(runs Gossiper) {
	g.mu.Lock()
	g.running = runs
	state, told, peers, keys := g.state, g.told, g.peers, g.keys
	g.mu.Unlock()
	if runs == nil {
		return
	}
	runs.Tell(state)
	runs.TellVerdicts(told)
	if peers != nil {
		runs.SetPeers(peers)
	}
	g.setKeys(runs, keys)
}

func (g *gossiping) setKeys(runs Gossiper, keys [][]byte) {
	if err := runs.SetKeys(keys); err != nil {
		g.d.cfg.Log.Error("Exchanging the keys of gossip", "error", err)
	}
}

// at says where gossip is to run, with which keys, and among whom; peers that are
// nil are not known.
func (g *gossiping) at(where place, keys [][]byte, peers []gossip.Peer) {
	g.mu.Lock()
	moved := g.place != where || len(g.keys) == 0 && len(keys) > 0
	newKeys := !keylist.Equal(g.keys, keys)
	g.place, g.keys, g.peers = where, keys, peers
	running := g.running
	g.mu.Unlock()
	if moved {
		select {
		case g.moved <- struct{}{}:
		default:
		}
		return
	}
	if running == nil {
		return
	}
	if peers != nil {
		running.SetPeers(peers)
	}
	if newKeys {
		g.setKeys(running, keys)
	}
}

// stand notes how the director stands in the election.
func (g *gossiping) stand(standing election.Standing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stands = standing
}

// tell says what this director says of itself, besides how it stands.
func (g *gossiping) tell(state gossip.State) {
	g.mu.Lock()
	state.Candidate, state.Impaired = g.stands.Candidate, g.stands.Impaired
	state.Cordoned, state.Cold, state.Priority = g.stands.Cordoned, g.stands.Cold, g.stands.Priority
	g.state = state
	running := g.running
	g.mu.Unlock()
	if running != nil {
		running.Tell(state)
	}
}

// tellVerdicts says which verdicts others are told.
func (g *gossiping) tellVerdicts(told []gossip.Verdicts) {
	g.mu.Lock()
	g.told = told
	running := g.running
	g.mu.Unlock()
	if running != nil {
		running.TellVerdicts(told)
	}
}

// verdicts returns what a peer says of its servers.
func (g *gossiping) verdicts(node string) map[gossip.Service]gossip.Heard {
	g.mu.Lock()
	running := g.running
	g.mu.Unlock()
	if running == nil {
		return nil
	}
	return running.Verdicts(node)
}

// view returns what is known of the others. It is empty while gossip does not run.
func (g *gossiping) view() gossip.View {
	g.mu.Lock()
	running := g.running
	g.mu.Unlock()
	if running == nil {
		return gossip.View{}
	}
	return running.View()
}

// gossipOn has gossip run as things are now, on the node's own address on the
// announcement interface, IPv4 if it has one; and tells how the director stands.
func (s *session) gossipOn(standing election.Standing) {
	s.mu.Lock()
	link, settings := s.node.link, s.pool.Gossip
	s.mu.Unlock()
	where := place{port: settings.Port, probe: settings.ProbeInterval}
	if where.port == 0 {
		where.port = gossip.DefaultPort
	}
	where.bind = s.d.sourceOf(link, netip.Addr.Is4)
	if !where.bind.IsValid() {
		where.bind = s.d.sourceOf(link, netip.Addr.Is6)
	}
	keys, peers := s.d.gossipers(where.bind)
	s.gossip.at(where, keys, peers)
	s.gossip.stand(standing)
	s.tell()
	view := s.gossip.view()
	s.d.cfg.Metrics.living(view.Living())
	if s.gossip.mourn(view) {
		s.d.cfg.Changed(netstate.Key{})
	}
}

// mourn says whether others are dead than when it was last asked.
func (g *gossiping) mourn(view gossip.View) bool {
	dead := ""
	for _, m := range view.Members {
		if m.Dead {
			dead += m.Node + " "
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	changed := g.dead != dead
	g.dead = dead
	return changed
}

// Died returns when gossip saw the director of a node die; zero if it has not, or if
// that one is there again.
func (d *Director) Died(node string) time.Time {
	s := d.present()
	if s == nil {
		return time.Time{}
	}
	m, _ := s.gossip.view().Member(node)
	if !m.Dead {
		return time.Time{}
	}
	return time.Now().Add(m.DeadAt.Sub(s.now()))
}

// gossipers returns the keys of gossip, and the peers with their addresses of the
// family of the own one, of the checkpoint until the API server has told; nil if they
// are not known.
func (d *Director) gossipers(own netip.Addr) ([][]byte, []gossip.Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.peers
	if !d.peersKnown {
		if d.restored == nil || d.pool == nil || d.restored.Pool != d.pool.Name {
			return d.gossipKeys, nil
		}
		known = peersIn(*d.restored)
	}
	peers := make([]gossip.Peer, 0, len(known))
	for _, p := range known {
		peer := gossip.Peer{Node: p.Node}
		for _, addr := range []netip.Addr{p.Address, p.IPv6Address} {
			if !peer.Addr.IsValid() && addr.IsValid() && addr.Is4() == own.Is4() && !addr.IsLinkLocalUnicast() {
				peer.Addr = addr
			}
		}
		peers = append(peers, peer)
	}
	return d.gossipKeys, peers
}

// SetGossipKeys says which keys gossip is encrypted with: the first is spoken, all
// are understood. They are remembered for a start without the API server.
func (d *Director) SetGossipKeys(keys [][]byte) {
	d.mu.Lock()
	d.gossipKeys = keys
	pool := d.pool
	d.mu.Unlock()
	if pool != nil {
		d.saveKeys(pool.Name)
	}
	d.refresh()
}

// saveKeys remembers the keys, if they are known, for the next process.
func (d *Director) saveKeys(pool string) {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	keys := d.gossipKeys
	d.mu.Unlock()
	if keys == nil {
		return
	}
	if err := d.store.saveKeys(pool, keys); err != nil {
		d.cfg.Log.Error("Remembering the keys of gossip", "error", err)
	}
}

// restoreKeys takes the keys that an earlier process remembered, unless the API
// server has told them. d.mu is held.
func (d *Director) restoreKeys(pool string) {
	if d.gossipKeys != nil {
		return
	}
	keys, err := d.store.loadKeys(pool)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.cfg.Log.Warn("Passing over remembered keys", "error", err)
	}
	d.gossipKeys = keys
}

func (k *keeper) saveKeys(pool string, keys [][]byte) error {
	if err := os.MkdirAll(k.folder(), 0o700); err != nil {
		return fmt.Errorf("making the folder of checkpoints: %w", err)
	}
	return checkpoint.SaveKeys(checkpoint.KeysPath(k.folder(), pool), keys)
}

func (k *keeper) loadKeys(pool string) ([][]byte, error) {
	return checkpoint.LoadKeys(checkpoint.KeysPath(k.folder(), pool))
}

// tell tells the other directors how this one is. It is called after each decision
// and after each look at how it stands. The lock keeps what one group tells from
// being followed by what another one read before.
func (s *session) tell() {
	reachable := s.groups[0].elector.APIReachable()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gossip.tell(gossip.State{
		MAC: s.node.link.MAC.String(), APIReachable: reachable, Claims: s.claims(), Directors: s.naming.told,
	})
}

// claims returns, in their order, the claims of the groups that are announced. s.mu
// is held.
func (s *session) claims() []gossip.Claim {
	var all []gossip.Claim
	for _, g := range s.groups {
		if c := g.decision.Claim; c.Epoch > 0 {
			all = append(all, gossip.Claim{Group: g.number, Epoch: c.Epoch, Confirmed: c.Confirmed, Yielding: c.Yielding})
		}
	}
	return all
}

// vouched says whether a peer could take over by its own word, of which the API
// server may not know.
func vouched(node string, view gossip.View) bool {
	m, _ := view.Member(node)
	return m.Alive && !m.Relayed && m.State.Candidate
}

// gossipView returns what the present session knows by gossip. d.mu is held.
func (d *Director) gossipView() gossip.View {
	if d.session == nil {
		return gossip.View{}
	}
	return d.session.gossip.view()
}
