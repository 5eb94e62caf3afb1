package plan

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// player is a director with a kernel in memory.
type player struct {
	state  netstate.State
	memory Memory
	// wasLost and full are the quorums and the full weights of the last pass.
	wasLost map[netstate.ServiceKey]bool
	full    map[netstate.DestinationKey]netstate.Destination
	passes  int
}

func newPlayer() *player { return &player{state: netstate.New()} }

// restarted is the same kernel under a director that knows nothing.
func (p *player) restarted() *player {
	return &player{state: p.state.Clone(), wasLost: p.wasLost, full: p.full, passes: p.passes}
}

// world is what directors have in common.
type world struct {
	desired     Desired
	verdicts    map[netip.Addr]health.Verdict
	connections map[netstate.DestinationKey]netstate.Connections
	now         time.Time
}

func (w *world) verdict(probe health.Probe) health.Verdict { return w.verdicts[probe.Target.Addr] }

// isUp says whether a destination is to get connections, as far as it alone goes.
func (w *world) isUp(key netstate.DestinationKey) bool {
	judged, _ := w.desired.Judge(key, w.verdict)
	return judged == health.Up && w.desired.State.Destinations[key].Weight > 0
}

// scheduling lists the services that have somewhere to send a connection.
func scheduling(s netstate.State) map[netstate.ServiceKey]bool {
	services := map[netstate.ServiceKey]bool{}
	for key, destination := range s.Destinations {
		if destination.Weight > 0 {
			services[key.Service] = true
		}
	}
	return services
}

// pass does what the worker does, and checks what holds at any moment. It returns
// what there was to do.
func (p *player) pass(t *rapid.T, w *world) ([]netstate.Op, time.Duration) {
	before := p.state.Clone()
	have := netstate.Observation{State: before, Connections: w.connections}
	want, memory, next := Want(w.desired, have, w.verdict, p.memory, w.now)
	ops := netstate.Diff(before, want)
	served, mustServe := scheduling(before), scheduling(want)
	for key := range w.desired.State.Destinations {
		if w.isUp(key) && !mustServe[key.Service] {
			t.Fatalf("%s is up, and %s is to have nobody", key, key.Service)
		}
	}
	for _, op := range ops {
		p.state.Perform(op)
		for service, served := range served {
			if served && mustServe[service] && !scheduling(p.state)[service] {
				t.Fatalf("after %s of %v: nobody is there for %s", op, ops, service)
			}
		}
	}
	p.checkRising(t, w, before, memory)
	p.memory, p.wasLost, p.full = memory, memory.Lost, w.desired.State.Destinations
	p.passes++
	return ops, next
}

// checkRising checks that nobody who stays up gets less than before.
func (p *player) checkRising(t *rapid.T, w *world, before netstate.State, later Memory) {
	for key, was := range before.Destinations {
		full := w.desired.State.Destinations[key]
		if p.full[key] != full || was.Weight > full.Weight || !w.isUp(key) || p.wasLost[key.Service] || later.Lost[key.Service] {
			continue
		}
		if is := p.state.Destinations[key]; is.Weight < was.Weight {
			t.Fatalf("%s is up and goes from weight %d to %d of %d", key, was.Weight, is.Weight, full.Weight)
		}
	}
}

// rest checks that a second pass has nothing to do and decides the same.
func (p *player) rest(t *rapid.T, w *world) {
	lost := p.memory.Lost
	if ops, _ := p.pass(t, w); len(ops) > 0 {
		t.Fatalf("a second pass wants %v", ops)
	}
	if !maps.Equal(lost, p.memory.Lost) {
		t.Fatalf("the first pass finds quorums lost %v, the second %v", lost, p.memory.Lost)
	}
}

// settle passes until nothing is due any more. What that takes is bounded.
func (p *player) settle(t *rapid.T, w *world) {
	w2 := *w
	for range 4 * rampSteps {
		_, next := p.pass(t, &w2)
		p.rest(t, &w2)
		switch {
		case next > 0:
			w2.now = w2.now.Add(next)
		case len(p.memory.Draining) > 0:
			w2.now = w2.now.Add(10 * time.Second)
		default:
			return
		}
	}
	t.Fatalf("it does not come to rest: %+v", p.memory)
}

var replayServers = []string{"192.168.11.135", "192.168.11.138", "192.168.11.140"}

// drawWorld draws the policies, which stay.
func drawWorld(t *rapid.T) *world {
	w := &world{
		desired:  newDesired(testWeb.Key),
		verdicts: map[netip.Addr]health.Verdict{}, connections: map[netstate.DestinationKey]netstate.Connections{}, now: noon,
	}
	for _, service := range []netstate.ServiceKey{testWeb, testDNS} {
		scheduler := rapid.SampledFrom([]string{"wrr", "wrr", "sh"}).Draw(t, "scheduler")
		w.desired.State.Services[service] = netstate.Service{Scheduler: scheduler, PersistencePrefix: 32}
		policy := Policy{
			Quiesce:      rapid.Bool().Draw(t, "quiesce"),
			DrainTimeout: time.Duration(rapid.IntRange(0, 2).Draw(t, "drain")) * 30 * time.Second,
			SlowStart:    time.Duration(rapid.IntRange(0, 3).Draw(t, "slow start")) * 7 * time.Second,
			Scale:        100,
			Quorum:       rapid.Uint64Range(0, 9).Draw(t, "quorum") * 100,
			Hysteresis:   rapid.Uint64Range(0, 4).Draw(t, "hysteresis") * 100,
		}
		if rapid.Bool().Draw(t, "sorry server") {
			policy.Sorry = sorryAddr
		}
		w.desired.Policies[service] = policy
	}
	return w
}

// change lets time pass, and something happen.
func (w *world) change(t *rapid.T, verdicts ...health.Verdict) {
	w.now = w.now.Add(time.Duration(rapid.IntRange(0, 9000).Draw(t, "milliseconds")) * time.Millisecond)
	server := netip.MustParseAddr(rapid.SampledFrom(replayServers).Draw(t, "server"))
	w.verdicts[server] = rapid.SampledFrom(verdicts).Draw(t, "verdict")
	desired := w.desired
	desired.State.Destinations, desired.Unready = maps.Clone(desired.State.Destinations), maps.Clone(desired.Unready)
	desired.Checks = maps.Clone(desired.Checks)
	for _, service := range []netstate.ServiceKey{testWeb, testDNS} {
		key := netstate.DestinationKey{Service: service, Addr: server, Port: service.Port}
		switch rapid.SampledFrom([]string{"", "", "leaves", "weight", "ready", "unready"}).Draw(t, "what happens") {
		case "leaves":
			delete(desired.State.Destinations, key)
			delete(desired.Unready, key)
		case "weight":
			desired.State.Destinations[key] = netstate.Destination{Method: netstate.DR, Weight: 100 * rapid.Uint32Range(0, 3).Draw(t, "weight")}
			desired.Checks[key] = []Check{{Probe: health.Probe{Target: health.Target{Type: health.TCP, Addr: server, Port: 80}}, InitiallyUp: service == testDNS}}
		case "unready":
			desired.Unready[key] = "its pod is not Ready"
		case "ready":
			delete(desired.Unready, key)
		}
		w.connections = maps.Clone(w.connections)
		w.connections[key] = netstate.Connections{Active: rapid.Uint32Range(0, 1).Draw(t, "connections")}
	}
	w.desired = desired
}

// TestHistoriesEndAlike plays random histories. At each moment a service that has
// somebody who is up has somebody who is sent connections, what was decided stays
// until something happens, nobody who stays up gets less, and the end does not
// depend on whether the director was restarted on the way.
func TestHistoriesEndAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, stayed := drawWorld(t), newPlayer()
		var restarted *player
		events := rapid.IntRange(1, 25).Draw(t, "events")
		restart := rapid.IntRange(1, events).Draw(t, "restart after")
		for range events {
			w.change(t, health.Unknown, health.Down, health.Up, health.Up)
			stayed.pass(t, w)
			stayed.rest(t, w)
			if restarted == nil && stayed.passes >= 2*restart {
				restarted = stayed.restarted()
			} else if restarted != nil {
				restarted.pass(t, w)
				restarted.rest(t, w)
			}
		}
		for _, server := range replayServers {
			addr := netip.MustParseAddr(server)
			if w.verdicts[addr] == health.Unknown {
				w.verdicts[addr] = rapid.SampledFrom([]health.Verdict{health.Down, health.Up}).Draw(t, "first verdict")
			}
		}
		stayed.settle(t, w)
		restarted.settle(t, w)
		if diff := cmp.Diff(stayed.state, restarted.state, byValue...); diff != "" {
			t.Fatalf("after a restart the end is another one (-without +with):\n%s", diff)
		}
		checkEnd(t, w, stayed)
	})
}

// checkEnd says what the end of all history is: who is up has its full weight,
// or none while a sorry server is there; nobody else is left.
func checkEnd(t *rapid.T, w *world, p *player) {
	for key, destination := range w.desired.State.Destinations {
		policy := w.desired.Policies[key.Service]
		_, sorry := p.state.Destinations[netstate.DestinationKey{Service: key.Service, Addr: sorryAddr, Port: key.Service.Port}]
		if sorry != (p.memory.Lost[key.Service] && policy.Sorry.IsValid()) {
			t.Fatalf("the sorry server of %s is there: %t", key.Service, sorry)
		}
		got, there := p.state.Destinations[key]
		judged, _ := w.desired.Judge(key, w.verdict)
		switch {
		case sorry && (got.Weight > 0 || there && (key.Service.Protocol == netstate.UDP || w.desired.State.Services[key.Service].Scheduler == "sh")):
			t.Fatalf("%s is %+v beside the sorry server", key, got)
		case sorry:
		case judged == health.Up && got != destination:
			t.Fatalf("%s is %+v in the end, want %+v", key, got, destination)
		case judged == health.Down && (there != policy.Quiesce || got.Weight > 0):
			t.Fatalf("%s is down and there: %t, %+v", key, there, got)
		}
	}
	for key := range p.state.Destinations {
		if _, wanted := w.desired.State.Destinations[key]; !wanted && key.Addr != sorryAddr {
			t.Fatalf("%s is left over", key)
		}
	}
}
