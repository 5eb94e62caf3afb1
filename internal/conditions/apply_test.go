package conditions

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
)

func TestApplyManagersBelongToTheRoleAndNotToTheNode(t *testing.T) {
	if got := AddressesManager("default", 3); got != "lvs-director/default-3" {
		t.Errorf("manager = %q", got)
	}
}

// twoGroups is a status with an address of group 0 and one of group 1.
func twoGroups() v1alpha1.VirtualServerStatus {
	status := VirtualServer(scene{vs: web(), verdicts: map[string]health.Report{"192.168.11.135:80": up(), "192.168.11.138:80": down()}}.outcome())
	status.Addresses = append(status.Addresses, v1alpha1.AddressStatus{Address: "192.168.11.201", Group: 1, Director: "node-b"})
	return status
}

func TestAddressesApplyHasTheGroupsEntriesAndNothingElse(t *testing.T) {
	for name, tc := range map[string]struct {
		group int32
		want  map[string]any
	}{
		"group 0": {0, map[string]any{"addresses": []any{map[string]any{"address": "192.168.11.200", "group": int64(0), "director": "node-a"}}}},
		"group 1": {1, map[string]any{"addresses": []any{map[string]any{"address": "192.168.11.201", "group": int64(1), "director": "node-b"}}}},
		"a group without entries gives up those that it had": {2, map[string]any{}},
	} {
		t.Run(name, func(t *testing.T) {
			apply, err := AddressesApply(web(), tc.group, twoGroups())
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]any{
				"apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualServer",
				"metadata": map[string]any{"namespace": "shop", "name": "web"},
				"status":   tc.want,
			}
			if diff := cmp.Diff(want, apply.Object); diff != "" {
				t.Errorf("apply (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReporterApplyHasAllButTheAddresses(t *testing.T) {
	wanted := twoGroups()
	apply, err := ReporterApply(web(), wanted)
	if err != nil {
		t.Fatal(err)
	}
	if _, has := apply.Object["spec"]; has {
		t.Error("the apply takes ownership of the spec")
	}
	status, _ := apply.Object["status"].(map[string]any)
	if _, has := status["addresses"]; has || len(status) != 5 {
		t.Errorf("status = %v", status)
	}
	var back v1alpha1.VirtualServer
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(apply.Object, &back); err != nil {
		t.Fatal(err)
	}
	if ReportDiffers(&back, wanted) {
		t.Errorf("what was applied is read back as another status:\n%s", cmp.Diff(wanted, back.Status))
	}
	if len(wanted.Addresses) != 2 {
		t.Error("the caller's status was changed")
	}
}

func TestNothingIsSentThatIsThere(t *testing.T) {
	cached := web()
	cached.Status = twoGroups()
	for name, tc := range map[string]struct {
		change        func(*v1alpha1.VirtualServerStatus)
		wantReport    bool
		wantAddresses [2]bool
		wantUrgent    bool
	}{
		"nothing": {change: func(*v1alpha1.VirtualServerStatus) {}},
		"the order of addresses and conditions": {change: func(s *v1alpha1.VirtualServerStatus) {
			s.Addresses[0], s.Addresses[1] = s.Addresses[1], s.Addresses[0]
			s.Conditions[0], s.Conditions[2] = s.Conditions[2], s.Conditions[0]
		}},
		"an empty list and none": {change: func(s *v1alpha1.VirtualServerStatus) {
			s.Addresses = append([]v1alpha1.AddressStatus{}, s.Addresses...)
		}},
		"a director of group 1": {
			change:        func(s *v1alpha1.VirtualServerStatus) { s.Addresses[1].Director = "node-c" },
			wantAddresses: [2]bool{false, true}, wantUrgent: true,
		},
		"an address that is gone": {
			change:        func(s *v1alpha1.VirtualServerStatus) { s.Addresses = s.Addresses[1:] },
			wantAddresses: [2]bool{true, false}, wantUrgent: true,
		},
		"a condition": {
			change:     func(s *v1alpha1.VirtualServerStatus) { s.Conditions[2].Status = metav1.ConditionFalse },
			wantReport: true, wantUrgent: true,
		},
		"a director in the columns": {
			change:     func(s *v1alpha1.VirtualServerStatus) { s.Display.Directors = "node-c" },
			wantReport: true, wantUrgent: true,
		},
		"wording": {
			change:     func(s *v1alpha1.VirtualServerStatus) { s.RealServers[0].Reason = "timed out" },
			wantReport: true,
		},
		"a real server's state": {
			change:     func(s *v1alpha1.VirtualServerStatus) { s.RealServers[0].State = "Up" },
			wantReport: true, wantUrgent: true,
		},
		"the generation": {
			change:     func(s *v1alpha1.VirtualServerStatus) { s.ObservedGeneration++ },
			wantReport: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			wanted := *cached.Status.DeepCopy()
			tc.change(&wanted)
			if got := ReportDiffers(cached, wanted); got != tc.wantReport {
				t.Errorf("report differs: %t, want %t", got, tc.wantReport)
			}
			for group, want := range tc.wantAddresses {
				if got := AddressesDiffer(cached, int32(group), wanted); got != want {
					t.Errorf("addresses of group %d differ: %t, want %t", group, got, want)
				}
			}
			if got := Urgent(cached.Status, wanted); got != tc.wantUrgent {
				t.Errorf("urgent: %t, want %t", got, tc.wantUrgent)
			}
		})
	}
}

func TestGroupsAreThoseThatAreAndThoseThatAreToBe(t *testing.T) {
	cached := web()
	cached.Status.Addresses = []v1alpha1.AddressStatus{{Address: "192.168.11.202", Group: 4}, {Address: "192.168.11.201", Group: 1}}
	if diff := cmp.Diff([]int32{0, 1, 4}, Groups(cached, twoGroups())); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}
