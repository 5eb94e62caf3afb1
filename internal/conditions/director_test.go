package conditions

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func healthyDirector() DirectorOutcome {
	return DirectorOutcome{
		Director: &v1alpha1.Director{ObjectMeta: metav1.ObjectMeta{Name: "node-a", Generation: 1}},
		Now:      noon,
		Address:  netip.MustParseAddr("192.168.11.2"), Interface: "eth0", MAC: "52:54:00:00:00:02",
		KernelVersion: "6.1.0", Schedulers: []string{"wrr", "rr", "wrr"}, ConnectionTableSize: 4096,
		Groups: []v1alpha1.GroupStatus{{Group: 0, Epoch: 7, Since: metav1.NewTime(noon)}}, TotalGroups: 1,
		Counts:         v1alpha1.DirectorCounts{VirtualIPs: 1, Services: 1, Destinations: 2},
		LastTransition: &v1alpha1.DirectorTransition{Reason: "the Lease had expired", Time: metav1.NewTime(noon)},
		Programmed:     true, IPVS: IPVSAvailable, API: APIReachable, Answering: AnsweringAlone,
		SyncAddress: netip.MustParseAddr("198.51.100.2"), Syncing: Syncing{Running: true},
	}
}

func TestDirectorThatServes(t *testing.T) {
	in := healthyDirector()
	got := Director(in)
	got.Conditions = nil
	want := v1alpha1.DirectorStatus{
		Address: "192.168.11.2", SyncAddress: "198.51.100.2", Interface: "eth0", MAC: "52:54:00:00:00:02",
		KernelVersion: "6.1.0", Schedulers: []string{"rr", "wrr"}, ConnectionTableSize: 4096,
		Groups:         []v1alpha1.GroupStatus{{Group: 0, Epoch: 7, Since: at(noon)}},
		Counts:         &v1alpha1.DirectorCounts{VirtualIPs: 1, Services: 1, Destinations: 2},
		LastTransition: &v1alpha1.DirectorTransition{Reason: "the Lease had expired", Time: at(noon)},
		Display:        &v1alpha1.DirectorDisplay{Active: "1/1 groups"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if !in.Groups[0].Since.Time.Equal(noon) || !in.LastTransition.Time.Time.Equal(noon) {
		t.Error("the caller's values were changed")
	}
}

func TestDirectorConditions(t *testing.T) {
	good := map[string]string{
		"Ready": "True Ready", "Candidate": "True Candidate", "APIReachable": "True Reachable",
		"AddressConflict": "False NoConflict", "KernelAnswers": "True Alone", "IPVSAvailable": "True IPVSAvailable",
		"FullyProgrammed": "True Programmed", "ConnectionsSynced": "True Synced",
	}
	for name, tc := range map[string]struct {
		change func(*DirectorOutcome)
		want   map[string]string
	}{
		"all is well": {change: func(*DirectorOutcome) {}},
		"it starts": {
			change: func(o *DirectorOutcome) {
				*o = DirectorOutcome{Director: o.Director, Now: noon}
			},
			want: map[string]string{"Ready": "False Starting", "Candidate": "False Starting", "APIReachable": "Unknown Starting", "KernelAnswers": "False Standby", "IPVSAvailable": "Unknown Starting", "FullyProgrammed": "Unknown Starting", "ConnectionsSynced": "Unknown Starting"},
		},
		"no IPVS": {
			change: func(o *DirectorOutcome) { o.IPVS = IPVSMissing },
			want:   map[string]string{"Ready": "False IPVSUnavailable", "Candidate": "False IPVSUnavailable", "IPVSAvailable": "False IPVSUnavailable", "FullyProgrammed": "Unknown Starting"},
		},
		"kube-proxy in ipvs mode": {
			change: func(o *DirectorOutcome) { o.Failure = Failure{v1alpha1.ReasonKubeProxyIPVS, "kube-ipvs0 exists"} },
			want:   map[string]string{"Ready": "False KubeProxyIPVS", "Candidate": "False KubeProxyIPVS", "FullyProgrammed": "Unknown Starting"},
		},
		"the kernel refuses some VIPs": {
			change: func(o *DirectorOutcome) { o.Refused = Failure{Message: "192.0.2.1: no space left"} },
			want:   map[string]string{"FullyProgrammed": "False KernelError"},
		},
		"the kernel lacks a scheduler": {
			change: func(o *DirectorOutcome) {
				o.Refused = Failure{v1alpha1.ReasonSchedulerUnavailable, "192.0.2.1: no mh"}
				o.Lacking = o.Refused
			},
			want: map[string]string{"FullyProgrammed": "False SchedulerUnavailable", "IPVSAvailable": "False SchedulerUnavailable"},
		},
		"it waits": {
			change: func(o *DirectorOutcome) { o.Waiting = Failure{Message: "2 real servers have no verdict"} },
			want:   map[string]string{"Candidate": "False WaitingForVerdicts"},
		},
		"the API server is away": {
			change: func(o *DirectorOutcome) { o.API = APIUnreachable },
			want:   map[string]string{"APIReachable": "False Unreachable"},
		},
		"somebody else answers": {
			change: func(o *DirectorOutcome) { o.Conflicts = []Conflict{{vip, "52:54:00:00:00:FF", ""}} },
			want:   map[string]string{"AddressConflict": "True AddressClaimed"},
		},
		"a dead director's kernel answers": {
			change: func(o *DirectorOutcome) { o.Conflicts = []Conflict{{vip, "52:54:00:00:00:03", "node-b"}} },
			want:   map[string]string{"AddressConflict": "True KernelAnswersElsewhere"},
		},
		"a dead director's kernel and somebody else answer": {
			change: func(o *DirectorOutcome) {
				o.Conflicts = []Conflict{{vip, "52:54:00:00:00:FF", ""}, {vip, "52:54:00:00:00:03", "node-b"}}
			},
			want: map[string]string{"AddressConflict": "True AddressClaimed"},
		},
		"connections are not shared": {
			change: func(o *DirectorOutcome) { o.Syncing = Syncing{Disabled: true} },
			want:   map[string]string{"ConnectionsSynced": "False SyncDisabled"},
		},
		"it does not know the others' connections yet": {
			change: func(o *DirectorOutcome) { o.Syncing.ColdUntil = noon },
			want:   map[string]string{"ConnectionsSynced": "False Cold"},
		},
		"somebody else synchronises": {
			change: func(o *DirectorOutcome) {
				o.Syncing = Syncing{Failure: Failure{v1alpha1.ReasonSyncDaemonTaken, "keepalived"}, ColdUntil: noon}
			},
			want: map[string]string{"ConnectionsSynced": "False SyncDaemonTaken"},
		},
		"the kernel does not synchronise": {
			change: func(o *DirectorOutcome) { o.Syncing = Syncing{Failure: Failure{Message: "eth0 is down"}} },
			want:   map[string]string{"ConnectionsSynced": "False SyncFailed"},
		},
		"a peer is there": {
			change: func(o *DirectorOutcome) { o.Answering = AnsweringPeer },
			want:   map[string]string{"KernelAnswers": "False PeerPresent"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := healthyDirector()
			tc.change(&in)
			want := map[string]string{}
			for kind, short := range good {
				want[kind] = short
			}
			for kind, short := range tc.want {
				want[kind] = short
			}
			got := map[string]string{}
			for _, condition := range Director(in).Conditions {
				got[condition.Type] = string(condition.Status) + " " + condition.Reason
				if condition.Message == "" {
					t.Errorf("%s says nothing", condition.Type)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDirectorNamesWhoClaimsAnAddress(t *testing.T) {
	for who, want := range map[Conflict]string{
		{vip, "52:54:00:00:00:FF", ""}:       "192.168.11.200 is answered for by 52:54:00:00:00:ff",
		{vip, "52:54:00:00:00:03", "node-b"}: "192.168.11.200 (52:54:00:00:00:03) is still answered for by the kernel of node-b, whose director is dead",
	} {
		in := healthyDirector()
		in.Conflicts = []Conflict{who, who}
		got := Director(in)
		if message := find(got.Conditions, v1alpha1.ConditionAddressConflict).Message; message != want {
			t.Errorf("message = %q, want %q", message, want)
		}
	}
}

func TestADeadDirectorsKernelIsToldOfOnce(t *testing.T) {
	in := healthyDirector()
	in.Director.Status = Director(in)
	in.Conflicts = []Conflict{{vip, "52:54:00:00:00:03", "node-b"}}
	condition := find(Director(in).Conditions, v1alpha1.ConditionAddressConflict)
	want := []Event{{Warning, v1alpha1.ReasonKernelAnswersElsewhere, condition.Message}}
	if diff := cmp.Diff(want, ConflictEvents(nil, in.Conflicts)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	in.Director.Status = Director(in)
	if again := Director(in); DirectorDiffers(in.Director, again) {
		t.Error("the same claim is written again")
	}
}

func TestEachStationThatClaimsAnAddressIsToldOfOnce(t *testing.T) {
	first, second := Conflict{vip, "52:54:00:00:00:FF", ""}, Conflict{vip, "52:54:00:00:00:FE", ""}
	var many []Conflict
	for i := range 100 {
		many = append(many, Conflict{vip, fmt.Sprintf("52:54:00:00:01:%02x", i), ""})
	}
	for name, tc := range map[string]struct {
		before, now []Conflict
		want        int
	}{
		"the first":   {nil, []Conflict{first}, 1},
		"again":       {[]Conflict{first}, []Conflict{first}, 0},
		"another":     {[]Conflict{first}, []Conflict{first, second}, 1},
		"one is gone": {[]Conflict{first, second}, []Conflict{second}, 0},
		"a storm":     {nil, many, conflictEvents},
	} {
		if got := ConflictEvents(tc.before, tc.now); len(got) != tc.want {
			t.Errorf("%s: events %+v, want %d", name, got, tc.want)
		}
	}
	if got := ConflictEvents([]Conflict{first}, []Conflict{first, second}); len(got) != 1 || !strings.Contains(got[0].Message, "52:54:00:00:00:fe") {
		t.Errorf("events = %+v, want the new MAC", got)
	}
	// The condition itself is told of when it ends.
	in := healthyDirector()
	in.Conflicts = []Conflict{first}
	bad := find(Director(in).Conditions, v1alpha1.ConditionAddressConflict)
	in.Conflicts = nil
	good := find(Director(in).Conditions, v1alpha1.ConditionAddressConflict)
	if e := DirectorEvent(good, *bad); e != (Event{}) {
		t.Errorf("told twice: %+v", e)
	}
	if e := DirectorEvent(bad, *good); e.Type != Normal || e.Reason != v1alpha1.ReasonNoConflict {
		t.Errorf("event = %+v when it is over", e)
	}
}

func TestDirectorKeepsTransitionTimesAndSendsNothingTwice(t *testing.T) {
	in := healthyDirector()
	in.Director.Status = Director(in)
	in.Now = noon.Add(time.Hour)
	again := Director(in)
	if DirectorDiffers(in.Director, again) {
		t.Errorf("an hour later the same outcome is another status:\n%s", cmp.Diff(in.Director.Status, again))
	}
	in.API = APIUnreachable
	changed := Director(in)
	if !DirectorDiffers(in.Director, changed) {
		t.Error("a condition changed and no apply is due")
	}
	for _, condition := range changed.Conditions {
		want := at(noon)
		if condition.Type == v1alpha1.ConditionAPIReachable {
			want = at(in.Now)
		}
		if !condition.LastTransitionTime.Equal(&want) {
			t.Errorf("%s changed at %s, want %s", condition.Type, condition.LastTransitionTime, want)
		}
	}
}

func TestDirectorApplyIsReadBackAsItWas(t *testing.T) {
	in := healthyDirector()
	wanted := Director(in)
	apply, err := DirectorApply(in.Director, wanted)
	if err != nil {
		t.Fatal(err)
	}
	var back v1alpha1.Director
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(apply.Object, &back); err != nil {
		t.Fatal(err)
	}
	if _, has := apply.Object["spec"]; has || back.Name != "node-a" || DirectorDiffers(&back, wanted) {
		t.Errorf("applied %v", apply.Object)
	}
}
