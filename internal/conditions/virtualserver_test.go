package conditions

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

var (
	noon = time.Date(2026, 1, 1, 12, 0, 0, 123456789, time.UTC)
	vip  = netip.MustParseAddr("192.168.11.200")
)

// web is the classic pair: .135 of weight 1, .138 of weight 2, one TCP check.
func web() *v1alpha1.VirtualServer {
	weight := int32(2)
	return &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 3},
		Spec: v1alpha1.VirtualServerSpec{
			Addresses:    []v1alpha1.IPAddress{"192.168.11.200"},
			Ports:        []v1alpha1.Port{{Port: 80, Protocol: "TCP"}},
			RealServers:  []v1alpha1.RealServer{{Address: "192.168.11.135"}, {Address: "192.168.11.138", Weight: &weight}},
			HealthChecks: []v1alpha1.HealthCheck{{}},
		},
	}
}

// scene is an outcome that is made of a plan, verdicts by host and port, and
// what the kernel has.
type scene struct {
	vs       *v1alpha1.VirtualServer
	verdicts map[string]health.Report
	draining []string
	address  func(*Address)
	refusal  *plan.Rejection
	now      time.Time
}

func up() health.Report   { return health.Report{Verdict: health.Up, Since: noon.Add(-time.Hour)} }
func down() health.Report { return downBy("connection refused") }
func downBy(cause string) health.Report {
	return health.Report{Verdict: health.Down, Since: noon.Add(-time.Minute), LastError: cause}
}

func (s scene) outcome() Outcome {
	if s.now.IsZero() {
		s.now = noon
	}
	out := Outcome{
		VirtualServer: s.vs, Rejection: s.refusal, Now: s.now,
		Addresses: map[netip.Addr]Address{},
		Report: func(probe health.Probe) health.Report {
			return s.verdicts[netip.AddrPortFrom(probe.Target.Addr, probe.Target.Port).String()]
		},
	}
	pool := &v1alpha1.DirectorPool{Spec: v1alpha1.DirectorPoolSpec{Allow: []v1alpha1.AllowRule{{
		Addresses: []v1alpha1.AddressRange{"0.0.0.0/0"}, RealServers: []v1alpha1.AddressRange{"0.0.0.0/0"},
	}}}}
	for _, key := range plan.Keys(s.vs) {
		desired, _ := plan.For(plan.Snapshot{Key: key, Pool: pool, VirtualServers: []v1alpha1.VirtualServer{*s.vs}})
		address := Address{Director: "node-a", Programmed: true, Desired: desired, Draining: map[netstate.DestinationKey]time.Time{}}
		verdict := func(probe health.Probe) health.Verdict { return out.Report(probe).Verdict }
		address.State, _, _ = plan.Want(desired, netstate.Observation{}, verdict, plan.Memory{}, noon)
		for _, server := range s.draining {
			leaving := netstate.DestinationKey{
				Service: netstate.ServiceKey{Key: key, Protocol: netstate.TCP, Port: 80},
				Addr:    netip.MustParseAddr(server), Port: 80,
			}
			address.State.Destinations[leaving] = netstate.Destination{Method: netstate.DR}
			address.Draining[leaving] = noon.Add(-10 * time.Second)
		}
		if s.address != nil {
			s.address(&address)
		}
		out.Addresses[key.Addr] = address
	}
	return out
}

func at(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

func TestVirtualServerThatServes(t *testing.T) {
	got := VirtualServer(scene{vs: web(), verdicts: map[string]health.Report{
		"192.168.11.135:80": up(), "192.168.11.138:80": up(),
	}}.outcome())
	condition := func(kind, message string) metav1.Condition {
		return metav1.Condition{
			Type: kind, Status: "True", Reason: kind, Message: message,
			ObservedGeneration: 3, LastTransitionTime: at(noon),
		}
	}
	want := v1alpha1.VirtualServerStatus{
		ObservedGeneration: 3,
		Conditions: []metav1.Condition{
			condition("Accepted", "the spec can be served"),
			condition("Programmed", "every address is announced, by node-a"),
			condition("Ready", "2 of 2 real servers get new connections"),
		},
		Addresses:        []v1alpha1.AddressStatus{{Address: "192.168.11.200", Director: "node-a"}},
		RealServerCounts: &v1alpha1.RealServerCounts{Total: 2, Ready: 2, ReadyWeight: 3},
		RealServers: []v1alpha1.RealServerStatus{
			{Address: "192.168.11.135", Weight: 1, State: "Up", Since: at(noon.Add(-time.Hour))},
			{Address: "192.168.11.138", Weight: 2, State: "Up", Since: at(noon.Add(-time.Hour))},
		},
		Display: &v1alpha1.VirtualServerDisplay{Addresses: "192.168.11.200", Ports: "80/TCP", RealServers: "2/2", Directors: "node-a"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// inShort returns a condition as "status reason".
func inShort(status v1alpha1.VirtualServerStatus) map[string]string {
	short := map[string]string{}
	for _, condition := range status.Conditions {
		short[condition.Type] = string(condition.Status) + " " + condition.Reason
	}
	return short
}

func TestVirtualServerConditions(t *testing.T) {
	twoPorts := web()
	twoPorts.Spec.Ports = append(twoPorts.Spec.Ports, v1alpha1.Port{Port: 443})
	twoAddresses := web()
	twoAddresses.Spec.Addresses = append(twoAddresses.Spec.Addresses, "192.168.11.201")
	noServers := web()
	noServers.Spec.RealServers = nil
	drained := web()
	drained.Spec.RealServers[0].State, drained.Spec.RealServers[1].State = "Drained", "Disabled"
	bothUp := map[string]health.Report{"192.168.11.135:80": up(), "192.168.11.138:80": up()}
	for name, tc := range map[string]struct {
		scene scene
		want  [3]string
		// wantMessage is a part of the message of Ready.
		wantMessage string
		wantDisplay string
	}{
		"nothing has been worked on": {
			scene: scene{vs: web(), address: func(a *Address) { *a = Address{} }},
			want:  [3]string{"True Accepted", "Unknown Pending", "Unknown Pending"}, wantDisplay: "0/2",
		},
		"refused": {
			scene: scene{vs: web(), refusal: &plan.Rejection{Reason: "Conflict", Message: "shop/old is older"}},
			want:  [3]string{"False Conflict", "False NotAccepted", "False NotAccepted"}, wantMessage: "shop/old is older", wantDisplay: "0/2",
		},
		"the kernel lacks the scheduler": {
			scene: scene{vs: web(), verdicts: bothUp, address: func(a *Address) {
				a.Programmed, a.Failure = false, Failure{"SchedulerUnavailable", "the kernel has no scheduler wrr"}
				a.State = netstate.New()
			}},
			want: [3]string{"True Accepted", "False SchedulerUnavailable", "False NotProgrammed"}, wantMessage: "192.168.11.200: the kernel has no scheduler wrr", wantDisplay: "0/2",
		},
		"a failure without a reason": {
			scene: scene{vs: web(), verdicts: bothUp, address: func(a *Address) { a.Failure = Failure{Message: "EIO"} }},
			want:  [3]string{"True Accepted", "False KernelError", "False NotProgrammed"}, wantDisplay: "2/2",
		},
		"nobody announces": {
			scene: scene{vs: web(), verdicts: bothUp, address: func(a *Address) { a.Director = "" }},
			want:  [3]string{"True Accepted", "Unknown NoDirector", "False NotProgrammed"}, wantDisplay: "2/2",
		},
		"nobody announces one of two addresses": {
			scene: scene{vs: twoAddresses, verdicts: bothUp, address: func(a *Address) {
				if a.Desired.Key.Addr != vip {
					a.Director = ""
				}
			}},
			want: [3]string{"True Accepted", "Unknown NoDirector", "False NotProgrammed"}, wantMessage: "192.168.11.201", wantDisplay: "2/2",
		},
		"one of two is down": {
			scene: scene{vs: web(), verdicts: map[string]health.Report{"192.168.11.135:80": down(), "192.168.11.138:80": up()}},
			want:  [3]string{"True Accepted", "True Programmed", "True Ready"}, wantMessage: "1 of 2", wantDisplay: "1/2",
		},
		"all are down": {
			scene: scene{vs: web(), verdicts: map[string]health.Report{"192.168.11.135:80": down(), "192.168.11.138:80": down()}},
			want:  [3]string{"True Accepted", "True Programmed", "False AllRealServersDown"}, wantMessage: "192.168.11.200:80/TCP", wantDisplay: "0/2",
		},
		"nobody knows yet": {
			scene: scene{vs: web(), verdicts: map[string]health.Report{"192.168.11.135:80": down()}},
			want:  [3]string{"True Accepted", "True Programmed", "Unknown Pending"}, wantMessage: "verdict", wantDisplay: "0/2",
		},
		"one port of two is down": {
			scene: scene{vs: twoPorts, verdicts: map[string]health.Report{
				"192.168.11.135:80": up(), "192.168.11.138:80": up(), "192.168.11.135:443": down(), "192.168.11.138:443": down(),
			}},
			want: [3]string{"True Accepted", "True Programmed", "False AllRealServersDown"}, wantMessage: "192.168.11.200:443/TCP", wantDisplay: "0/2",
		},
		"no real servers": {
			scene: scene{vs: noServers},
			want:  [3]string{"True Accepted", "True Programmed", "False NoRealServers"}, wantDisplay: "0/0",
		},
		"all drained or disabled": {
			scene: scene{vs: drained, verdicts: bothUp},
			want:  [3]string{"True Accepted", "True Programmed", "False NoRealServers"}, wantDisplay: "0/2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := VirtualServer(tc.scene.outcome())
			want := map[string]string{"Accepted": tc.want[0], "Programmed": tc.want[1], "Ready": tc.want[2]}
			if diff := cmp.Diff(want, inShort(got)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			if message := find(got.Conditions, "Ready").Message; !strings.Contains(message, tc.wantMessage) {
				t.Errorf("Ready says %q, want %q", message, tc.wantMessage)
			}
			if got.Display.RealServers != tc.wantDisplay {
				t.Errorf("display = %q, want %q", got.Display.RealServers, tc.wantDisplay)
			}
		})
	}
}

func TestRealServersAreWorstFirst(t *testing.T) {
	vs := web()
	zero := int32(0)
	vs.Spec.RealServers = []v1alpha1.RealServer{
		{Address: "192.168.11.9"},
		{Address: "192.168.11.10"},
		{Address: "192.168.11.11", State: "Drained"},
		{Address: "192.168.11.12", State: "Disabled"},
		{Address: "192.168.11.13"},
		{Address: "192.168.11.14"},
		{Address: "192.168.11.15", State: "Drained"},
		{Address: "192.168.11.16", Weight: &zero},
		{Address: "192.168.11.17", State: "Disabled"},
	}
	got := VirtualServer(scene{
		vs: vs, draining: []string{"192.168.11.17", "192.168.11.99"},
		verdicts: map[string]health.Report{
			"192.168.11.9:80": up(), "192.168.11.10:80": up(), "192.168.11.11:80": up(), "192.168.11.16:80": up(),
			"192.168.11.13:80": down(), "192.168.11.15:80": downBy(""),
		},
	}.outcome())
	type row struct {
		address string
		state   v1alpha1.ObservedState
		reason  string
		since   time.Duration
	}
	want := []row{
		{"192.168.11.13", "Down", `TCP check "default" of port 80: connection refused`, -time.Minute},
		{"192.168.11.15", "Down", `TCP check "default" of port 80 fails`, -time.Minute},
		{"192.168.11.14", "Unknown", `TCP check "default" of port 80 has no verdict yet`, 0},
		{"192.168.11.11", "Draining", "drained by the spec", 0},
		{"192.168.11.16", "Draining", "its weight is 0", 0},
		{"192.168.11.17", "Draining", "disabled by the spec", -10 * time.Second},
		{"192.168.11.99", "Draining", "removed from the spec", -10 * time.Second},
		{"192.168.11.12", "Disabled", "disabled by the spec", 0},
		{"192.168.11.9", "Up", "", -time.Hour},
		{"192.168.11.10", "Up", "", -time.Hour},
	}
	var rows []row
	for _, s := range got.RealServers {
		rows = append(rows, row{s.Address, s.State, s.Reason, s.Since.Sub(noon.Truncate(time.Second))})
	}
	if diff := cmp.Diff(want, rows, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("real servers (-want +got):\n%s", diff)
	}
	wantCounts := v1alpha1.RealServerCounts{Total: 9, Ready: 2, Draining: 4, ReadyWeight: 2}
	if diff := cmp.Diff(wantCounts, *got.RealServerCounts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestRealServersAreAtMost64AndTheWorst(t *testing.T) {
	vs := web()
	vs.Spec.RealServers = nil
	verdicts := map[string]health.Report{}
	for i := range 200 {
		address := fmt.Sprintf("192.168.12.%d", i+1)
		vs.Spec.RealServers = append(vs.Spec.RealServers, v1alpha1.RealServer{Address: v1alpha1.IPAddress(address)})
		verdicts[address+":80"] = up()
	}
	verdicts["192.168.12.150:80"] = down()
	got := VirtualServer(scene{vs: vs, verdicts: verdicts}.outcome())
	if len(got.RealServers) != 64 || got.RealServers[0].Address != "192.168.12.150" || got.RealServerCounts.Ready != 199 {
		t.Errorf("%d real servers, the first is %s, %d ready; want 64, 192.168.12.150, 199",
			len(got.RealServers), got.RealServers[0].Address, got.RealServerCounts.Ready)
	}
}

// TestRealServersOfAnotherVirtualServerDoNotCount: a VIP may be shared.
func TestRealServersOfAnotherVirtualServerDoNotCount(t *testing.T) {
	outcome := scene{vs: web(), verdicts: map[string]health.Report{"192.168.11.135:80": up(), "192.168.11.138:80": up()}}.outcome()
	address := outcome.Addresses[vip]
	other := netstate.ServiceKey{Key: address.Desired.Key, Protocol: netstate.TCP, Port: 8080}
	address.Desired.State.Services[other] = netstate.Service{Scheduler: "rr"}
	address.Desired.Owners[other] = nameOf(&v1alpha1.VirtualServer{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alt"}})
	key := netstate.DestinationKey{Service: other, Addr: netip.MustParseAddr("192.168.11.135"), Port: 8080}
	address.Desired.State.Destinations[key] = netstate.Destination{Method: netstate.DR, Weight: 1}
	leaving := netstate.DestinationKey{Service: other, Addr: netip.MustParseAddr("192.168.11.77"), Port: 8080}
	address.State.Destinations[leaving] = netstate.Destination{Method: netstate.DR}
	address.Draining[leaving] = noon
	got := VirtualServer(outcome)
	if got.Display.RealServers != "2/2" || len(got.RealServers) != 2 || inShort(got)["Ready"] != "True Ready" {
		t.Errorf("display %q, %d real servers, %v", got.Display.RealServers, len(got.RealServers), inShort(got))
	}
}

// TestWhatIsOutOfTheKernelDrainsNoMore: the plan goes on naming it for a while.
func TestWhatIsOutOfTheKernelDrainsNoMore(t *testing.T) {
	got := VirtualServer(scene{vs: web(), draining: []string{"192.168.11.99"}, address: func(a *Address) {
		for key := range a.Draining {
			delete(a.State.Destinations, key)
		}
	}}.outcome())
	if len(got.RealServers) != 2 || got.RealServerCounts.Draining != 0 {
		t.Errorf("real servers = %+v, counts %+v", got.RealServers, *got.RealServerCounts)
	}
}

func TestSinceOutlivesTheDirector(t *testing.T) {
	vs := web()
	long := at(noon.Add(-24 * time.Hour))
	vs.Status.RealServers = []v1alpha1.RealServerStatus{
		{Address: "192.168.11.135", State: "Up", Since: long},
		{Address: "192.168.11.138", State: "Up", Since: long},
	}
	got := VirtualServer(scene{vs: vs, verdicts: map[string]health.Report{"192.168.11.135:80": up(), "192.168.11.138:80": down()}}.outcome())
	since := map[string]metav1.Time{}
	for _, server := range got.RealServers {
		since[server.Address] = server.Since
	}
	want := map[string]metav1.Time{"192.168.11.135": long, "192.168.11.138": at(noon.Add(-time.Minute))}
	if diff := cmp.Diff(want, since); diff != "" {
		t.Errorf("since (-want +got):\n%s", diff)
	}
}

func TestDisplayFitsItsBounds(t *testing.T) {
	vs := web()
	vs.Spec.Addresses = nil
	for i := range 16 {
		vs.Spec.Addresses = append(vs.Spec.Addresses, v1alpha1.IPAddress(fmt.Sprintf("192.168.11.%d", 200+i)))
	}
	vs.Spec.Ports = nil
	for i := range 64 {
		vs.Spec.Ports = append(vs.Spec.Ports, v1alpha1.Port{Port: int32(60000 + i), Protocol: "SCTP"})
	}
	got := VirtualServer(scene{vs: vs, address: func(a *Address) {
		a.Director = strings.Repeat("n", 240) + a.Desired.Key.String()
	}}.outcome())
	if len(got.Display.Directors) > 1024 || !strings.HasSuffix(got.Display.Directors, " +13") {
		t.Errorf("directors = %d bytes: ...%q", len(got.Display.Directors), got.Display.Directors[len(got.Display.Directors)-20:])
	}
	if strings.Contains(got.Display.Addresses, "+") || strings.Count(got.Display.Ports, ",") != 63 {
		t.Errorf("addresses %q, ports %q", got.Display.Addresses, got.Display.Ports)
	}
}

func TestVirtualServerIsTotal(t *testing.T) {
	got := VirtualServer(Outcome{VirtualServer: &v1alpha1.VirtualServer{Spec: v1alpha1.VirtualServerSpec{
		Addresses:   []v1alpha1.IPAddress{"nonsense"},
		RealServers: []v1alpha1.RealServer{{Address: "nonsense"}, {Address: "192.168.11.135"}},
	}}})
	if len(got.Conditions) != 3 || len(got.RealServers) != 1 || got.RealServers[0].State != "Unknown" {
		t.Errorf("status = %+v", got)
	}
}

// TestTransitionTimesChangeOnlyWithTheStatus follows a VirtualServer through
// any sequence of outcomes.
func TestTransitionTimesChangeOnlyWithTheStatus(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vs := web()
		now := noon
		for range rapid.IntRange(2, 10).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "milliseconds")) * time.Millisecond)
			vs.Generation += int64(rapid.IntRange(0, 1).Draw(t, "edited"))
			s := scene{vs: vs, now: now, verdicts: map[string]health.Report{
				"192.168.11.135:80": rapid.SampledFrom([]health.Report{{}, up(), down(), downBy("timed out")}).Draw(t, "135"),
				"192.168.11.138:80": rapid.SampledFrom([]health.Report{{}, up(), down()}).Draw(t, "138"),
			}}
			switch rapid.IntRange(0, 4).Draw(t, "trouble") {
			case 0:
				s.refusal = &plan.Rejection{Reason: "Conflict", Message: "shop/old is older"}
			case 1:
				s.address = func(a *Address) { a.Director = "" }
			}
			got := VirtualServer(s.outcome())
			for _, condition := range got.Conditions {
				before := find(vs.Status.Conditions, condition.Type)
				same := before != nil && before.Status == condition.Status
				kept := before != nil && before.LastTransitionTime.Equal(&condition.LastTransitionTime)
				sameSecond := before != nil && before.LastTransitionTime.Time.Equal(now.Truncate(time.Second))
				if same != kept && !sameSecond {
					t.Fatalf("%s went from %v to %v at %s", condition.Type, before, condition, now)
				}
				if !same && !condition.LastTransitionTime.Time.Equal(now.Truncate(time.Second)) {
					t.Fatalf("%v did not change at %s", condition, now)
				}
				if condition.ObservedGeneration != vs.Generation {
					t.Fatalf("%v is not of generation %d", condition, vs.Generation)
				}
			}
			vs.Status = got
			again := VirtualServer(s.outcome())
			if ReportDiffers(vs, again) || AddressesDiffer(vs, 0, again) || len(Events(vs.Status, again)) > 0 {
				t.Fatalf("the same outcome again is another status:\n%s", cmp.Diff(got, again, cmpopts.EquateEmpty()))
			}
		}
	})
}
