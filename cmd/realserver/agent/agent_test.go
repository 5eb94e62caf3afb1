package agent

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/event"

	controller "github.com/lvs-operator/lvs-operator/controllers/realserver"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

func TestMisuseIsNamedInOneLine(t *testing.T) {
	tests := map[string]struct{ args, want string }{
		"an argument":           {"now", `"now"`},
		"a flag of run":         {"--vip 192.0.2.1", "--vip"},
		"no name of a node":     {"--node-name Node_A", "--node-name"},
		"relative socket":       {"--node-name a --cri-socket containerd.sock", "--cri-socket"},
		"relative state-dir":    {"--node-name a --state-dir run", "--state-dir"},
		"relative proc-sys-net": {"--node-name a --proc-sys-net net", "--proc-sys-net"},
		"no port":               {"--node-name a --health-bind-address 127.0.0.1", "--health-bind-address"},
		"no address":            {"--node-name a --metrics-bind-address here:1", "--metrics-bind-address"},
		"log level":             {"--node-name a --log-level loud", "--log-level"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(t.Context(), strings.Fields(tc.args), &stdout, &stderr)
			got := stderr.String()
			if code != 2 || strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "realserver agent: ") || !strings.Contains(got, tc.want) || stdout.Len() > 0 {
				t.Errorf("exit %d, stderr %q, stdout %q", code, got, stdout.String())
			}
		})
	}
}

func TestHelpHelps(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"--help"}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("exit %d, stderr %q", code, stderr.String())
	}
	for _, word := range []string{"--node-name", "--cri-socket", "/run/containerd/containerd.sock", "/run/crio/crio.sock", "--health-bind-address", "--state-dir"} {
		if !strings.Contains(stdout.String(), word) {
			t.Errorf("it does not say %q", word)
		}
	}
}

func TestTheFirstSocketThatExistsIsTaken(t *testing.T) {
	dir := t.TempDir()
	file, first, second := filepath.Join(dir, "file"), filepath.Join(dir, "first"), filepath.Join(dir, "second")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := socket("", []string{file, first}); err == nil || !strings.Contains(err.Error(), first) {
		t.Errorf("socket = %q, %v; want an error that names %s", got, err, first)
	}
	listener, err := net.Listen("unix", second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if got, err := socket("", []string{file, first, second}); got != second || err != nil {
		t.Errorf("socket = %q, %v; want %s", got, err, second)
	}
	if got, err := socket("/other", []string{second}); got != "/other" || err != nil {
		t.Errorf("socket = %q, %v; want the one that was asked for", got, err)
	}
}

// told is an agent that notes what it is told.
type told struct {
	wanted  []pods.Pod
	reports []pods.Report
	err     error
}

func (a *told) Want(wanted []pods.Pod)          { a.wanted = wanted }
func (a *told) Reports() ([]pods.Report, error) { return a.reports, a.err }

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestNothingIsLostBetweenAgentAndController(t *testing.T) {
	vip := netip.MustParseAddr("192.0.2.1")
	a := &told{
		reports: []pods.Report{{
			UID: "u", Namespace: "n", Name: "p", Sandbox: "s", PodAddresses: []netip.Addr{vip.Next()}, VIPs: []netip.Addr{vip}, Problem: "why", Complete: true,
		}},
		err: errors.New("away"),
	}
	adapter{a}.Want([]controller.Pod{{UID: "u", Namespace: "n", Name: "p", HostNetwork: true, VIPs: []controller.VIP{{Addr: vip, Linger: time.Minute}}}})
	wantPods := []pods.Pod{{UID: "u", Namespace: "n", Name: "p", HostNetwork: true, VIPs: []pods.VIP{{Addr: vip, Linger: time.Minute}}}}
	if diff := cmp.Diff(wantPods, a.wanted, sameAddr); diff != "" {
		t.Errorf("wanted (-want +got):\n%s", diff)
	}
	got, err := adapter{a}.Reports()
	wantReports := []controller.Report{{
		UID: "u", Namespace: "n", Name: "p", Sandbox: "s", PodAddresses: []netip.Addr{vip.Next()}, VIPs: []netip.Addr{vip}, Problem: "why",
	}}
	if diff := cmp.Diff(wantReports, got, sameAddr); diff != "" || !errors.Is(err, a.err) {
		t.Errorf("reports (-want +got):\n%s\nerror %v", diff, err)
	}
}

func TestReadyNeedsTheCachesAndTheContainerRuntime(t *testing.T) {
	a := &told{err: errors.New("away")}
	c := &cluster{agent: a}
	if err := c.ready(); err == nil || errors.Is(err, a.err) {
		t.Errorf("ready before anything was handed over: %v", err)
	}
	c.handedOver.Store(true)
	if err := c.ready(); !errors.Is(err, a.err) {
		t.Errorf("ready without the container runtime: %v", err)
	}
	if err := c.alive(); err != nil {
		t.Errorf("not alive without the container runtime: %v", err)
	}
	a.err = nil
	if err := c.ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

func TestNewsNeverWaitAndAreNotLost(t *testing.T) {
	n := newNews()
	for range 100 {
		n.tell()
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan event.GenericEvent), make(chan struct{})
	go func() { n.forward(ctx, events); close(ended) }()
	<-events
	n.tell()
	<-events
	cancel()
	<-ended
}
