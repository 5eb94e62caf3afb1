package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/director"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// nodeKernel is a kernel that nobody looks at.
type nodeKernel struct{ director.NodeKernel }

func TestHealthEndpoints(t *testing.T) {
	idle := director.New(director.Config{Kernel: nodeKernel{}})
	joined := director.New(director.Config{Kernel: nodeKernel{}, Changed: func(netstate.Key) {}, SiteChanged: func() {}})
	joined.Join(director.Pool{Name: "default"})
	for name, tc := range map[string]struct {
		director *director.Director
		method   string
		path     string
		want     int
		wantBody string
	}{
		"alive":                    {idle, http.MethodGet, "/healthz", http.StatusOK, "ok"},
		"not ready before a pool":  {idle, http.MethodGet, "/readyz", http.StatusServiceUnavailable, "DirectorPool"},
		"not ready before a look":  {joined, http.MethodGet, "/readyz", http.StatusServiceUnavailable, "not been prepared"},
		"alive before a look":      {joined, http.MethodGet, "/healthz", http.StatusOK, "ok"},
		"another path":             {idle, http.MethodGet, "/", http.StatusNotFound, ""},
		"something to be written?": {idle, http.MethodPost, "/healthz", http.StatusMethodNotAllowed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			healthHandler(tc.director).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, nil))
			if recorder.Code != tc.want || !strings.Contains(recorder.Body.String(), tc.wantBody) {
				t.Errorf("%d %q", recorder.Code, recorder.Body.String())
			}
		})
	}
}

func TestFailuresHaveTheReasonsOfTheAPI(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"none":          {nil, ""},
		"not known yet": {director.ErrPending, ""},
		"not confirmed": {director.ErrUnconfirmed, ""},
		"no IPVS":       {fmt.Errorf("preparing the node: %w", kernel.ErrNoIPVS), v1alpha1.ReasonIPVSUnavailable},
		"no scheduler":  {fmt.Errorf("adding: %w", kernel.SchedulerUnavailable{Name: "mh"}), v1alpha1.ReasonSchedulerUnavailable},
		"kube-proxy":    {director.ErrKubeProxyIPVS, v1alpha1.ReasonKubeProxyIPVS},
		"anything else": {errors.New("no space left"), v1alpha1.ReasonKernelError},
	} {
		t.Run(name, func(t *testing.T) {
			got := failureOf(tc.err)
			if got.Reason != tc.want || (got == conditions.Failure{}) != (tc.want == "") {
				t.Errorf("failure = %+v", got)
			}
		})
	}
	lacking := lackingOf([]director.Failure{
		{Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.1")}, Err: errors.New("no space left")},
		{Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.2")}, Err: kernel.SchedulerUnavailable{Name: "mh"}},
	})
	want := conditions.Failure{Reason: v1alpha1.ReasonSchedulerUnavailable, Message: `192.0.2.2: the kernel has no scheduler "mh" (module ip_vs_mh)`}
	if diff := cmp.Diff(want, lacking); diff != "" {
		t.Errorf("lacking (-want +got):\n%s", diff)
	}
}

func TestWhatTheKernelRefusesIsCountedAndNamed(t *testing.T) {
	want := conditions.Failure{Reason: v1alpha1.ReasonKernelError, Message: "2 VIPs; 192.0.2.1: no space left"}
	got := refusedOf([]director.Failure{
		{Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.1")}, Err: errors.New("no space left")},
		{Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.2")}, Err: kernel.SchedulerUnavailable{Name: "mh"}},
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if none := refusedOf(nil); none != (conditions.Failure{}) {
		t.Errorf("refused = %+v, want none", none)
	}
}

func TestARoleThatIsPendingIsNotReported(t *testing.T) {
	for _, pending := range []bool{true, false} {
		if got := outcomeOf(director.Status{RolePending: pending}).RolePending; got != pending {
			t.Errorf("pending: %t, want %t", got, pending)
		}
	}
}

func TestNewsAreNeverLostAndComeOnce(t *testing.T) {
	n := newNews()
	for range 3 {
		for i := range 10000 {
			n.add(netstate.Key{Mark: uint32(i)})
		}
	}
	taken := map[netstate.Key]int{}
	for range 20000 {
		select {
		case <-n.wake:
			if key, any := n.take(); any {
				taken[key]++
			}
		default:
			if len(taken) != 10000 {
				t.Errorf("%d of 10000 taken", len(taken))
			}
			return
		}
	}
	t.Error("there is no end of it")
}

func TestAddressesOfTheAPIServer(t *testing.T) {
	want := []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.1")}
	got := addressesOf("https://10.96.0.1:443", "https://[fd00::1]:6443", "10.0.0.1", "https://api.example:6443", "")
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}
