package conditions

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

func TestReadySaysWhatIsWrong(t *testing.T) {
	const service = "192.168.11.200:80/TCP"
	up := func(addr string, weight uint32) member { return member{addr: addr, weight: weight, verdict: health.Up} }
	down := func(addr string) member { return member{addr: addr, weight: 1, verdict: health.Down} }
	out := func(addr, reason, message string) member {
		return member{addr: addr, weight: 1, reason: reason, message: message}
	}
	sorry := plan.Policy{Scale: 1, Quorum: 2, Sorry: netip.MustParseAddr("192.168.11.150")}
	for name, tc := range map[string]struct {
		source  func(*v1alpha1.VirtualServerSpec)
		policy  plan.Policy
		members []member
		lost    bool
		late    bool // the sorry server is not in the kernel yet
		want    string
		message string
	}{
		"a selector that selects nothing": {
			want: "False NoRealServers", message: service + " has no real server: podSelector selects no pod with an IPv4 address",
		},
		"a Service without endpoints": {
			source: func(s *v1alpha1.VirtualServerSpec) { s.PodSelector, s.ServiceName = nil, "web" },
			want:   "False NoRealServers", message: service + " has no real server: Service web has no endpoints with an IPv4 address",
		},
		"both": {
			source: func(s *v1alpha1.VirtualServerSpec) { s.ServiceName = "web" },
			want:   "False NoRealServers",
			message: service + " has no real server: podSelector selects no pod with an IPv4 address, " +
				"Service web has no endpoints with an IPv4 address",
		},
		"an empty list": {
			source: func(s *v1alpha1.VirtualServerSpec) { s.PodSelector = nil },
			want:   "False NoRealServers", message: service + " has no real server: realServers is empty",
		},
		"all are being deleted": {
			members: []member{{addr: "10.0.0.1", weight: 1, state: "Disabled", draining: true}},
			want:    "False NoRealServers", message: service + " has no real server that is enabled and of a weight above 0",
		},
		"none is prepared": {
			members: []member{out("10.0.0.2", "NotPrepared", "no agent on node b"), out("10.0.0.1", "NotPrepared", "no agent on node a")},
			want:    "False NotPrepared", message: "every real server of " + service + " is left out; 10.0.0.1: no agent on node a",
		},
		"none is adjacent": {
			members: []member{out("10.0.0.1", "NotAdjacent", "behind 10.1.1.1")},
			want:    "False NotAdjacent", message: "every real server of " + service + " is left out; 10.0.0.1: behind 10.1.1.1",
		},
		"another port": {
			members: []member{out("10.0.0.1", "ServicePortMismatch", "")},
			want:    "False ServicePortMismatch", message: "every real server of " + service + " is left out; 10.0.0.1: ServicePortMismatch",
		},
		"left out and drained": {
			members: []member{{addr: "10.0.0.1", weight: 1, state: "Drained", reason: "NotPrepared"}},
			want:    "False NoRealServers", message: service + " has no real server that is enabled and of a weight above 0",
		},
		"for different reasons": {
			members: []member{out("10.0.0.1", "NotPrepared", "waits"), down("10.0.0.2"), out("10.0.0.3", "NotAdjacent", "")},
			want:    "False AllRealServersDown",
			message: "every real server of " + service + " is down or left out: 1 down, 1 NotAdjacent, 1 NotPrepared; 10.0.0.1: waits",
		},
		"the others are down": {
			members: []member{out("10.0.0.1", "NotPrepared", "waits"), down("10.0.0.2")},
			want:    "False AllRealServersDown",
			message: "every real server of " + service + " is down or left out: 1 down, 1 NotPrepared; 10.0.0.1: waits",
		},
		"some are left out": {
			members: []member{out("10.0.0.1", "NotPrepared", "waits"), up("10.0.0.2", 1)},
			want:    "True Ready", message: "1 of 2 real servers get new connections",
		},
		"left out or unknown": {
			members: []member{out("10.0.0.1", "NotPrepared", "waits"), {addr: "10.0.0.2", weight: 1}},
			want:    "Unknown Pending", message: "no real server of " + service + " has a verdict yet",
		},
		"no pod is ready": {
			members: []member{{addr: "10.0.0.1", pod: "web-1", weight: 1, verdict: health.Up, unready: "not ready"}},
			want:    "False AllRealServersDown", message: "every real server of " + service + " is down",
		},
		"all are down and the sorry server answers": {
			policy: sorry, members: []member{down("10.0.0.1")}, lost: true,
			want: "False AllRealServersDown", message: "every real server of " + service + " is down; the sorry server 192.168.11.150 answers",
		},
		"the quorum is lost and the sorry server answers": {
			policy: sorry, members: []member{up("10.0.0.1", 1), {addr: "10.0.0.2", weight: 2, verdict: health.Down}}, lost: true,
			want:    "False QuorumLost",
			message: service + ": weight 1 of 3 is up, the quorum is 2; the sorry server 192.168.11.150 answers",
		},
		"the sorry server does not answer yet": {
			policy: sorry, members: []member{up("10.0.0.1", 1), down("10.0.0.2")}, lost: true, late: true,
			want:    "False QuorumLost",
			message: service + ": weight 1 of 2 is up, the quorum is 2; the sorry server 192.168.11.150 does not answer yet",
		},
		"the quorum is lost and nobody is sorry": {
			policy: plan.Policy{Quorum: 2, Scale: 1}, members: []member{up("10.0.0.1", 1), down("10.0.0.2")}, lost: true,
			want: "False QuorumLost", message: service + ": weight 1 of 2 is up, the quorum is 2",
		},
		"weights are told as they are written": {
			policy:  plan.Policy{Quorum: 300, Scale: 100},
			members: []member{{addr: "10.0.0.1", weight: 2, verdict: health.Up, kernel: 17}, {addr: "10.0.0.2", weight: 2, verdict: health.Down}}, lost: true,
			want: "False QuorumLost", message: service + ": weight 2 of 4 is up, the quorum is 3",
		},
		"a share of the weights is rounded up": {
			policy:  plan.Policy{Quorum: 150, Scale: 100},
			members: []member{up("10.0.0.1", 1), down("10.0.0.2"), down("10.0.0.3")}, lost: true,
			want: "False QuorumLost", message: service + ": weight 1 of 3 is up, the quorum is 2",
		},
		"the quorum is lost and some are left out": {
			policy:  plan.Policy{Quorum: 2, Scale: 1},
			members: []member{up("10.0.0.1", 1), down("10.0.0.2"), out("10.0.0.3", "NotPrepared", "no agent"), out("10.0.0.4", "NotAdjacent", "")}, lost: true,
			want:    "False QuorumLost",
			message: service + ": weight 1 of 2 is up, the quorum is 2, and 2 are left out, 10.0.0.3: no agent",
		},
		"the quorum waits for verdicts": {
			policy: plan.Policy{Quorum: 2, Scale: 1}, members: []member{up("10.0.0.1", 1), {addr: "10.0.0.2", weight: 1}}, lost: true,
			want:    "Unknown Pending",
			message: service + ": weight 1 of 2 is up, the quorum is 2, and other real servers have no verdict yet",
		},
		"nobody has a verdict": {
			policy: plan.Policy{Quorum: 2, Scale: 1}, members: []member{{addr: "10.0.0.1", weight: 2}}, lost: true,
			want: "Unknown Pending", message: "no real server of " + service + " has a verdict yet",
		},
		"the quorum waits for verdicts while the sorry server answers": {
			policy: sorry, members: []member{up("10.0.0.1", 1), {addr: "10.0.0.2", weight: 1}}, lost: true,
			want:    "False QuorumLost",
			message: service + ": weight 1 of 2 is up, the quorum is 2; the sorry server 192.168.11.150 answers",
		},
		"no verdict could bring the quorum": {
			policy: plan.Policy{Quorum: 3, Scale: 1}, members: []member{up("10.0.0.1", 1), {addr: "10.0.0.2", weight: 1}}, lost: true,
			want: "False QuorumLost", message: service + ": weight 1 of 2 is up, the quorum is 3",
		},
		"up, and not in the kernel yet": {
			members: []member{{addr: "10.0.0.1", weight: 1, verdict: health.Up, kernel: absent}},
			want:    "Unknown Pending", message: "no real server of " + service + " is in the kernel yet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFarm(pods("192.168.11.200"))
			if tc.source != nil {
				tc.source(&f.vs.Spec)
			}
			key := f.serve("192.168.11.200", 80, tc.policy, tc.members...)
			if tc.lost && !tc.late {
				f.lose(key)
			} else if tc.lost {
				f.out.Addresses[key.Key.Addr].QuorumLost[key] = struct{}{}
			}
			got := VirtualServer(f.out)
			if have := inShort(got)["Ready"]; have != tc.want {
				t.Errorf("Ready is %s, want %s", have, tc.want)
			}
			if diff := cmp.Diff(tc.message, find(got.Conditions, "Ready").Message); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOneServiceOfManyDecides: the first that does not serve is told of, whatever
// the others.
func TestOneServiceOfManyDecides(t *testing.T) {
	f := newFarm(pods("192.168.11.200", "fd00:11::200"))
	f.serve("192.168.11.200", 80, plan.Policy{}, member{addr: "10.0.0.1", pod: "web-1", weight: 1, verdict: health.Up})
	f.serve("fd00:11::200", 80, plan.Policy{})
	got := find(VirtualServer(f.out).Conditions, "Ready")
	if want := "[fd00:11::200]:80/TCP has no real server: podSelector selects no pod with an IPv6 address"; got.Message != want {
		t.Errorf("message %q, want %q", got.Message, want)
	}
}

// TestSorryServerIsNoRealServer: neither while it answers nor while it leaves; and
// those that it stands in for keep their connections.
func TestSorryServerIsNoRealServer(t *testing.T) {
	f := newFarm(pods("192.168.11.200"))
	policy := plan.Policy{Quorum: 2, Scale: 1, Sorry: netip.MustParseAddr("192.168.11.150")}
	key := f.serve("192.168.11.200", 80, policy,
		member{addr: "10.0.0.1", pod: "web-1", weight: 1, verdict: health.Up},
		member{addr: "192.168.11.150", draining: true})
	f.lose(key)
	got := VirtualServer(f.out)
	want := []shown{{"10.0.0.1", "web-1", 1, "Draining", "the quorum is lost: the sorry server 192.168.11.150 answers"}}
	if diff := cmp.Diff(want, rows(got)); diff != "" {
		t.Errorf("real servers (-want +got):\n%s", diff)
	}
	if counts := *got.RealServerCounts; counts != (v1alpha1.RealServerCounts{Total: 1, Draining: 1}) {
		t.Errorf("counts %+v", counts)
	}
}
