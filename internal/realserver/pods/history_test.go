package pods_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/podnetns"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

// step is one event in a node's life; which fields matter depends on what it is.
type step struct {
	What string
	Pod  int // 0 to 2; 3 is in the node's network
	Want [4][]int
	Wait time.Duration
}

var historyVIPs = []netip.Addr{vip1, vip2, vip6}

func histories() *rapid.Generator[[]step] {
	vips := rapid.SliceOfNDistinct(rapid.IntRange(0, 2), 0, 3, rapid.ID)
	one := rapid.Custom(func(t *rapid.T) step {
		s := step{
			What: rapid.SampledFrom([]string{
				"want", "want", "want", "want nothing", "new sandbox", "kill", "not ready", "ready", "break", "heal", "down", "up",
				"lose a VIP", "lose a sysctl", "restart",
			}).Draw(t, "what"),
			Pod:  rapid.IntRange(0, 3).Draw(t, "pod"),
			Wait: time.Duration(rapid.IntRange(2, 400).Draw(t, "tenths")) * time.Second / 10,
		}
		for i := range s.Want {
			s.Want[i] = vips.Draw(t, "vips")
		}
		return s
	})
	return rapid.SliceOfN(one, 1, 25)
}

// life is a node and what should be true of it.
type life struct {
	*node
	t      *testing.T
	agent  *process
	made   int
	wanted [4]map[netip.Addr]time.Time // when it was last wanted
	now    [4][]netip.Addr             // wanted now
	faults []string
}

func (l *life) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func podName(i int) string { return string(rune('a' + i)) }

// live is the sandbox of a pod; the lock is held.
func (l *life) live(i int) *podnetns.Sandbox {
	for j := range l.sandboxes {
		if l.sandboxes[j].PodUID == podName(i) {
			return &l.sandboxes[j]
		}
	}
	return nil
}

// owners of a namespace.
func (l *life) owners(netns string) []int {
	if netns == "" {
		return []int{3}
	}
	for i := range 3 {
		if s := l.live(i); s != nil && s.NetNS == netns {
			return []int{i}
		}
	}
	return nil
}

// lastWanted is when a VIP was last wanted in a namespace; the lock is held.
func (l *life) lastWanted(netns string, vip netip.Addr) time.Time {
	var last time.Time
	for _, i := range l.owners(netns) {
		if slices.Contains(l.now[i], vip) {
			return time.Now()
		}
		if at := l.wanted[i][vip]; at.After(last) {
			last = at
		}
	}
	return last
}

func (l *life) want(s step) {
	var list []pods.Pod
	l.with(func() {
		for i, vips := range s.Want {
			for _, vip := range l.now[i] {
				l.wanted[i][vip] = time.Now()
			}
			l.now[i] = nil
			for _, v := range vips {
				l.now[i] = append(l.now[i], historyVIPs[v])
			}
			if len(vips) > 0 {
				p := pod(podName(i), l.now[i]...)
				p.HostNetwork = i == 3
				list = append(list, p)
			}
		}
	})
	l.agent.Want(list)
}

func (l *life) take(s step) {
	switch s.What {
	case "want":
		l.want(s)
	case "want nothing":
		l.want(step{})
	case "restart":
		l.agent.stop()
		l.agent = l.start(l.t)
		// It is told sooner or later what is wanted.
		after(time.Second)
		again := step{}
		for i := range again.Want {
			for _, vip := range l.now[i] {
				again.Want[i] = append(again.Want[i], slices.Index(historyVIPs, vip))
			}
		}
		l.want(again)
	case "new sandbox", "kill":
		if s.Pod == 3 {
			return
		}
		var old string
		l.with(func() {
			if sb := l.live(s.Pod); sb != nil {
				old = sb.ID
			}
		})
		l.kill(old)
		if s.What == "new sandbox" {
			l.made++
			l.run(fmt.Sprintf("s%d", l.made), podName(s.Pod), own1)
		}
		l.tell()
	default:
		l.with(func() { l.harm(s) })
		l.tell()
	}
}

// harm changes the node; the lock is held.
func (l *life) harm(s step) {
	sb := l.live(s.Pod)
	switch s.What {
	case "down":
		l.down = errors.New("connection refused")
	case "up":
		l.down = nil
	}
	if sb == nil {
		return
	}
	ns := l.namespaces[sb.NetNS]
	switch s.What {
	case "not ready", "ready":
		if s.Pod != 3 {
			sb.Ready = s.What == "ready"
		}
	case "break", "heal":
		ns.broken = s.What == "break"
	case "lose a VIP":
		ns.lo = nil
		ns.notify()
	case "lose a sysctl":
		ns.settings[kernel.Setting{Link: "all", Name: kernel.ARPIgnore}.Path()] = 0
	}
}

// truthful checks what is reported against what is there.
func (l *life) truthful(when string) {
	reports, err := l.agent.Reports()
	l.with(func() {
		for _, r := range reports {
			i := int(r.UID[0] - 'a')
			sb := l.live(i)
			if sb == nil || sb.ID != r.Sandbox {
				if err == nil && len(r.VIPs) > 0 {
					l.fault("%s: %v are reported of a sandbox that is gone, %s", when, r.VIPs, r.Sandbox)
				}
				continue
			}
			for _, vip := range r.VIPs {
				if !slices.Contains(l.namespaces[sb.NetNS].lo, vip) {
					l.fault("%s: %s is reported of pod %s and is not there", when, vip, r.UID)
				}
			}
			if r.Complete != (r.Problem == "") {
				l.fault("%s: %+v", when, r)
			}
		}
	})
}

// removal checks whether a VIP may be taken off now. Of others nothing can be
// said: they may be taken off meanwhile.
func (l *life) removal(netns string, vip netip.Addr) {
	reports, _ := l.agent.Reports()
	l.with(func() {
		owners := l.owners(netns)
		if len(owners) > 0 && time.Since(l.lastWanted(netns, vip)) < linger {
			l.fault("%s was taken off lo of %q too early", vip, netns)
		}
		for _, r := range reports {
			i := int(r.UID[0] - 'a')
			if slices.Contains(owners, i) && l.live(i).ID == r.Sandbox && slices.Contains(r.VIPs, vip) {
				l.fault("%s is reported of pod %s while it is taken off", vip, r.UID)
			}
		}
	})
}

func (l *life) pass(history []step) {
	for i, s := range history {
		l.take(s)
		// Less than settle is not looked at: repairs have a pause between them.
		after(s.Wait)
		l.truthful(fmt.Sprintf("step %d, %s", i, s.What))
	}
	// In the end all is well, and nobody wants anything.
	l.with(func() {
		l.down = nil
		for i := range l.sandboxes {
			l.sandboxes[i].Ready = true
		}
		for _, ns := range l.namespaces {
			ns.broken = false
		}
	})
	l.tell()
	l.want(step{})
	after(time.Minute + pods.DefaultLinger)
	l.truthful("in the end")
	l.with(func() {
		for path, ns := range l.namespaces {
			if !ns.asFound() {
				l.fault("in the end %q has %v on lo and %v", path, ns.lo, ns.settings)
			}
			if ns.open != 0 {
				l.fault("in the end %q is open", path)
			}
		}
	})
	for i := range l.made {
		if id := fmt.Sprintf("s%d", i+1); l.remembers(id) {
			l.fault("in the end there is state of %s", id)
		}
	}
	if l.remembers("") {
		l.fault("in the end there is state of the node")
	}
}

// Whatever happens, no pod has a VIP that was not asked for, none loses one before
// its linger has passed, no report names what is not there, and what was changed
// is put back in the end.
func TestWhateverHappensPodsHaveWhatIsWantedAndAreLeftAsTheyWere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := histories().Draw(rt, "history")
		var faults []string
		synctest.Test(t, func(t *testing.T) {
			l := &life{node: newNode(t), t: t}
			for i := range l.wanted {
				l.wanted[i] = map[netip.Addr]time.Time{}
			}
			l.runOnHost("h", podName(3))
			l.adding = func(netns string, vip netip.Addr) {
				// Want takes as long as the pause between two lists.
				if time.Since(l.lastWanted(netns, vip)) > 200*time.Millisecond && len(l.owners(netns)) > 0 {
					l.fault("%s was put on lo of %q", vip, netns)
				}
			}
			l.onRemoval(l.removal)
			l.agent = l.start(t)
			synctest.Wait()
			l.pass(history)
			l.agent.stop()
			faults = l.faults
		})
		if len(faults) > 0 {
			rt.Fatalf("%d faults: %s", len(faults), faults[0])
		}
	})
}
