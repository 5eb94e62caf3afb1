//go:build e2e

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

const (
	// leaseDuration is the pool's: what is faster was not told by the Lease.
	leaseDuration = 3 * time.Second
	// shared is how long connections are open before something happens to their
	// director, so that the other one knows them: kernels tell each other every 2 s.
	shared = 4 * time.Second
)

// takeovers runs, on the two directors of pair, what they decide by gossip and by
// what answers on the segment, and not by the Lease alone.
func (s *suite) takeovers(t *testing.T) {
	for _, scenario := range []struct {
		name string
		run  func(*testing.T, *suite)
		// away says that the API server is away when roles change, or that directors
		// get to write late. What it shows is of before for a while, so the scenario
		// says from when on it has to agree.
		away bool
		// long says that it is left to make e2e-all.
		long bool
	}{
		{"a firewall blocks gossip for a minute and nothing else", blocksGossip, false, false},
		{"all nodes are busy for half a minute", keepsNodesBusy, true, true},
		{"the active director and the other nodes cannot reach each other", cutsPeers, false, true},
		{"the active director reaches neither the other nodes nor the API server", cutsPeersAndAPI, false, true},
		{"the active director's segment is dead behind a live management network", cutsSegment, false, false},
		{"the active director is cut off from everything", cutsAll, false, true},
		{"the active director's process is killed before and while the API server is away", killsWithoutAPI, true, true},
		{"the active director's machine dies while the API server is away", crashesWithoutAPI, true, false},
	} {
		if scenario.long && !*all {
			continue
		}
		if !t.Run(scenario.name, func(t *testing.T) {
			if !scenario.away {
				s.wantAgreement(t, "pair")
			}
			scenario.run(t, s)
		}) {
			s.explain(t)
		}
	}
}

// hold opens connections to VIPs that stay open, and lets them grow as old as the
// directors need to share them. The function that it returns wants that all of
// them live.
func (s *suite) hold(t *testing.T, vips ...string) (wantAllLive func()) {
	t.Helper()
	open := map[string]*load.Held{}
	next := nextPort()
	for _, vip := range vips {
		conns, err := load.Hold(t.Context(), load.Options{Address: vip + ":80", Dial: s.lab.DialFrom(cluster.Client, next)}, held)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns.Close() })
		open[vip] = conns
	}
	pause(t, shared)
	return func() {
		t.Helper()
		for vip, conns := range open {
			lost := conns.Ask(10 * time.Second)
			t.Logf("of %d connections to %s that were open for more than %s %d live", held, vip, shared, held-len(lost))
			if len(lost) > 0 {
				t.Errorf("%d of %d connections to %s are lost: %v", len(lost), held, vip, lost[0])
			}
		}
	}
}

// wantFew wants that of many requests hardly one failed. None is too much to ask
// where directors cannot reach each other: a new one cannot hand on the request that
// is under way when the client moves to it.
func wantFew(t *testing.T, sum load.Summary) {
	t.Helper()
	if sum.Requests == 0 || sum.Failed > sum.Requests/100 {
		t.Errorf("%d of %d requests failed, want at most one of a hundred", sum.Failed, sum.Requests)
	}
}

// claim says whose the Lease is, and in which epoch.
func (s *suite) claim(t *testing.T) string {
	t.Helper()
	lease := s.lease(t)
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	return fmt.Sprintf("%q in epoch %s", holder, lease.Annotations["lvs-operator.io/epoch"])
}

// wantNoMove runs something and wants that it changes nobody's role.
func (s *suite) wantNoMove(t *testing.T, happens func()) {
	t.Helper()
	roles := func() string {
		return fmt.Sprintf("%s:\n%s\n%s:\n%s", lone, s.transitions(lone), spare, s.transitions(spare))
	}
	active := s.holder(t)
	if s.transitions(active) == "" {
		t.Fatal("the active director counts no changes of role")
	}
	claim, before := s.claim(t), roles()
	happens()
	if now := s.claim(t); now != claim {
		t.Errorf("the Lease is %s, and was %s", now, claim)
	}
	if now := roles(); now != before {
		t.Errorf("changes of role are %s\nand were %s", now, before)
	}
	if !s.announces(active) || s.announces(peerOf(active)) {
		t.Errorf("%s announces: %t, %s: %t; want %s alone", active, s.announces(active), peerOf(active), s.announces(peerOf(active)), active)
	}
}

// awaitGossip waits until each of the two directors has so many others alive by
// gossip.
func (s *suite) awaitGossip(t *testing.T, members int) {
	t.Helper()
	await(t, time.Minute, func() string { return s.noGossip(members) })
}

// noGossip says that a director has another number of others alive by gossip, or
// nothing.
func (s *suite) noGossip(members int) string {
	for _, node := range []string{lone, spare} {
		if !strings.Contains(s.metrics(node), fmt.Sprintf("\nlvs_director_gossip_members %d\n", members)) {
			return fmt.Sprintf("%s has not %d others alive by gossip", node, members)
		}
	}
	return ""
}

// awaitOne waits until both directors run and one of them alone has announced for
// a while, which it returns. One that has just been started, or claims what another
// one does, takes two seconds to decide.
func (s *suite) awaitOne(t *testing.T) string {
	t.Helper()
	const enough = 6 // looks, a second apart
	one, looks := "", 0
	await(t, 2*time.Minute, func() string {
		var announcing []string
		for _, node := range []string{lone, spare} {
			metrics := s.metrics(node)
			if metrics == "" {
				one = ""
				return "the director of " + node + " does not run"
			}
			if strings.Contains(metrics, `lvs_director_active{group="0"} 1`) {
				announcing = append(announcing, node)
			}
		}
		if len(announcing) != 1 {
			one = ""
			return fmt.Sprintf("%q announce, want one", announcing)
		}
		if announcing[0] != one {
			one, looks = announcing[0], 0
		}
		if looks++; looks < enough {
			return "only now it is " + one + " alone that announces"
		}
		return ""
	})
	return one
}

// roleChanges is how often a director changed its role for a reason, as far as its
// process knows.
func (s *suite) roleChanges(t *testing.T, node, reason string) int {
	t.Helper()
	metrics := s.metrics(node)
	if metrics == "" {
		t.Errorf("the director of %s serves no metrics", node)
	}
	for line := range strings.Lines(metrics) {
		value, found := strings.CutPrefix(line, fmt.Sprintf("lvs_director_transitions_total{reason=%q} ", reason))
		if !found {
			continue
		}
		number, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			t.Error(err)
		}
		return number
	}
	return 0
}

// lastTransition is what a Director says of its last change of role.
func (s *suite) lastTransition(t *testing.T, node string) v1alpha1.DirectorTransition {
	t.Helper()
	var director v1alpha1.Director
	if err := s.api.Get(t.Context(), types.NamespacedName{Name: node}, &director); err != nil || director.Status.LastTransition == nil {
		return v1alpha1.DirectorTransition{}
	}
	return *director.Status.LastTransition
}

// awaitServers waits until a node's kernel has both real servers get connections
// of a VIP.
func (s *suite) awaitServers(t *testing.T, node, vip string) {
	t.Helper()
	await(t, 2*time.Minute, func() string {
		table, err := s.lab.Output(t.Context(), node, "ipvsadm", "-Ln", "-t", vip+":80")
		up := 0
		for line := range strings.Lines(table) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[0] != "->" {
				continue
			}
			if weight, headline := strconv.Atoi(fields[3]); headline == nil && weight > 0 {
				up++
			}
		}
		if up == 2 {
			return ""
		}
		return fmt.Sprintf("%d real servers of %s are up on %s, want 2 (%v)", up, vip, node, err)
	})
}

// blocksGossip has a firewall drop gossip. Directors lose each other, and yet the
// Lease is renewed and the segment answers.
func blocksGossip(t *testing.T, s *suite) {
	active := s.holder(t)
	heal := s.healer(t, active)
	s.awaitGossip(t, 1)
	s.wantNoMove(t, func() {
		s.wantNoLoss(t, func() {
			if err := s.lab.Cut(t.Context(), active, cluster.CutGossip); err != nil {
				t.Fatal(err)
			}
			s.awaitGossip(t, 0)
			pause(t, time.Minute)
			if why := s.noGossip(0); why != "" {
				t.Errorf("gossip was not blocked all the time, so nothing is shown: %s", why)
			}
			heal()
			s.awaitGossip(t, 1)
		})
	})
}

// keepsNodesBusy leaves directors little CPU. Gossip may suspect what it likes, and
// no Lease is taken before it expires. A holder that gets no CPU for all of its
// Lease loses it, as it must.
func keepsNodesBusy(t *testing.T, s *suite) {
	wantAllLive := s.hold(t, pairVIP)
	early := func() string {
		var lines []string
		for line := range strings.Lines(s.transitions(lone) + s.transitions(spare)) {
			if strings.Contains(line, "HolderDead") || strings.Contains(line, "Provisional") || strings.Contains(line, "Isolated") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	before, claim := early(), s.claim(t)
	// How many requests fail, if any, is what the machine allows.
	if sum := s.under(t, func() { s.burn(t, 30*time.Second) }); sum.Requests == sum.Failed {
		t.Error("nothing was answered")
	}
	s.awaitPair(t)
	if now := early(); now != before {
		t.Errorf("early changes of role are\n%s\nand were\n%s", now, before)
	}
	t.Logf("the Lease is %s, and was %s", s.claim(t), claim)
	wantAllLive()
}

// burn has four processes on each node use all the CPU that they get.
func (s *suite) burn(t *testing.T, d time.Duration) {
	t.Helper()
	// The shell ends them itself, and fails if one of them ended before.
	script := fmt.Sprintf(`burners=
		for i in 1 2 3 4; do sh -c 'while :; do :; done' & burners="$burners $!"; done
		sleep %d; cat /proc/loadavg; kill $burners`, int(d.Seconds()))
	nodes := []string{lone, spare, other}
	ended := make(chan error, len(nodes))
	for _, node := range nodes {
		go func() {
			out, err := s.lab.Output(t.Context(), node, "sh", "-c", script)
			t.Logf("load of %s: %s", node, strings.TrimSpace(out))
			ended <- err
		}()
	}
	for range nodes {
		if err := <-ended; err != nil {
			t.Errorf("keeping a node busy: %v", err)
		}
	}
}

// cutsPeers cuts the holder off from the other nodes; hosts and the API server
// reach both. To its peer it looks dead until it renews the Lease, so it may be
// replaced once, if it renewed just before, and no more than that.
func cutsPeers(t *testing.T, s *suite) {
	active := s.holder(t)
	heal := s.healer(t, active)
	wantAllLive := s.hold(t, pairVIP)
	before := s.lease(t)
	sum := s.under(t, func() {
		if err := s.lab.Cut(t.Context(), active, cluster.CutPeers); err != nil {
			t.Fatal(err)
		}
		s.awaitGossip(t, 0)
		pause(t, 10*time.Second)
		if one, holder := s.awaitOne(t), s.holder(t); one != holder {
			t.Errorf("%s announces alone, and the Lease is %q's", one, holder)
		}
		heal()
		s.awaitGossip(t, 1)
		s.awaitPair(t)
	})
	wantFew(t, sum)
	wantAllLive()
	moves := *s.lease(t).Spec.LeaseTransitions - *before.Spec.LeaseTransitions
	t.Logf("the Lease changed hands %d times", moves)
	if moves > 1 {
		t.Errorf("the Lease changed hands %d times, want once at most", moves)
	}
}

// cutsPeersAndAPI leaves the holder only the hosts of the segment. It cannot know
// that it is replaced, so both announce until the connections are mended.
func cutsPeersAndAPI(t *testing.T, s *suite) {
	active := s.holder(t)
	heal := s.healer(t, active)
	wantAllLive := s.hold(t, pairVIP)
	sum := s.under(t, func() {
		for _, cut := range []cluster.Cut{cluster.CutAPI, cluster.CutPeers} {
			if err := s.lab.Cut(t.Context(), active, cut); err != nil {
				t.Fatal(err)
			}
		}
		s.awaitHolder(t, peerOf(active))
		pause(t, 5*time.Second)
		if !s.announces(peerOf(active)) {
			t.Errorf("%s holds the Lease and does not announce", peerOf(active))
		}
		s.returns(t, active, heal)
	})
	wantFew(t, sum)
	wantAllLive()
	t.Logf("%s says %+v", peerOf(active), s.lastTransition(t, peerOf(active)))
}

// isolate takes the holder off the segment, which it sees by nothing but silence,
// and wants that the other director takes over and knows its connections.
func (s *suite) isolate(t *testing.T, active string, cut cluster.Cut) (heal func()) {
	t.Helper()
	peer := peerOf(active)
	heal = s.healer(t, active)
	wantAllLive := s.hold(t, pairVIP)
	sum := s.under(t, func() {
		if err := s.lab.Cut(t.Context(), active, cut); err != nil {
			t.Fatal(err)
		}
		s.awaitHolder(t, peer)
	})
	if sum.Failed == 0 || sum.Outage > leaseDuration {
		t.Errorf("outage %s with %d failed, want some, and at most %s", sum.Outage, sum.Failed, leaseDuration)
	}
	wantAllLive()
	t.Logf("%s says %+v", peer, s.lastTransition(t, peer))
	return heal
}

// returns mends the connections of a node that is not active any more and waits
// until it could be again: its health checks failed meanwhile.
func (s *suite) returns(t *testing.T, node string, heal func()) {
	t.Helper()
	heal()
	if one := s.awaitOne(t); one != peerOf(node) {
		t.Errorf("%s announces when all can be reached again, want that %s goes on", one, peerOf(node))
	}
	s.awaitGossip(t, 1)
	s.awaitPair(t)
	s.awaitServers(t, node, pairVIP)
	if now := s.holder(t); now != peerOf(node) {
		t.Errorf("the Lease is %q's when all can be reached again, want that it stays %s's", now, peerOf(node))
	}
}

// cutsSegment lets the holder go on to renew its Lease.
func cutsSegment(t *testing.T, s *suite) {
	active := s.holder(t)
	heal := s.isolate(t, active, cluster.CutSegment)
	if s.announces(active) {
		t.Errorf("%s still announces, although it can know that it was replaced", active)
	}
	s.wantNoLoss(t, func() { s.returns(t, active, heal) })
}

// cutsAll leaves the holder nobody to ask. When it is back it still means to be
// active, until it hears who is.
func cutsAll(t *testing.T, s *suite) {
	active := s.holder(t)
	heal := s.isolate(t, active, cluster.CutAll)
	wantFew(t, s.under(t, func() { s.returns(t, active, heal) }))
}
