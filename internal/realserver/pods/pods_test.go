package pods_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

var (
	vip1, vip2, vip6 = addr("192.0.2.1"), addr("192.0.2.2"), addr("2001:db8::1")
	own1, own2       = addr("192.0.2.101"), addr("192.0.2.102")
)

// linger of all VIPs in these tests.
const linger = 20 * time.Second

func pod(uid string, vips ...netip.Addr) pods.Pod {
	p := pods.Pod{UID: uid, Namespace: "default", Name: "pod-" + uid}
	for _, vip := range vips {
		p.VIPs = append(p.VIPs, pods.VIP{Addr: vip, Linger: linger})
	}
	return p
}

func onHost(p pods.Pod) pods.Pod {
	p.HostNetwork = true
	return p
}

// log is what agents logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// process is an agent that runs.
type process struct {
	*pods.Agent
	node    *node
	log     *log
	changes atomic.Int32
	stop    func()
}

func (n *node) start(t *testing.T) *process {
	p := &process{node: n, log: &log{}}
	p.Agent = pods.New(pods.Options{
		Runtime: n, OpenHost: n.openHost, StateDir: n.dir,
		Changed: func() { p.changes.Add(1) },
		Log:     slog.New(slog.NewTextHandler(p.log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	p.stop = func() {
		cancel()
		<-done
	}
	n.process = p
	return p
}

// try runs a test on a node where time passes as soon as all wait.
func try(t *testing.T, test func(t *testing.T, n *node, p *process)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		p := n.start(t)
		synctest.Wait()
		defer func() { n.process.stop() }()
		test(t, n, p)
		n.process.stop()
		n.mu.Lock()
		defer n.mu.Unlock()
		for path, ns := range n.namespaces {
			if ns.open != 0 {
				t.Errorf("%d hosts are open of namespace %q", ns.open, path)
			}
		}
	})
}

// says checks what is reported, problems by a part of them.
func (p *process) says(t *testing.T, want ...pods.Report) {
	t.Helper()
	got, err := p.Reports()
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Problem" },
		cmp.Comparer(func(a, b string) bool {
			return (a == "") == (b == "") && (strings.Contains(a, b) || strings.Contains(b, a))
		}))
	if diff := cmp.Diff(want, got, same, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
}

func complete(uid, sandbox string, own netip.Addr, vips ...netip.Addr) pods.Report {
	return pods.Report{
		UID: uid, Namespace: "default", Name: "pod-" + uid, Sandbox: sandbox,
		PodAddresses: []netip.Addr{own}, VIPs: vips, Complete: true,
	}
}

func problem(uid, sandbox, text string, own ...netip.Addr) pods.Report {
	return pods.Report{UID: uid, Namespace: "default", Name: "pod-" + uid, Sandbox: sandbox, PodAddresses: own, Problem: text}
}

// has checks what is on lo of a sandbox's namespace.
func (n *node) has(t *testing.T, id string, vips ...netip.Addr) {
	t.Helper()
	if lo, _ := n.at(id); !slices.Equal(lo, vips) {
		t.Errorf("%s has %v on lo, want %v", id, lo, vips)
	}
}

// clean checks that a sandbox's namespace is as it was found, and nothing is
// remembered of it.
func (n *node) clean(t *testing.T, id string) {
	t.Helper()
	if lo, asFound := n.at(id); !asFound {
		t.Errorf("%s is not as it was found: %v is on lo", id, lo)
	}
	if n.remembers(id) {
		t.Errorf("there is state of %s", id)
	}
}

func (n *node) remembers(id string) bool {
	dir := filepath.Join(n.dir, "pods", id)
	if id == "" {
		dir = filepath.Join(n.dir, "host")
	}
	_, err := os.Stat(dir)
	return err == nil
}

func TestAPodThatIsWantedIsPreparedAndNoOther(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		n.run("s2", "b", own2)
		p.Want([]pods.Pod{pod("a", vip1, vip6)})
		after(time.Second)
		p.says(t, complete("a", "s1", own1, vip1, vip6))
		n.has(t, "s1", vip1, vip6)
		n.clean(t, "s2")
		n.clean(t, "")
		n.with(func() {
			if n.asked["s2"] > 0 {
				t.Error("the runtime was asked for a pod that nobody wants")
			}
		})
		if p.changes.Load() == 0 {
			t.Error("nobody was told that reports changed")
		}
		told := p.changes.Load()
		after(time.Minute)
		if p.changes.Load() != told {
			t.Error("somebody was told of a change that was none")
		}
	})
}

func TestAnotherVIPLeavesTheFirstAlone(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		n.onRemoval(func(_ string, vip netip.Addr) { t.Errorf("%s was taken off", vip) })
		p.Want([]pods.Pod{pod("a", vip2, vip1)})
		after(time.Second)
		p.says(t, complete("a", "s1", own1, vip1, vip2))
		n.with(func() {
			if added := n.namespaces[netnsOf("s1")].added[vip1]; added != 1 {
				t.Errorf("the first VIP was added %d times", added)
			}
		})
	})
}

func TestAVIPThatIsNotWantedStaysForItsLingerAndIsNotReportedWhenItGoes(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1, vip2)})
		after(time.Second)
		removed := 0
		n.onRemoval(func(_ string, vip netip.Addr) {
			removed++
			reports, err := p.Reports()
			if err != nil {
				t.Error(err)
			}
			for _, r := range reports {
				if slices.Contains(r.VIPs, vip) {
					t.Errorf("%s is reported while it is taken off", vip)
				}
			}
		})
		p.Want([]pods.Pod{pod("a", vip1)})
		after(linger - 2*time.Second)
		p.says(t, complete("a", "s1", own1, vip1, vip2))
		after(2 * time.Second)
		p.says(t, complete("a", "s1", own1, vip1))
		n.has(t, "s1", vip1)

		p.Want(nil)
		after(linger - 2*time.Second)
		p.says(t, complete("a", "s1", own1, vip1))
		after(2 * time.Second)
		p.says(t)
		n.clean(t, "s1")
		if removed != 2 {
			t.Errorf("%d VIPs were taken off", removed)
		}
	})
}

func TestAVIPThatIsWantedAgainStays(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		n.onRemoval(func(_ string, vip netip.Addr) { t.Errorf("%s was taken off", vip) })
		for range 3 {
			p.Want([]pods.Pod{pod("a", vip1)})
			after(linger - 2*time.Second)
			p.Want(nil)
			after(linger - 2*time.Second)
		}
		p.Want([]pods.Pod{pod("a", vip1)})
		after(2 * linger)
		p.says(t, complete("a", "s1", own1, vip1))
	})
}

func TestALingeringVIPThatNeverCameDoesNotCome(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		n.with(func() { n.namespaces[netnsOf("s1")].broken = true })
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		p.Want(nil)
		n.with(func() { n.namespaces[netnsOf("s1")].broken = false })
		after(linger / 2)
		n.clean(t, "s1")
	})
}

func TestDriftIsRepaired(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		n.with(func() {
			ns := n.namespaces[netnsOf("s1")]
			ns.lo = nil
			ns.notify()
		})
		after(0)
		n.has(t, "s1", vip1)
		n.with(func() {
			n.namespaces[netnsOf("s1")].settings[kernel.Setting{Link: "all", Name: kernel.ARPIgnore}.Path()] = 0
		})
		after(pods.DefaultInterval)
		p.says(t, complete("a", "s1", own1, vip1))
		n.with(func() {
			if n.namespaces[netnsOf("s1")].settings[kernel.Setting{Link: "all", Name: kernel.ARPIgnore}.Path()] != 1 {
				t.Error("the sysctl is not repaired")
			}
		})
	})
}

func TestANewSandboxOfAPodIsPreparedAnew(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1)})
		after(time.Second)
		n.kill("s1")
		n.tell()
		after(time.Second)
		p.says(t, problem("a", "", "no sandbox of the pod that is ready"))
		n.run("s2", "a", own2)
		n.with(func() { n.namespaces[netnsOf("s2")].broken = true })
		n.tell()
		after(time.Second)
		p.says(t, problem("a", "s2", errBroken.Error(), own2))
		n.with(func() { n.namespaces[netnsOf("s2")].broken = false })
		after(5 * time.Second)
		p.says(t, complete("a", "s2", own2, vip1))
	})
}

func TestARestartKeepsAndAdopts(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		n.run("s2", "b", own2)
		p.Want([]pods.Pod{pod("a", vip1), pod("b", vip1)})
		after(time.Second)
		p.stop()
		n.onRemoval(func(_ string, vip netip.Addr) { t.Errorf("%s was taken off", vip) })

		p = n.start(t)
		n.with(func() { n.calls = 0 })
		after(time.Hour)
		p.says(t)
		n.with(func() {
			if n.calls > 0 {
				t.Errorf("%d calls before it is known what is wanted", n.calls)
			}
		})

		p.Want([]pods.Pod{pod("a", vip1)})
		after(pods.DefaultLinger - 2*time.Second)
		p.says(t, complete("a", "s1", own1, vip1), complete("b", "s2", own2, vip1))
		n.onRemoval(nil)
		after(2 * time.Second)
		p.says(t, complete("a", "s1", own1, vip1))
		n.has(t, "s1", vip1)
		n.clean(t, "s2")
	})
}

func TestPodsInTheNodesNetworkHaveAllTheirVIPs(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.runOnHost("h1", "a")
		n.runOnHost("h2", "b")
		node := addr("192.0.2.250")
		p.Want([]pods.Pod{onHost(pod("a", vip1)), onHost(pod("b", vip2))})
		after(time.Second)
		p.says(t, complete("a", "h1", node, vip1, vip2), complete("b", "h2", node, vip1, vip2))
		n.has(t, "", vip1, vip2)
		p.Want([]pods.Pod{onHost(pod("b", vip2))})
		after(linger + time.Second)
		p.says(t, complete("b", "h2", node, vip2))
		p.stop()

		p = n.start(t)
		p.Want(nil)
		after(pods.DefaultLinger + time.Second)
		n.clean(t, "")
	})
}

func TestAPodAndTheRuntimeMustAgreeOnWhoseNetworkItIs(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.runOnHost("h1", "a")
		n.run("s1", "b", own1)
		p.Want([]pods.Pod{pod("a", vip1), onHost(pod("b", vip1))})
		after(time.Minute)
		p.says(t, problem("a", "h1", "disagree"), problem("b", "s1", "disagree"))
		n.clean(t, "")
		n.clean(t, "s1")
	})
}

func TestABadPodHurtsNoOther(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		n.run("s2", "b", own2)
		n.run("s3", "c", addr("192.0.2.103"))
		n.with(func() {
			n.namespaces[netnsOf("s1")].broken = true
			n.sandboxes[2].Err = errors.New("it has no address yet")
			n.sandboxes[2].NetNS = ""
		})
		p.Want([]pods.Pod{pod("a", vip1), pod("b", vip1), pod("c", vip1), pod("d", vip1)})
		after(time.Second)
		p.says(t,
			problem("a", "s1", errBroken.Error(), own1), complete("b", "s2", own2, vip1),
			problem("c", "s3", "no address yet"), problem("d", "", "no sandbox"))
		n.with(func() { n.namespaces[netnsOf("s2")].broken = true })
		after(2 * pods.DefaultInterval)
		p.says(t,
			problem("a", "s1", errBroken.Error(), own1), problem("b", "s2", errBroken.Error(), own2),
			problem("c", "s3", "no address yet"), problem("d", "", "no sandbox"))
		n.with(func() {
			n.namespaces[netnsOf("s1")].broken = false
			n.namespaces[netnsOf("s2")].broken = false
		})
		after(time.Minute)
		p.says(t,
			complete("a", "s1", own1, vip1), complete("b", "s2", own2, vip1),
			problem("c", "s3", "no address yet"), problem("d", "", "no sandbox"))
		if errs := strings.Count(p.log.String(), "level=ERROR"); errs > 4 {
			t.Errorf("the same is logged again and again: %s", p.log)
		}
	})
}

func TestAVIPThatThePodHasAsItsOwnAddressHurtsNoOther(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		p.Want([]pods.Pod{pod("a", vip1, own1)})
		after(time.Second)
		r := problem("a", "s1", own1.String()+" is the host's own address on eth0", own1)
		r.VIPs = []netip.Addr{vip1}
		p.says(t, r)
		n.has(t, "s1", vip1)
	})
}

func TestAPodThatCanHaveNoVIPIsLeftAlone(t *testing.T) {
	try(t, func(t *testing.T, n *node, p *process) {
		n.run("s1", "a", own1)
		n.run("s2", "b", own2)
		p.Want([]pods.Pod{pod("a", own1), pod("b")})
		after(time.Second)
		p.says(t, problem("a", "s1", "own address", own1), complete("b", "s2", own2))
		n.clean(t, "s1")
		n.clean(t, "s2")
	})
}
