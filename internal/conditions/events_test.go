package conditions

import (
	"testing"

	"github.com/google/go-cmp/cmp"

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

func TestEventsNameAFewAndCountTheRest(t *testing.T) {
	got := RealServersDown([]string{"a", "b", "c", "d", "e", "f", "g"}, 10)
	if want := "7 of 10 real servers down: a, b, c, d, e and 2 more"; got.Message != want {
		t.Errorf("message = %q, want %q", got.Message, want)
	}
}
