//go:build kernel

package pods_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/podnetns"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

// runtime is a container runtime whose pods are namespaces of netlab.
type runtime struct {
	mu        sync.Mutex
	sandboxes []podnetns.Sandbox
	told      chan struct{}
}

func (r *runtime) Sandboxes(context.Context, func(string, string) bool) ([]podnetns.Sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sandboxes), nil
}

func (r *runtime) Changes(context.Context) <-chan struct{} { return r.told }

// run makes a sandbox of the pod that is called as it.
func (r *runtime) run(id string, ns *netlab.NS, own ...netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes = append(r.sandboxes, podnetns.Sandbox{ID: id, PodUID: id, Ready: true, NetNS: ns.Path(), Addresses: own})
}

// machine is an agent on real namespaces. Its /proc/sys/net is another mount, as
// a container has it.
type machine struct {
	*pods.Agent
	runtime *runtime
	dir     string
	changed chan struct{}
	stop    func()
}

// sysctlMount mounts /proc/sys/net once more.
func sysctlMount(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("/proc/sys/net", dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newMachine(t testing.TB, interval time.Duration) *machine {
	t.Helper()
	return startMachine(t, t.TempDir(), &runtime{told: make(chan struct{}, 1)}, interval)
}

func startMachine(t testing.TB, dir string, r *runtime, interval time.Duration) *machine {
	t.Helper()
	m := &machine{runtime: r, dir: dir, changed: make(chan struct{}, 1)}
	m.Agent = pods.New(pods.Options{
		Runtime: r, OpenHost: pods.OpenKernel(sysctlMount(t)), StateDir: dir, Interval: interval, Poll: 200 * time.Millisecond,
		Changed: func() {
			select {
			case m.changed <- struct{}{}:
			default:
			}
		},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	m.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(m.stop)
	return m
}

// until waits until the reports are as they should be.
func (m *machine) until(t testing.TB, what string, is func([]pods.Report) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		reports, err := m.Reports()
		if err != nil {
			t.Fatal(err)
		}
		if is(reports) {
			return
		}
		select {
		case <-m.changed:
		case <-deadline:
			t.Fatalf("%s: there are %d reports, the first of %+v", what, len(reports), reports[:min(3, len(reports))])
		}
	}
}

// eventually waits for what nobody reports.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for " + what)
		}
	}
}

func allComplete(n int, vips ...netip.Addr) func([]pods.Report) bool {
	return func(reports []pods.Report) bool {
		for _, r := range reports {
			if !r.Complete || !slices.Equal(r.VIPs, vips) {
				return false
			}
		}
		return len(reports) == n
	}
}

// everything is all addresses with their labels and flags and all settings of the
// interfaces of a namespace.
func everything(t testing.TB, ns *netlab.NS) map[string]string {
	t.Helper()
	found := map[string]string{}
	links, err := ns.Links().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		found[link.Attrs().Name] = fmt.Sprint(link.Attrs().Flags, link.Attrs().HardwareAddr)
		addresses, err := ns.Links().AddrList(link, unix.AF_UNSPEC)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			found[link.Attrs().Name+" "+a.IPNet.String()] = fmt.Sprint(a.Label, a.Scope, a.Flags&^unix.IFA_F_TENTATIVE)
		}
	}
	err = ns.Do(func() error {
		for _, root := range []string{"/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"} {
			err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() || entry.Name() == "stable_secret" {
					return err
				}
				value, err := os.ReadFile(path)
				found[path] = string(value)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func unchanged(t testing.TB, what string, before map[string]string, ns *netlab.NS) {
	t.Helper()
	if diff := cmp.Diff(before, everything(t, ns)); diff != "" {
		t.Errorf("%s (-before +after):\n%s", what, diff)
	}
}

func soon(uid string, vips ...netip.Addr) pods.Pod {
	p := pod(uid, vips...)
	for i := range p.VIPs {
		p.VIPs[i].Linger = 100 * time.Millisecond
	}
	return p
}

func TestPodsOfOneKernelGetTheirVIPsAndAreLeftAsTheyWere(t *testing.T) {
	segment := netlab.NewSegment(t)
	client := segment.Host("192.0.2.10/24", "2001:db8::10/64")
	web := segment.Host("192.0.2.101/24", "2001:db8::101/64")
	other := segment.Host("192.0.2.102/24", "2001:db8::102/64")
	// Somebody has settings of their own; one of them has to change.
	web.SetSysctl("ipv4/conf/all/arp_announce", "1")
	web.SetSysctl("ipv4/conf/lo/arp_ignore", "2")
	web.ServeEcho("[::]:80")
	m := newMachine(t, 200*time.Millisecond)
	m.runtime.run("web", web, own1)
	m.runtime.run("other", other, own2)
	// The node's own namespace, in which this test runs.
	node, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/arp_ignore")
	if err != nil {
		t.Fatal(err)
	}
	before, beforeOther := everything(t, web), everything(t, other)

	m.Want([]pods.Pod{soon("web", vip1)})
	m.until(t, "the first VIP", allComplete(1, vip1))
	for _, vip := range historyVIPs {
		client.Neighbor("eth0", vip.String(), web.MAC("eth0"))
	}
	connection := client.Connect("tcp", netip.AddrPortFrom(vip1, 80).String())
	connection.Echo("one")

	m.Want([]pods.Pod{soon("web", vip1, vip2, vip6)})
	m.until(t, "the others", allComplete(1, vip1, vip2, vip6))
	connection.Echo("two")
	client.Connect("tcp", netip.AddrPortFrom(vip2, 80).String()).Echo("three")
	client.Connect("tcp", netip.AddrPortFrom(vip6, 80).String()).Echo("four")
	deprecated(t, web)
	unchanged(t, "a pod that nobody wants was changed", beforeOther, other)

	// Drift: an address is noticed by the kernel's report, a setting at the next check.
	web.DeleteAddress("lo", vip2.String()+"/32")
	web.SetSysctl("ipv4/conf/all/arp_ignore", "0")
	eventually(t, "drift repaired", func() bool {
		_, there := everything(t, web)["lo "+vip2.String()+"/32"]
		return there && web.Sysctl("ipv4/conf/all/arp_ignore") == "1"
	})
	connection.Echo("five")

	m.Want([]pods.Pod{soon("web", vip1)})
	m.until(t, "the others gone", allComplete(1, vip1))
	connection.Echo("six")
	m.Want(nil)
	m.until(t, "the last gone", allComplete(0))
	eventually(t, "the state gone", func() bool { return empty(t, filepath.Join(m.dir, "pods")) })
	unchanged(t, "the pod is not as it was found", before, web)
	unchanged(t, "the other pod is not as it was found", beforeOther, other)
	if now, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/arp_ignore"); err != nil || string(now) != string(node) {
		t.Errorf("the node's own setting was %q and is %q, %v", node, now, err)
	}
}

func empty(t testing.TB, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) == 0
}

// deprecated checks that the IPv6 VIP is no source of the pod's own connections
// and was not looked for on the segment first.
func deprecated(t testing.TB, ns *netlab.NS) {
	t.Helper()
	addresses, err := ns.Links().AddrList(ns.Link("lo"), unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if !a.IP.Equal(vip6.AsSlice()) {
			continue
		}
		ones, _ := a.Mask.Size()
		if ones != 128 || a.Flags&unix.IFA_F_NODAD == 0 || a.PreferedLft != 0 || a.ValidLft != math.MaxUint32 {
			t.Errorf("the IPv6 VIP is %+v", a)
		}
		return
	}
	t.Error("the IPv6 VIP is not on lo")
}

func TestAPodDoesNotAnswerForItsVIPs(t *testing.T) {
	segment := netlab.NewSegment(t)
	client := segment.Host("192.0.2.10/24", "2001:db8::10/64")
	web := segment.Host("192.0.2.101/24", "2001:db8::101/64")
	m := newMachine(t, time.Second)
	m.runtime.run("web", web, own1)
	m.Want([]pods.Pod{soon("web", vip1, vip6)})
	m.until(t, "the VIPs", allComplete(1, vip1, vip6))
	for _, vip := range []netip.Addr{vip1, vip6} {
		if err := client.Silent(vip.String()); err != nil {
			t.Error(err)
		}
	}
	for _, own := range []string{"192.0.2.101", "2001:db8::101"} {
		if err := client.Ping(own); err != nil {
			t.Errorf("ping %s: %v", own, err)
		}
	}
}

func TestAnAgentThatStartsAgainAdoptsAndPutsBack(t *testing.T) {
	web := netlab.New(t)
	before := everything(t, web)
	m := newMachine(t, time.Second)
	m.runtime.run("web", web, own1)
	m.Want([]pods.Pod{soon("web", vip1, vip6)})
	m.until(t, "the VIPs", allComplete(1, vip1, vip6))
	m.stop()
	kept := everything(t, web)

	again := startMachine(t, m.dir, m.runtime, time.Second)
	again.Want([]pods.Pod{soon("web", vip1, vip6)})
	again.until(t, "the VIPs", allComplete(1, vip1, vip6))
	unchanged(t, "taking over changed the pod", kept, web)
	again.Want(nil)
	again.until(t, "the VIPs gone", allComplete(0))
	eventually(t, "the state gone", func() bool { return empty(t, filepath.Join(m.dir, "pods")) })
	unchanged(t, "the pod is not as it was found", before, web)
}

func TestANamespaceThatIsGoneHurtsNoOther(t *testing.T) {
	web := netlab.New(t)
	m := newMachine(t, time.Second)
	m.runtime.run("web", web, own1)
	m.runtime.sandboxes = append(m.runtime.sandboxes, podnetns.Sandbox{
		ID: "gone", PodUID: "gone", Ready: true, NetNS: filepath.Join(t.TempDir(), "cni-1"),
	}, podnetns.Sandbox{
		ID: "node", PodUID: "node", Ready: true, NetNS: "/proc/self/ns/net",
	})
	m.Want([]pods.Pod{soon("gone", vip1), soon("node", vip1), soon("web", vip1)})
	m.until(t, "problems and a VIP", func(reports []pods.Report) bool {
		return len(reports) == 3 && strings.Contains(reports[0].Problem, "no such file") && len(reports[0].VIPs) == 0 &&
			strings.Contains(reports[1].Problem, "the node's own") && len(reports[1].VIPs) == 0 && reports[2].Complete
	})
}

// A node that is full of pods: 110 is the kubelet's default, 250 a common maximum.
func BenchmarkAFullNode(b *testing.B) {
	const many = 250
	m := newMachine(b, time.Second)
	var list []pods.Pod
	for i := range many {
		id := fmt.Sprintf("pod%03d", i)
		m.runtime.run(id, netlab.New(b), own1)
		list = append(list, soon(id, vip1, vip6))
	}
	for b.Loop() {
		started, used := time.Now(), cpu(b)
		m.Want(list)
		m.until(b, "all complete", allComplete(many, vip1, vip6))
		b.ReportMetric(time.Since(started).Seconds(), "s/prepared")
		b.ReportMetric((cpu(b) - used).Seconds(), "cpu-s/prepared")
		started, used = time.Now(), cpu(b)
		threads := 0
		for time.Since(started) < 10*time.Second {
			tasks, err := os.ReadDir("/proc/self/task")
			if err != nil {
				b.Fatal(err)
			}
			threads = max(threads, len(tasks))
			<-time.After(10 * time.Millisecond)
		}
		checks := many * time.Since(started).Seconds()
		b.ReportMetric((cpu(b)-used).Seconds()/checks*1e6, "cpu-µs/check")
		b.ReportMetric(float64(threads), "threads")
		m.Want(nil)
		m.until(b, "all gone", allComplete(0))
	}
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
