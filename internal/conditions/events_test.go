package conditions

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

func TestEventsTellOfChanges(t *testing.T) {
	status := func(first, second health.Report, change func(*scene)) v1alpha1.VirtualServerStatus {
		s := scene{vs: web(), verdicts: map[string]health.Report{"192.168.11.135:80": first, "192.168.11.138:80": second}}
		if change != nil {
			change(&s)
		}
		return VirtualServer(s.outcome())
	}
	refused := func(s *scene) { s.refusal = &plan.Rejection{Reason: "Conflict", Message: "shop/old is older"} }
	failing := func(s *scene) {
		s.address = func(a *Address) {
			a.Programmed, a.Failure = false, Failure{"IPVSUnavailable", "the kernel has no IPVS"}
		}
	}
	nobody := func(s *scene) { s.address = func(a *Address) { *a = Address{} } }
	moved := func(s *scene) { s.address = func(a *Address) { a.Director = "node-b" } }
	drained := func(s *scene) { s.vs.Spec.RealServers[0].State, s.vs.Spec.RealServers[1].State = "Drained", "Drained" }
	fewer := func(s *scene) { s.vs.Spec.RealServers = s.vs.Spec.RealServers[1:] }
	for name, tc := range map[string]struct {
		old, wanted v1alpha1.VirtualServerStatus
		want        []Event
	}{
		"nothing": {old: status(up(), down(), nil), wanted: status(up(), down(), nil)},
		"the first status": {wanted: status(up(), up(), nil), want: []Event{
			{Normal, "Accepted", "the spec can be served"},
			{Normal, "Programmed", "every address is announced, by node-a"},
			{Normal, "Ready", "2 of 2 real servers get new connections"},
		}},
		"the first status before anything was done": {wanted: status(up(), up(), nobody), want: []Event{
			{Normal, "Accepted", "the spec can be served"},
		}},
		"a refusal is told of once, not once for each condition": {wanted: status(up(), up(), refused), want: []Event{
			{Warning, "Conflict", "shop/old is older"},
		}},
		"the kernel fails": {old: status(up(), up(), nil), wanted: status(up(), up(), failing), want: []Event{
			{Warning, "IPVSUnavailable", "192.168.11.200: the kernel has no IPVS"},
		}},
		"one goes down": {old: status(up(), up(), nil), wanted: status(down(), up(), nil), want: []Event{
			{Warning, "RealServersDown", "1 of 2 real servers down: 192.168.11.135"},
		}},
		"all go down": {old: status(up(), up(), nil), wanted: status(down(), down(), nil), want: []Event{
			{Warning, "RealServersDown", "2 of 2 real servers down: 192.168.11.135, 192.168.11.138"},
		}},
		"the cause of a failure changes": {old: status(up(), down(), nil), wanted: status(up(), downBy("timed out"), nil)},
		"one comes back": {old: status(down(), down(), nil), wanted: status(up(), down(), nil), want: []Event{
			{Normal, "RealServersUp", "no longer down: 192.168.11.135; 1 of 2 real servers down: 192.168.11.138"},
		}},
		"one that was down is removed": {old: status(down(), up(), nil), wanted: status(down(), up(), fewer), want: []Event{
			{Normal, "RealServersUp", "no longer down: 192.168.11.135"},
		}},
		"one goes down as another comes back": {old: status(down(), up(), nil), wanted: status(up(), down(), nil), want: []Event{
			{Warning, "RealServersDown", "1 of 2 real servers down: 192.168.11.138"},
		}},
		"all are drained": {old: status(up(), up(), nil), wanted: status(up(), up(), drained), want: []Event{
			{Warning, "NoRealServers", "192.168.11.200:80/TCP has no real server that is enabled and of a weight above 0"},
		}},
		"another director": {old: status(up(), up(), nil), wanted: status(up(), up(), moved), want: []Event{
			{Normal, "DirectorChanged", "announced by another director: 192.168.11.200: node-b, before node-a"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Events(tc.old, tc.wanted)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventsOfQuorumsAndPods(t *testing.T) {
	policy := plan.Policy{Scale: 1, Quorum: 2, Sorry: netip.MustParseAddr("192.168.11.150")}
	status := func(lost bool, members ...member) v1alpha1.VirtualServerStatus {
		f := newFarm(pods("192.168.11.200"))
		key := f.serve("192.168.11.200", 80, policy, members...)
		if lost {
			f.lose(key)
		}
		return VirtualServer(f.out)
	}
	pod := func(name string, verdict health.Verdict) member {
		return member{addr: "10.244.0." + name, pod: "web-" + name, weight: 1, verdict: verdict}
	}
	host := func(verdict health.Verdict) member {
		return member{addr: "192.168.11.135", weight: 1, verdict: verdict}
	}
	unready := func(name string) member {
		m := pod(name, health.Up)
		m.unready = "not ready"
		return m
	}
	unprepared := func(name string) member {
		m := pod(name, health.Unknown)
		m.reason = "NotPrepared"
		return m
	}
	up, down := health.Up, health.Down
	for name, tc := range map[string]struct {
		old, wanted v1alpha1.VirtualServerStatus
		want        []Event
	}{
		"the quorum is lost": {
			old: status(false, pod("1", up), pod("2", up)), wanted: status(true, pod("1", up), pod("2", down)),
			want: []Event{
				{Warning, "RealServersDown", "1 of 2 real servers down: 10.244.0.2 (web-2)"},
				{Warning, "QuorumLost", "192.168.11.200:80/TCP: weight 1 of 2 is up, the quorum is 2; the sorry server 192.168.11.150 answers"},
			},
		},
		"the quorum is lost by weights alone": {
			old: status(false, pod("1", up), pod("2", up)), wanted: status(true, pod("1", up)),
			want: []Event{{Warning, "QuorumLost", "192.168.11.200:80/TCP: weight 1 of 1 is up, the quorum is 2; the sorry server 192.168.11.150 answers"}},
		},
		"it stays lost": {old: status(true, pod("1", up), pod("2", down)), wanted: status(true, pod("1", up), pod("2", down), pod("3", health.Unknown))},
		"the quorum is regained": {
			old: status(true, pod("1", up), pod("2", down)), wanted: status(false, pod("1", up), pod("2", up)),
			want: []Event{{Normal, "QuorumRegained", "the quorum is there again: 2 of 2 real servers get new connections"}},
		},
		"the quorum is regained by a host": {
			old: status(true, pod("1", up), host(down)), wanted: status(false, pod("1", up), host(up)),
			want: []Event{
				{Normal, "RealServersUp", "no longer down: 192.168.11.135"},
				{Normal, "QuorumRegained", "the quorum is there again: 2 of 2 real servers get new connections"},
			},
		},
		"a pod comes up as all do": {old: status(false, pod("1", up), unready("2")), wanted: status(false, pod("1", up), pod("2", up))},
		"a new pod is not ready":   {old: status(false, pod("1", up)), wanted: status(false, pod("1", up), unready("2"))},
		"a new pod is prepared":    {old: status(false, pod("1", up), unprepared("2")), wanted: status(false, pod("1", up), unready("2"))},
		"a new pod's check fails":  {old: status(false, pod("1", up), unready("2")), wanted: status(false, pod("1", up), pod("2", down))},
		"a pod that was up": {
			old: status(false, pod("1", up), pod("2", up)), wanted: status(false, pod("1", up), unready("2")),
			want: []Event{{Warning, "RealServersDown", "1 of 2 real servers down: 10.244.0.2 (web-2)"}},
		},
		"the first pods are on their way": {
			old: status(false), wanted: status(false, unprepared("1")),
			want: []Event{{Warning, "NotPrepared", "every real server of 192.168.11.200:80/TCP is left out; 10.244.0.1: NotPrepared"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Events(tc.old, tc.wanted)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEventsKnowThatAStatusHoldsOnlySome: what comes into sight was down before.
func TestEventsKnowThatAStatusHoldsOnlySome(t *testing.T) {
	status := func(up, down int) v1alpha1.VirtualServerStatus {
		f := newFarm(pods("192.168.11.200"))
		var members []member
		for i := range 200 {
			m := member{addr: fmt.Sprintf("10.244.0.%d", i+1), weight: 1, verdict: health.Up}
			if i >= up && i < down {
				m.verdict = health.Down
			}
			members = append(members, m)
		}
		f.serve("192.168.11.200", 80, plan.Policy{}, members...)
		return VirtualServer(f.out)
	}
	for name, tc := range map[string]struct {
		old, wanted v1alpha1.VirtualServerStatus
		want        []Event
	}{
		"one of a hundred recovers":     {old: status(0, 100), wanted: status(1, 100)},
		"one more than a hundred fails": {old: status(1, 100), wanted: status(0, 100)},
		"more than are shown fail":      {old: status(0, 1), wanted: status(0, 100), want: []Event{{Warning, "RealServersDown", "at least 64 of 200 real servers down: 10.244.0.1, 10.244.0.2, 10.244.0.3, 10.244.0.4, 10.244.0.5 and 59 more"}}},
		"more than are shown come back": {old: status(0, 100), wanted: status(0, 63), want: []Event{{Normal, "RealServersUp", "no longer down: 10.244.0.64; 63 of 200 real servers down: 10.244.0.1, 10.244.0.2, 10.244.0.3, 10.244.0.4, 10.244.0.5 and 58 more"}}},
		"one that was up, out of sight": {old: status(0, 1), wanted: status(198, 200), want: []Event{{Warning, "RealServersDown", "2 of 200 real servers down: 10.244.0.199, 10.244.0.200"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Events(tc.old, tc.wanted)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventsFitTheirBounds(t *testing.T) {
	var down []string
	for range 10 {
		down = append(down, strings.Repeat("p", 300))
	}
	if got := RealServersDown(down, 10).Message; len(got) > 1024 {
		t.Errorf("%d bytes", len(got))
	}
	if got := RealServersUp(down, down, 10).Message; len(got) > 1024 {
		t.Errorf("%d bytes", len(got))
	}
	if got := QuorumRegained(metav1.Condition{Message: strings.Repeat("m", 2000)}).Message; len(got) > 1024 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestEventsNameAFewAndCountTheRest(t *testing.T) {
	got := RealServersDown([]string{"a", "b", "c", "d", "e", "f", "g"}, 10)
	if want := "7 of 10 real servers down: a, b, c, d, e and 2 more"; got.Message != want {
		t.Errorf("message = %q, want %q", got.Message, want)
	}
}
