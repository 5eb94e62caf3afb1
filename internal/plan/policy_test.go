package plan

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func quorumOf(minimum intstr.IntOrString, hysteresis int32) func(*v1alpha1.VirtualServerSpec) {
	return func(s *v1alpha1.VirtualServerSpec) {
		s.Quorum = &v1alpha1.Quorum{MinimumWeight: minimum, Hysteresis: hysteresis}
	}
}

func slowStart(duration time.Duration) func(*v1alpha1.VirtualServerSpec) {
	return func(s *v1alpha1.VirtualServerSpec) {
		s.SlowStart = &v1alpha1.SlowStart{Duration: metav1.Duration{Duration: duration}}
	}
}

func drainFor(timeout *metav1.Duration) func(*v1alpha1.VirtualServerSpec) {
	return func(s *v1alpha1.VirtualServerSpec) { s.Drain = &v1alpha1.Drain{Timeout: timeout} }
}

func sorryAt(address v1alpha1.IPAddress) func(*v1alpha1.VirtualServerSpec) {
	return func(s *v1alpha1.VirtualServerSpec) { s.SorryServer = &v1alpha1.SorryServer{Address: address} }
}

// TestForPolicies is of the classic pair, whose weights are 1 and 2.
func TestForPolicies(t *testing.T) {
	weighing := func(weights ...int32) func(*v1alpha1.VirtualServerSpec) {
		return func(s *v1alpha1.VirtualServerSpec) {
			for i := range weights {
				s.RealServers[i].Weight = &weights[i]
			}
		}
	}
	usual := Policy{DrainTimeout: 30 * time.Second, Scale: 1, Quorum: 1}
	with := func(change func(*Policy)) Policy {
		policy := usual
		change(&policy)
		return policy
	}
	for name, tc := range map[string]struct {
		changes []func(*v1alpha1.VirtualServerSpec)
		want    Policy
		// wantWeights in the state.
		wantWeights []uint32
	}{
		"nothing said": {want: usual, wantWeights: []uint32{1, 2}},
		"Remove":       {changes: []func(*v1alpha1.VirtualServerSpec){func(s *v1alpha1.VirtualServerSpec) { s.OnFailure = "Remove" }}, want: usual, wantWeights: []uint32{1, 2}},
		"Quiesce": {
			changes: []func(*v1alpha1.VirtualServerSpec){func(s *v1alpha1.VirtualServerSpec) { s.OnFailure = "Quiesce" }},
			want:    with(func(p *Policy) { p.Quiesce = true }), wantWeights: []uint32{1, 2},
		},
		"drain without a timeout": {changes: []func(*v1alpha1.VirtualServerSpec){drainFor(nil)}, want: usual, wantWeights: []uint32{1, 2}},
		"drain for no time": {
			changes: []func(*v1alpha1.VirtualServerSpec){drainFor(&metav1.Duration{})},
			want:    with(func(p *Policy) { p.DrainTimeout = 0 }), wantWeights: []uint32{1, 2},
		},
		"drain for a day": {
			changes: []func(*v1alpha1.VirtualServerSpec){drainFor(&metav1.Duration{Duration: 24 * time.Hour})},
			want:    with(func(p *Policy) { p.DrainTimeout = 24 * time.Hour }), wantWeights: []uint32{1, 2},
		},
		"slow start has weights times 100": {
			changes: []func(*v1alpha1.VirtualServerSpec){slowStart(time.Minute)},
			want:    with(func(p *Policy) { p.SlowStart, p.Scale, p.Quorum = time.Minute, 100, 100 }), wantWeights: []uint32{100, 200},
		},
		"slow start of no time is none": {changes: []func(*v1alpha1.VirtualServerSpec){slowStart(0)}, want: usual, wantWeights: []uint32{1, 2}},
		"slow start of weights that are large": {
			changes: []func(*v1alpha1.VirtualServerSpec){slowStart(time.Minute), weighing(1000, 3)},
			want:    with(func(p *Policy) { p.SlowStart, p.Scale, p.Quorum = time.Minute, 65, 65 }), wantWeights: []uint32{65000, 195},
		},
		"slow start of weights that have no room": {
			changes: []func(*v1alpha1.VirtualServerSpec){slowStart(time.Minute), weighing(65535, 3)},
			want:    with(func(p *Policy) { p.SlowStart = time.Minute }), wantWeights: []uint32{65535, 3},
		},
		"slow start of weights 0": {
			changes: []func(*v1alpha1.VirtualServerSpec){slowStart(time.Minute), weighing(0, 0)},
			want:    with(func(p *Policy) { p.SlowStart, p.Scale, p.Quorum = time.Minute, 100, 100 }), wantWeights: []uint32{0, 0},
		},
		"a quorum": {
			changes: []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.FromInt32(3), 2)},
			want:    with(func(p *Policy) { p.Quorum, p.Hysteresis = 3, 2 }), wantWeights: []uint32{1, 2},
		},
		"a quorum left out": {changes: []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.IntOrString{}, 0)}, want: usual, wantWeights: []uint32{1, 2}},
		"a quorum under slow start": {
			changes: []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.FromInt32(3), 2), slowStart(time.Minute)},
			want: with(func(p *Policy) {
				p.Quorum, p.Hysteresis, p.SlowStart, p.Scale = 300, 200, time.Minute, 100
			}), wantWeights: []uint32{100, 200},
		},
		"a share is rounded up": {
			changes:     []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.FromString("50%"), 1)},
			want:        with(func(p *Policy) { p.Quorum, p.Hysteresis = 2, 1 }),
			wantWeights: []uint32{1, 2},
		},
		"all of it": {
			changes: []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.FromString("100%"), 0)},
			want:    with(func(p *Policy) { p.Quorum = 3 }), wantWeights: []uint32{1, 2},
		},
		"a share of nothing is 1, and hysteresis stays below it": {
			changes: []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.FromString("50%"), 7), weighing(0, 0)},
			want:    usual, wantWeights: []uint32{0, 0},
		},
		"a share under slow start": {
			changes: []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.FromString("50%"), 1), slowStart(time.Minute)},
			want: with(func(p *Policy) {
				p.Quorum, p.Hysteresis, p.SlowStart, p.Scale = 150, 100, time.Minute, 100
			}), wantWeights: []uint32{100, 200},
		},
		"what is drained has no share": {
			changes: []func(*v1alpha1.VirtualServerSpec){quorumOf(intstr.FromString("100%"), 0), func(s *v1alpha1.VirtualServerSpec) {
				s.RealServers[1].State = v1alpha1.RealServerDrained
			}},
			want: usual, wantWeights: []uint32{1, 0},
		},
		"a sorry server": {
			changes: []func(*v1alpha1.VirtualServerSpec){sorryAt("192.168.11.150")},
			want:    with(func(p *Policy) { p.Sorry = netip.MustParseAddr("192.168.11.150") }), wantWeights: []uint32{1, 2},
		},
		"a sorry server of the other family": {changes: []func(*v1alpha1.VirtualServerSpec){sorryAt("fd00:11::150")}, want: usual, wantWeights: []uint32{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			vs := makeServer("shop", "web", 0)
			for _, change := range tc.changes {
				vs.spec(change)
			}
			desired := mustPlan(t, testSnapshot("192.168.11.200", vs.obj()))
			if diff := cmp.Diff(tc.want, desired.Policies[testWeb], byValue...); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
			got := []uint32{desired.State.Destinations[testWeb1].Weight, desired.State.Destinations[testWeb2].Weight}
			if diff := cmp.Diff(tc.wantWeights, got); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForRejectsPolicies(t *testing.T) {
	for name, tc := range map[string]struct {
		change      func(*v1alpha1.VirtualServerSpec)
		wantReason  string
		wantMessage string
	}{
		"an unknown onFailure":          {change: func(s *v1alpha1.VirtualServerSpec) { s.OnFailure = "Panic" }, wantMessage: "Panic"},
		"a negative drain":              {change: drainFor(&metav1.Duration{Duration: -1})},
		"a drain that is too long":      {change: drainFor(&metav1.Duration{Duration: 25 * time.Hour}), wantMessage: "25h"},
		"a negative slow start":         {change: slowStart(-1)},
		"a slow start that is too long": {change: slowStart(2 * time.Hour)},
		"a slow start with fo": {
			change: func(s *v1alpha1.VirtualServerSpec) {
				slowStart(time.Minute)(s)
				s.Scheduler = "fo"
			}, wantMessage: "scheduler fo",
		},
		"a slow start with ovf": {
			change: func(s *v1alpha1.VirtualServerSpec) {
				slowStart(time.Minute)(s)
				s.Scheduler = "ovf"
			}, wantMessage: "scheduler ovf",
		},
		"a negative quorum":           {change: quorumOf(intstr.FromInt32(-1), 0)},
		"a quorum that is too large":  {change: quorumOf(intstr.FromInt32(16777216), 0)},
		"a share of more than all":    {change: quorumOf(intstr.FromString("101%"), 0), wantMessage: "101%"},
		"a share of nothing":          {change: quorumOf(intstr.FromString("0%"), 0)},
		"a number as text":            {change: quorumOf(intstr.FromString("3"), 0)},
		"an empty share":              {change: quorumOf(intstr.FromString(""), 0)},
		"a share with a sign":         {change: quorumOf(intstr.FromString("+5%"), 0)},
		"a negative hysteresis":       {change: quorumOf(intstr.FromInt32(3), -1)},
		"a quorum that is never lost": {change: quorumOf(intstr.FromInt32(3), 3), wantMessage: "could never be lost"},
		"a sorry server that is none": {change: sorryAt("sorry"), wantMessage: "sorry server"},
		"a sorry server that is a real server": {
			change: sorryAt("192.168.11.135"), wantMessage: "sorry server 192.168.11.135 is one of the real servers",
		},
		"a sorry server outside the allowed": {
			change: sorryAt("10.0.0.1"), wantReason: "RealServerNotAllowed",
			wantMessage: `does not allow sorry server 10.0.0.1 to namespace shop`,
		},
		"the VIP as sorry server": {
			change: sorryAt("192.168.11.200"), wantReason: "RealServerNotAllowed", wantMessage: "sorry server 192.168.11.200 is a VIP",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, rejections := For(testSnapshot("192.168.11.200", makeServer("shop", "web", 0).spec(tc.change).obj()))
			if tc.wantReason == "" {
				tc.wantReason = v1alpha1.ReasonInvalid
			}
			if len(rejections) != 1 || rejections[0].Reason != tc.wantReason || !strings.Contains(rejections[0].Message, tc.wantMessage) {
				t.Errorf("rejections = %+v, want %s with %q", rejections, tc.wantReason, tc.wantMessage)
			}
		})
	}
}

func TestForSorryServerThatIsNotAdjacent(t *testing.T) {
	s := testSnapshot("192.168.11.200", makeServer("shop", "web", 0).spec(sorryAt("10.244.1.1")).obj())
	s.Pool.Spec.Allow[0].RealServers = append(s.Pool.Spec.Allow[0].RealServers, "10.244.0.0/16")
	s.Reach = routed
	policy := mustPlan(t, s).Policies[testWeb]
	if policy.Sorry.IsValid() || !strings.HasPrefix(policy.SorryProblem, "NotAdjacent: 10.244.1.1 is reached by gateway 192.168.11.31") {
		t.Errorf("sorry server %s, problem %q, want none and NotAdjacent", policy.Sorry, policy.SorryProblem)
	}
}
