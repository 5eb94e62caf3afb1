//go:build kernel

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
)

const (
	vip  = "192.168.11.200"
	vip6 = "2001:db8:11::200"
	// isSetUp is what the program logs then.
	isSetUp = "this host is a real server"
	// patient is long enough for an emulated machine.
	patient = 30 * time.Second
)

// asProgram makes this test binary the program that it tests.
const asProgram = "REALSERVER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// host is a host with eth0 and a state directory of its own.
type host struct {
	t   *testing.T
	ns  *netlab.NS
	dir string
}

func newHost(t *testing.T) host {
	return host{
		t: t, ns: netlab.NewSegment(t).Host("192.168.11.135/24"),
		dir: filepath.Join(t.TempDir(), "realserver"),
	}
}

// program is the program at work.
type program struct {
	t              *testing.T
	stdout, stderr output
	cmd            *exec.Cmd          // of a process
	stop           context.CancelFunc // in this process, as a signal does it
	exited         chan struct{}
	code           int
}

// output is what a process writes, to be read while it writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(data)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (h host) command(args string) []string {
	return append(strings.Fields(args), "--state-dir", h.dir)
}

// start runs the program in this process, which is cheap.
func (h host) start(args string) *program {
	p := &program{t: h.t, exited: make(chan struct{})}
	ctx, stop := context.WithCancel(h.t.Context())
	p.stop = stop
	go func() {
		defer close(p.exited)
		err := h.ns.Do(func() error {
			p.code = run(ctx, h.command(args), &p.stdout, &p.stderr)
			return nil
		})
		if err != nil {
			h.t.Error(err)
		}
	}()
	h.t.Cleanup(func() {
		stop()
		<-p.exited
	})
	return p
}

// startProcess runs the program as a process, which can be killed.
func (h host) startProcess(args string, change ...func(*exec.Cmd)) *program {
	h.t.Helper()
	p := &program{t: h.t, exited: make(chan struct{})}
	p.cmd = exec.Command("/proc/self/exe", h.command(args)...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	for _, fn := range change {
		fn(p.cmd)
	}
	// A child is in the namespace of the thread that makes it.
	if err := h.ns.Do(p.cmd.Start); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	h.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})
	return p
}

// end waits for the exit status.
func (p *program) end() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.code
	case <-time.After(patient):
		p.t.Fatalf("it does not end; it wrote %s%s", &p.stdout, &p.stderr)
		return -1
	}
}

// terminate ends the program as SIGTERM and SIGINT do.
func (p *program) terminate(t *testing.T) {
	t.Helper()
	p.stop()
	if code := p.end(); code != 0 {
		t.Errorf("exit %d; it wrote %s", code, &p.stderr)
	}
}

func (p *program) signal(s os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	return p.end()
}

// crash runs the program until the host is set up and kills it.
func (h host) crash(args string) {
	h.t.Helper()
	p := h.startProcess("run " + args)
	p.says(isSetUp)
	p.signal(syscall.SIGKILL)
}

// do runs the program to its end.
func (h host) do(args string, wantCode int) *program {
	h.t.Helper()
	p := h.start(args)
	if code := p.end(); code != wantCode {
		h.t.Fatalf("realserver %s: exit %d, want %d; it wrote %s%s", args, code, wantCode, &p.stdout, &p.stderr)
	}
	return p
}

// run starts the program and waits until the host is set up.
func (h host) run(args string) *program {
	h.t.Helper()
	p := h.start("run " + args)
	p.says(isSetUp)
	return p
}

// says waits until the program has logged something.
func (p *program) says(text string) {
	p.t.Helper()
	p.until("the log says "+text, func() bool { return strings.Contains(p.stderr.String(), text) })
}

// until waits for something that the process does.
func (p *program) until(what string, done func() bool) {
	p.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(patient)
	for !done() {
		select {
		case <-ticker.C:
		case <-p.exited:
			p.t.Fatalf("it ended before %s; it wrote %s%s", what, &p.stdout, &p.stderr)
		case <-limit:
			p.t.Fatalf("not so: %s; it wrote %s%s", what, &p.stdout, &p.stderr)
		}
	}
}

var sysctls = []string{
	"ipv4/conf/all/arp_announce", "ipv4/conf/all/arp_ignore", "ipv4/conf/lo/arp_announce", "ipv4/conf/lo/arp_ignore",
}

// snapshot is the sysctls and what is on lo.
func (h host) snapshot() []string {
	h.t.Helper()
	var lines []string
	for _, name := range sysctls {
		lines = append(lines, name+" "+h.ns.Sysctl(name))
	}
	addresses, err := h.ns.Links().AddrList(h.ns.Link("lo"), netlink.FAMILY_ALL)
	if err != nil {
		h.t.Fatal(err)
	}
	var onLo []string
	for _, a := range addresses {
		onLo = append(onLo, strings.TrimSpace(fmt.Sprintf("%s %s", a.IPNet, a.Label)))
	}
	slices.Sort(onLo)
	return append(lines, onLo...)
}

func (h host) holds(want []string) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.snapshot()); diff != "" {
		h.t.Fatalf("the host is not as it should be (-want +got):\n%s", diff)
	}
}

// serving is what is there when vip and vip6 are set up.
var serving = []string{
	"ipv4/conf/all/arp_announce 2", "ipv4/conf/all/arp_ignore 1", "ipv4/conf/lo/arp_announce 2", "ipv4/conf/lo/arp_ignore 1",
	"127.0.0.1/8 lo", vip + "/32 lo:0", vip6 + "/128", "::1/128",
}

const both = "--vip " + vip + " --vip " + vip6

func (h host) takeOff(addr string) {
	h.t.Helper()
	ip := netip.MustParseAddr(addr)
	address := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}}
	if err := h.ns.Links().AddrDel(h.ns.Link("lo"), address); err != nil {
		h.t.Fatal(err)
	}
}

func TestWhatWasFoundIsPutBack(t *testing.T) {
	tests := map[string]func(host){
		"at the end of run": func(h host) {
			h.run(both).terminate(h.t)
		},
		"after a crash and stop": func(h host) {
			h.crash(both)
			h.do("stop", 0)
		},
		"after a crash and another run": func(h host) {
			h.crash(both)
			h.run(both).terminate(h.t)
		},
		"after a crash, a crash of another run and stop": func(h host) {
			h.crash(both)
			h.crash("--vip " + vip)
			h.do("stop", 0)
		},
		"after run --once and stop": func(h host) {
			h.do("run --once "+both, 0)
			h.do("stop", 0)
			h.do("status", exitNotSo)
			h.do("stop", 0)
		},
		"when a sysctl was changed in between": func(h host) {
			p := h.run(both + " --check-interval 100ms")
			h.ns.SetSysctl("ipv4/conf/lo/arp_ignore", "0")
			h.ns.SetSysctl("ipv4/conf/all/arp_ignore", "0")
			p.until("the sysctls are repaired", func() bool {
				return h.ns.Sysctl("ipv4/conf/lo/arp_ignore") == "1" && h.ns.Sysctl("ipv4/conf/all/arp_ignore") == "1"
			})
			p.terminate(h.t)
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			// Values that are not the kernel's default, one of them kept as it is.
			h.ns.SetSysctl("ipv4/conf/all/arp_announce", "1")
			h.ns.SetSysctl("ipv4/conf/all/arp_ignore", "3")
			h.ns.SetSysctl("ipv4/conf/lo/arp_ignore", "2")
			before := h.snapshot()
			steps(h)
			h.holds(before)
		})
	}
}

func TestSignalsEndAProcess(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		h := newHost(t)
		before := h.snapshot()
		p := h.startProcess("run " + both)
		p.says(isSetUp)
		h.holds(serving)
		if code := p.signal(signal); code != 0 {
			t.Errorf("%v: exit %d; it wrote %s", signal, code, &p.stderr)
		}
		h.holds(before)
	}
}

func TestRunSetsUp(t *testing.T) {
	h := newHost(t)
	h.run(both)
	h.holds(serving)
	status := h.do("status", 0).stdout.String()
	for _, want := range []string{vip + " on lo:0", vip6 + " on lo\n", "net.ipv4.conf.all.arp_ignore = 1 (found 0)", fmt.Sprintf("process %d", os.Getpid())} {
		if !strings.Contains(status, want) {
			t.Errorf("status does not say %q: %s", want, status)
		}
	}
}

func TestRunAdoptsWhatACrashLeft(t *testing.T) {
	h := newHost(t)
	h.crash(both)
	h.holds(serving)
	if status := h.do("status", 0).stdout.String(); !strings.Contains(status, "No process keeps it so") {
		t.Errorf("status says %s", status)
	}
	p := h.run(both)
	h.holds(serving)
	if log := p.stderr.String(); strings.Contains(log, "found=") {
		t.Errorf("there was nothing to do: %s", log)
	}
}

func TestRunTakesOffAVIPThatIsNotNamedAnyMore(t *testing.T) {
	h := newHost(t)
	h.do("run --once "+both+" --vip 192.168.11.201", 0)
	h.run(both)
	h.holds(serving)
}

func TestRunRepairs(t *testing.T) {
	h := newHost(t)
	p := h.run(both + " --check-interval 100ms")
	for _, addr := range []string{vip, vip6} {
		h.takeOff(addr)
		p.says("msg=repaired what=" + addr)
	}
	for _, name := range sysctls {
		h.ns.SetSysctl(name, "0")
		p.says("msg=repaired what=net." + strings.ReplaceAll(name, "/", "."))
	}
	h.holds(serving)
}

func TestRunRepairsAnAddressLongBeforeTheNextCheck(t *testing.T) {
	h := newHost(t)
	p := h.run(both + " --check-interval 1h")
	h.takeOff(vip)
	p.says("msg=repaired what=" + vip)
	h.holds(serving)
}

func TestStatusSaysWhatIsWrong(t *testing.T) {
	h := newHost(t)
	h.do("run --once "+both, 0)
	h.takeOff(vip)
	if status := h.do("status", exitNotSo).stdout.String(); !strings.Contains(status, "wrong: "+vip+": not on lo") {
		t.Errorf("status says %s", status)
	}
	h.do("run --once "+both, 0)
	h.holds(serving)
	h.ns.SetSysctl("ipv4/conf/all/arp_announce", "0")
	if status := h.do("status", exitNotSo).stdout.String(); !strings.Contains(status, "wrong: net.ipv4.conf.all.arp_announce: 0") {
		t.Errorf("status says %s", status)
	}
}

func TestAVIPThatWasOnLoBeforeStays(t *testing.T) {
	h := newHost(t)
	h.ns.Address("lo", vip+"/32")
	before := h.snapshot()
	h.do("run --once "+both, 0)
	h.do("status", 0)
	h.do("stop", 0)
	h.holds(before)
}

func TestTheHostsOwnAddressIsRefused(t *testing.T) {
	h := newHost(t)
	before := h.snapshot()
	p := h.do("run --vip "+vip+" --vip 192.168.11.135", exitFailure)
	if got := p.stderr.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "192.168.11.135 is the host's own address on eth0") {
		t.Errorf("it says %s", got)
	}
	h.holds(before)
}

func TestOnlyOneRuns(t *testing.T) {
	h := newHost(t)
	h.run(both)
	for _, args := range []string{"run --vip 192.168.11.201", "run --once --vip 192.168.11.201", "stop"} {
		got := h.do(args, exitFailure).stderr.String()
		if strings.Count(got, "\n") != 1 || !strings.Contains(got, fmt.Sprintf("process %d", os.Getpid())) {
			t.Errorf("%s says %s", args, got)
		}
	}
	h.holds(serving)
}

func TestWithoutTheRightNothingIsTried(t *testing.T) {
	h := newHost(t)
	nobody := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	for _, args := range []string{"run " + both, "stop"} {
		p := h.startProcess(args, nobody)
		if code := p.end(); code != exitFailure || strings.Count(p.stderr.String(), "\n") != 1 || !strings.Contains(p.stderr.String(), "NET_ADMIN") {
			t.Errorf("%s: exit %d, %s", args, code, &p.stderr)
		}
	}
	if _, err := os.Stat(h.dir); !os.IsNotExist(err) {
		t.Errorf("the state directory was made: %v", err)
	}
}
