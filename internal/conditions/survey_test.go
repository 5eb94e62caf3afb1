package conditions

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// member is a real server of a service as a plan and the kernel have it. With no
// more than an address it is a pod that is up.
type member struct {
	addr    string
	pod     string
	weight  uint32
	state   v1alpha1.RealServerState
	why     string
	reason  string
	message string
	unready string
	verdict health.Verdict
	// kernel is its weight in the kernel, if that is not what follows; absent is
	// none.
	kernel   int
	draining bool
}

const absent = -1

// farm is an outcome that is made by hand, one service at a time.
type farm struct {
	vs       *v1alpha1.VirtualServer
	verdicts map[health.Target]health.Verdict
	asked    int
	out      Outcome
}

// pods is a VirtualServer of the pods of the namespace.
func pods(vips ...string) *v1alpha1.VirtualServer {
	vs := &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 1},
		Spec:       v1alpha1.VirtualServerSpec{Ports: []v1alpha1.Port{{Port: 80}}, PodSelector: &metav1.LabelSelector{}},
	}
	for _, vip := range vips {
		vs.Spec.Addresses = append(vs.Spec.Addresses, v1alpha1.IPAddress(vip))
	}
	return vs
}

func newFarm(vs *v1alpha1.VirtualServer) *farm {
	f := &farm{vs: vs, verdicts: map[health.Target]health.Verdict{}}
	f.out = Outcome{
		VirtualServer: vs, Now: noon, Addresses: map[netip.Addr]Address{},
		Report: func(probe health.Probe) health.Report {
			f.asked++
			report := health.Report{Verdict: f.verdicts[probe.Target]}
			if report.Verdict != health.Unknown {
				report.Since = noon.Add(-time.Minute)
			}
			return report
		},
	}
	return f
}

// serve adds a service with its members.
func (f *farm) serve(vip string, port uint16, policy plan.Policy, members ...member) netstate.ServiceKey {
	key := netstate.Key{Addr: netip.MustParseAddr(vip)}
	address, known := f.out.Addresses[key.Addr]
	if !known {
		address = Address{
			Director: "node-a", Programmed: true, State: netstate.New(),
			Desired: plan.Desired{
				Key: key, State: netstate.New(), Checks: map[netstate.DestinationKey][]plan.Check{},
				Owners:   map[netstate.ServiceKey]types.NamespacedName{},
				Policies: map[netstate.ServiceKey]plan.Policy{}, Unready: map[netstate.DestinationKey]string{},
				Servers: map[netstate.DestinationKey]plan.Server{},
			},
			Draining: map[netstate.DestinationKey]time.Time{}, QuorumLost: map[netstate.ServiceKey]struct{}{},
		}
	}
	service := netstate.ServiceKey{Key: key, Protocol: netstate.TCP, Port: port}
	address.Desired.Owners[service] = nameOf(f.vs)
	address.Desired.Policies[service] = policy
	for _, m := range members {
		f.put(address, service, policy, m)
	}
	f.out.Addresses[key.Addr] = address
	return service
}

func (f *farm) put(address Address, service netstate.ServiceKey, policy plan.Policy, m member) {
	key := netstate.DestinationKey{Service: service, Addr: netip.MustParseAddr(m.addr), Port: service.Port}
	scale := max(1, policy.Scale)
	if m.draining {
		address.State.Destinations[key] = netstate.Destination{Method: netstate.DR}
		address.Draining[key] = noon.Add(-10 * time.Second)
	}
	if m.state == "" && m.draining {
		return // it has left the plan
	}
	server := plan.Server{Pod: m.pod, Weight: m.weight, State: m.state, Why: m.why, Reason: m.reason, Message: m.message}
	if server.State == "" {
		server.State = v1alpha1.RealServerEnabled
	}
	address.Desired.Servers[key] = server
	if server.State == v1alpha1.RealServerDisabled || server.Reason != "" {
		return
	}
	weight := server.Weight * scale
	if server.State == v1alpha1.RealServerDrained {
		weight = 0
	}
	address.Desired.State.Destinations[key] = netstate.Destination{Method: netstate.DR, Weight: weight}
	target := health.Target{Addr: key.Addr, Port: key.Port, Type: "TCP"}
	address.Desired.Checks[key] = []plan.Check{{Name: "default", Probe: health.Probe{Target: target}}}
	f.verdicts[target] = m.verdict
	if m.unready != "" {
		address.Desired.Unready[key] = m.unready
	}
	if m.kernel > 0 {
		weight = uint32(m.kernel)
	}
	if m.kernel != absent && m.verdict == health.Up && m.unready == "" {
		address.State.Destinations[key] = netstate.Destination{Method: netstate.DR, Weight: weight}
	}
}

// lose makes the quorum of a service lost, with its sorry server in the kernel.
func (f *farm) lose(service netstate.ServiceKey) {
	address := f.out.Addresses[service.Key.Addr]
	address.QuorumLost[service] = struct{}{}
	if sorry := address.Desired.Policies[service].Sorry; sorry.IsValid() {
		for key, destination := range address.State.Destinations {
			destination.Weight = 0
			address.State.Destinations[key] = destination
		}
		address.State.Destinations[netstate.DestinationKey{Service: service, Addr: sorry, Port: service.Port}] = netstate.Destination{Method: netstate.DR, Weight: 1}
	}
}

// shown is a row of status.realServers.
type shown struct {
	Address, Pod string
	Weight       int32
	State        v1alpha1.ObservedState
	Reason       string
}

func rows(status v1alpha1.VirtualServerStatus) []shown {
	var rows []shown
	for _, s := range status.RealServers {
		rows = append(rows, shown{s.Address, s.Pod, s.Weight, s.State, s.Reason})
	}
	return rows
}

func TestPodsAreShownAsTheyAre(t *testing.T) {
	f := newFarm(pods("192.168.11.200"))
	f.vs.Status.RealServers = []v1alpha1.RealServerStatus{{Address: "10.244.0.9", Pod: "web-9", State: "Up"}}
	f.serve("192.168.11.200", 80, plan.Policy{Scale: 1},
		member{addr: "10.244.0.1", pod: "web-1", weight: 3, verdict: health.Up},
		member{addr: "10.244.0.2", pod: "web-2", weight: 1, verdict: health.Up, unready: "pod web-2 is not ready"},
		member{addr: "10.244.0.3", pod: "web-3", weight: 1, reason: "NotPrepared", message: "node web-3 has no agent"},
		member{addr: "10.244.0.4", pod: "web-4", weight: 1, reason: "NotAdjacent", message: "10.244.0.4 is behind 192.168.11.1"},
		member{addr: "10.244.0.5", pod: "web-5", weight: 1, state: "Drained", why: "drained by an annotation of node n", verdict: health.Up},
		member{addr: "10.244.0.6", pod: "web-6", weight: 1, state: "Disabled", why: "its pod is being deleted", draining: true},
		member{addr: "10.244.0.7", pod: "web-7", weight: 1, state: "Disabled", why: "its pod is being deleted"},
		member{addr: "10.244.0.8", pod: "web-8", weight: 1, verdict: health.Down},
		member{addr: "10.244.0.9", draining: true},
		member{addr: "10.244.0.10", pod: "web-10", weight: 1},
		member{addr: "10.244.0.11", pod: "web-11", weight: 1, reason: "PodNotUsable"},
		member{addr: "10.244.0.12", pod: "web-12", weight: 0, verdict: health.Up},
		member{addr: "10.244.0.13", pod: "web-13", weight: 1, state: "Drained", verdict: health.Down},
	)
	got := VirtualServer(f.out)
	want := []shown{
		{"10.244.0.2", "web-2", 1, "Down", "pod web-2 is not ready"},
		{"10.244.0.4", "web-4", 1, "Down", "NotAdjacent: 10.244.0.4 is behind 192.168.11.1"},
		{"10.244.0.8", "web-8", 1, "Down", `TCP check "default" of port 80 fails`},
		{"10.244.0.11", "web-11", 1, "Down", "PodNotUsable"},
		{"10.244.0.13", "web-13", 1, "Down", `TCP check "default" of port 80 fails`},
		{"10.244.0.3", "web-3", 1, "Unknown", "NotPrepared: node web-3 has no agent"},
		{"10.244.0.10", "web-10", 1, "Unknown", `TCP check "default" of port 80 has no verdict yet`},
		{"10.244.0.5", "web-5", 1, "Draining", "drained by an annotation of node n"},
		{"10.244.0.6", "web-6", 1, "Draining", "its pod is being deleted"},
		{"10.244.0.9", "web-9", 0, "Draining", "no longer selected"},
		{"10.244.0.12", "web-12", 0, "Draining", "its weight is 0"},
		{"10.244.0.7", "web-7", 1, "Disabled", "its pod is being deleted"},
		{"10.244.0.1", "web-1", 3, "Up", ""},
	}
	if diff := cmp.Diff(want, rows(got)); diff != "" {
		t.Errorf("real servers (-want +got):\n%s", diff)
	}
	wantCounts := v1alpha1.RealServerCounts{Total: 10, Ready: 1, Draining: 4, ReadyWeight: 3}
	if diff := cmp.Diff(wantCounts, *got.RealServerCounts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// TestRealServerIsOneThingInAllServices: the worst of its services counts for what
// is wrong with it, and the best for what is wanted of it.
func TestRealServerIsOneThingInAllServices(t *testing.T) {
	up := member{addr: "10.244.0.1", pod: "web-1", weight: 1, verdict: health.Up}
	with := func(change func(*member)) member {
		changed := up
		change(&changed)
		return changed
	}
	for name, tc := range map[string]struct {
		other     member
		want      shown
		wantReady int32
	}{
		"up in both": {other: up, want: shown{"10.244.0.1", "web-1", 1, "Up", ""}, wantReady: 1},
		"not prepared for the other VIP": {
			other: with(func(m *member) { m.reason, m.message = "NotPrepared", "waits" }),
			want:  shown{"10.244.0.1", "web-1", 1, "Unknown", "NotPrepared: waits"},
		},
		"of another port at the other VIP": {
			other: with(func(m *member) { m.reason = "ServicePortMismatch" }),
			want:  shown{"10.244.0.1", "web-1", 1, "Down", "ServicePortMismatch"},
		},
		"not in the kernel yet": {
			other: with(func(m *member) { m.kernel = absent }),
			want:  shown{"10.244.0.1", "web-1", 1, "Up", ""},
		},
		"leaving one of them": {
			other: with(func(m *member) { m.state, m.why = "Disabled", "gone" }),
			want:  shown{"10.244.0.1", "web-1", 1, "Up", ""}, wantReady: 1,
		},
		"drained in one of them": {
			other: with(func(m *member) { m.state, m.why = "Drained", "drained" }),
			want:  shown{"10.244.0.1", "web-1", 1, "Up", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFarm(pods("192.168.11.200", "192.168.11.201"))
			f.serve("192.168.11.200", 80, plan.Policy{}, up)
			f.serve("192.168.11.201", 80, plan.Policy{}, tc.other)
			got := VirtualServer(f.out)
			if diff := cmp.Diff([]shown{tc.want}, rows(got)); diff != "" {
				t.Errorf("real servers (-want +got):\n%s", diff)
			}
			if got.RealServerCounts.Ready != tc.wantReady || got.RealServerCounts.Total != 1 {
				t.Errorf("counts %+v, want %d ready of 1", got.RealServerCounts, tc.wantReady)
			}
		})
	}
}

// TestNotesAreTold: an annotation that nobody can read takes nothing out.
func TestNotesAreTold(t *testing.T) {
	f := newFarm(pods("192.168.11.200"))
	f.serve("192.168.11.200", 80, plan.Policy{}, member{addr: "10.244.0.1", weight: 1, verdict: health.Up, why: "annotation a means nothing"})
	want := []shown{{"10.244.0.1", "", 1, "Up", "annotation a means nothing"}}
	if diff := cmp.Diff(want, rows(VirtualServer(f.out))); diff != "" {
		t.Errorf("real servers (-want +got):\n%s", diff)
	}
}

// TestTheWorstReasonIsTold: one that is to come is told only if there is no other.
func TestTheWorstReasonIsTold(t *testing.T) {
	f := newFarm(pods("192.168.11.200", "192.168.11.201"))
	f.serve("192.168.11.200", 80, plan.Policy{}, member{addr: "10.244.0.1", weight: 1, reason: "NotPrepared"})
	f.serve("192.168.11.200", 443, plan.Policy{}, member{addr: "10.244.0.1", weight: 1, verdict: health.Down})
	f.serve("192.168.11.201", 80, plan.Policy{}, member{addr: "10.244.0.1", weight: 1, reason: "NotAdjacent"})
	want := []shown{{"10.244.0.1", "", 1, "Down", "NotAdjacent"}}
	if diff := cmp.Diff(want, rows(VirtualServer(f.out))); diff != "" {
		t.Errorf("real servers (-want +got):\n%s", diff)
	}
}

// TestDrainingSinceTheFirst: a real server leaves the services one after another.
func TestDrainingSinceTheFirst(t *testing.T) {
	f := newFarm(pods("192.168.11.200"))
	for i, port := range []uint16{80, 81, 82, 83, 84, 85} {
		f.serve("192.168.11.200", port, plan.Policy{}, member{addr: "10.244.0.1", draining: true})
		for key := range f.out.Addresses[vip].Draining {
			if key.Service.Port == port {
				f.out.Addresses[vip].Draining[key] = noon.Add(-time.Duration(1+i%3) * time.Minute)
			}
		}
	}
	got := VirtualServer(f.out).RealServers
	if len(got) != 1 || !got[0].Since.Time.Equal(noon.Add(-3*time.Minute).Truncate(time.Second)) {
		t.Errorf("real servers %+v, want one since three minutes ago", got)
	}
}

// TestAThousandEndpoints: each check is looked up once, and the worst are shown.
func TestAThousandEndpoints(t *testing.T) {
	f := newFarm(pods("192.168.11.200", "192.168.11.201"))
	var members []member
	for i := range 1000 {
		m := member{addr: fmt.Sprintf("10.244.%d.%d", i/250, i%250+1), pod: fmt.Sprintf("web-%d", i), weight: 1, verdict: health.Up}
		if i >= 990 {
			m.verdict = health.Down
		}
		members = append(members, m)
	}
	for _, vip := range []string{"192.168.11.200", "192.168.11.201"} {
		f.serve(vip, 80, plan.Policy{}, members...)
		f.serve(vip, 443, plan.Policy{}, members...)
	}
	got := VirtualServer(f.out)
	if f.asked != 4000 {
		t.Errorf("%d checks were looked up, want 4000", f.asked)
	}
	if len(got.RealServers) != 64 || got.RealServers[9].State != "Down" || got.RealServers[10].State != "Up" || got.Display.RealServers != "990/1000" {
		t.Errorf("%d real servers, the tenth is %+v; %s", len(got.RealServers), got.RealServers[9], got.Display.RealServers)
	}
}

func TestAPodOfTwoFamiliesCountsOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		second health.Verdict
		want   string
	}{
		"both up":        {health.Up, "2/2"},
		"one of them up": {health.Down, "1/2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFarm(pods("192.168.11.200", "fd00:11::200"))
			f.serve("192.168.11.200", 80, plan.Policy{},
				member{addr: "10.244.0.1", pod: "web-a", weight: 3, verdict: health.Up}, member{addr: "10.244.0.2", pod: "web-b", weight: 1, verdict: health.Up})
			f.serve("fd00:11::200", 80, plan.Policy{},
				member{addr: "fd00:11::1", pod: "web-a", weight: 3, verdict: health.Up}, member{addr: "fd00:11::2", pod: "web-b", weight: 1, verdict: tc.second})
			got := VirtualServer(f.out)
			if got.Display.RealServers != tc.want || len(got.RealServers) != 4 {
				t.Errorf("%s of %d addresses, want %s of 4", got.Display.RealServers, len(got.RealServers), tc.want)
			}
			if tc.second == health.Up && got.RealServerCounts.ReadyWeight != 4 {
				t.Errorf("readyWeight is %d, want 4", got.RealServerCounts.ReadyWeight)
			}
		})
	}
}

// TestOrderMakesNoDifference: neither that of the spec nor that of the status
// before, nor the maps' own.
func TestOrderMakesNoDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFarm(pods("192.168.11.200", "192.168.11.201"))
		for _, vip := range []string{"192.168.11.200", "192.168.11.201"} {
			var members []member
			for i := range rapid.IntRange(0, 8).Draw(t, "members") {
				members = append(members, drawMember(t, fmt.Sprintf("10.244.0.%d", i+1)))
			}
			service := f.serve(vip, 80, plan.Policy{Sorry: netip.MustParseAddr("192.168.11.150"), Quorum: 2}, members...)
			if rapid.Bool().Draw(t, "lost") {
				f.lose(service)
			}
		}
		for i := range rapid.IntRange(0, 5).Draw(t, "written") {
			f.vs.Spec.RealServers = append(f.vs.Spec.RealServers, v1alpha1.RealServer{Address: v1alpha1.IPAddress(fmt.Sprintf("10.244.0.%d", i+6))})
		}
		first := VirtualServer(f.out)
		f.vs.Status = first
		first = VirtualServer(f.out)
		for range 5 {
			rand.Shuffle(len(f.vs.Spec.RealServers), func(i, j int) {
				f.vs.Spec.RealServers[i], f.vs.Spec.RealServers[j] = f.vs.Spec.RealServers[j], f.vs.Spec.RealServers[i]
			})
			f.vs.Status.RealServers = slices.Clone(f.vs.Status.RealServers)
			rand.Shuffle(len(f.vs.Status.RealServers), func(i, j int) {
				f.vs.Status.RealServers[i], f.vs.Status.RealServers[j] = f.vs.Status.RealServers[j], f.vs.Status.RealServers[i]
			})
			if diff := cmp.Diff(first, VirtualServer(f.out)); diff != "" {
				t.Fatalf("in another order:\n%s", diff)
			}
		}
		checkCounts(t, first)
	})
}

func drawMember(t *rapid.T, addr string) member {
	return member{
		addr: addr, pod: rapid.SampledFrom([]string{"", "web-a", "web-b"}).Draw(t, "pod"),
		weight:   rapid.Uint32Range(0, 3).Draw(t, "weight"),
		state:    rapid.SampledFrom([]v1alpha1.RealServerState{"", "Enabled", "Drained", "Disabled"}).Draw(t, "state"),
		reason:   rapid.SampledFrom([]string{"", "", "NotPrepared", "NotAdjacent"}).Draw(t, "reason"),
		unready:  rapid.SampledFrom([]string{"", "", "not ready"}).Draw(t, "unready"),
		verdict:  rapid.SampledFrom([]health.Verdict{health.Unknown, health.Up, health.Down}).Draw(t, "verdict"),
		draining: rapid.Bool().Draw(t, "draining"),
	}
}

// checkCounts checks what holds of every status that shows all its real servers.
func checkCounts(t *rapid.T, status v1alpha1.VirtualServerStatus) {
	draining := map[string]bool{}
	for _, server := range status.RealServers {
		if server.State == v1alpha1.ObservedDraining {
			name := server.Pod
			if name == "" {
				name = server.Address
			}
			draining[name] = true
		}
		if strings.HasPrefix(server.Reason, "Not") && server.State == v1alpha1.ObservedUp {
			t.Fatalf("%+v is left out and up", server)
		}
	}
	have := status.RealServerCounts
	if have.Draining != int32(len(draining)) {
		t.Fatalf("counts %+v, but %d are draining", have, len(draining))
	}
	if have.Ready > have.Total || have.Total > int32(len(status.RealServers)) {
		t.Fatalf("counts %+v of %d real servers", have, len(status.RealServers))
	}
	if find(status.Conditions, "Ready").Status == metav1.ConditionTrue && have.Ready == 0 && len(status.RealServers) == 1 {
		t.Fatalf("ready without a real server: %+v", status)
	}
}
