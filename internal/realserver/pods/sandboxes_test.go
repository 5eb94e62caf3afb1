package pods_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lvs-operator/lvs-operator/internal/podnetns"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

func TestARuntimeThatDoesNotAnswerChangesNothing(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		n.with(func() { n.down = errors.New("connection refused") })
		after(time.Minute)
		reports, err := p.Reports()
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("Reports() = %v", err)
		}
		if diff := cmp.Diff([]netip.Addr{vip1}, reports[0].VIPs, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Error(diff)
		}
		// What is wanted of pods that are known is done all the same.
		p.Want([]pods.Pod{pod("a", vip1, vip2)})
		after(time.Second)
		n.has(t, "s1", vip1, vip2)
		n.with(func() { n.down = nil })
		after(pods.DefaultPoll + time.Second)
		p.says(t, complete("a", "s1", own1, vip1, vip2))
		if errs := strings.Count(p.log.String(), "level=ERROR"); errs != 1 {
			t.Errorf("it was logged %d times", errs)
		}
	})
}

func TestStateOfASandboxThatIsGoneIsDeletedAfterAWhile(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		// Lists that are incomplete for a while are not believed.
		var all []podnetns.Sandbox
		n.with(func() { all, n.sandboxes = n.sandboxes, nil })
		after(20 * time.Second)
		if !n.remembers("s1") {
			t.Fatal("a list without the sandbox was believed at once")
		}
		n.with(func() { n.sandboxes = all })
		after(pods.DefaultPoll + time.Second)
		p.says(t, complete("a", "s1", own1, vip1))
		n.kill("s1")
		after(time.Minute)
		if n.remembers("s1") {
			t.Error("there is state of a sandbox that is gone")
		}
	})
}

func TestASandboxThatIsTakenDownIsLetGo(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		n.with(func() { n.sandboxes[0].Ready = false })
		n.tell()
		after(0)
		p.says(t, problem("a", "", "no sandbox"))
		n.with(func() {
			if open := n.namespaces[netnsOf("s1")].open; open != 0 {
				t.Errorf("its namespace is still open %d times", open)
			}
		})
		n.has(t, "s1", vip1)
	})
}

func TestWithoutEventsSandboxesAreLookedFor(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		n.run("s1", "a", own1)
		after(pods.DefaultPoll)
		p.says(t, complete("a", "s1", own1, vip1))
	})
}

func TestOfSeveralSandboxesOfAPodOnlyTheNewestHasVIPs(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		n.run("s2", "a", own2)
		n.tell()
		after(time.Second)
		p.says(t, complete("a", "s2", own2, vip1))
		after(linger)
		n.has(t, "s2", vip1)
		n.clean(t, "s1")
	})
}

func TestARuntimeThatDoesNotAnswerTakesNothingOffTheNode(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.runOnHost("h1", "a")
		p.Want([]pods.Pod{onHost(pod("a", vip1))})
		after(time.Second)
		p.stop()

		// The next process has never asked for the pod's sandbox when it is wanted.
		p = n.start(t)
		p.Want(nil)
		after(time.Second)
		n.with(func() { n.down = errors.New("connection refused") })
		after(pods.DefaultLinger / 2)
		n.onRemoval(func(_ string, vip netip.Addr) { t.Errorf("%s was taken off", vip) })
		p.Want([]pods.Pod{onHost(pod("a", vip1))})
		after(2 * pods.DefaultLinger)
		n.has(t, "", vip1)
		n.with(func() { n.down = nil })
		after(pods.DefaultPoll + time.Second)
		p.says(t, complete("a", "h1", addr("192.0.2.250"), vip1))
	})
}
