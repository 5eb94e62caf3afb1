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
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// report is a pod of the namespace shop, named as its UID.
func report(uid string, wanted, have []netip.Addr) PodReport {
	return PodReport{
		UID: types.UID(uid), Name: types.NamespacedName{Namespace: "shop", Name: "web-" + uid}, Sandbox: "s" + uid,
		PodAddresses: addrs("10.244.0.1"), Wanted: wanted, Have: have,
	}
}

func nodeOf(status v1alpha1.RealServerNodeStatus) *v1alpha1.RealServerNode {
	return &v1alpha1.RealServerNode{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a", Generation: 1}, Spec: v1alpha1.RealServerNodeSpec{NodeName: "node-a"}, Status: status,
	}
}

func TestRealServerNode(t *testing.T) {
	both := addrs("fd00:11::200", "192.168.11.200")
	broken := report("3", both, both[:1])
	broken.Problem = "setting arp_ignore of lo: permission denied"
	got := RealServerNode(NodeOutcome{RealServerNode: nodeOf(v1alpha1.RealServerNodeStatus{}), Now: noon, Pods: []PodReport{
		broken,
		report("2", both, nil),
		report("1", both, both),
		report("4", nil, both[:1]), // on its way out
		report("5", nil, nil),
	}})
	pod := func(uid, problem string, have ...string) v1alpha1.PreparedPod {
		return v1alpha1.PreparedPod{
			UID: uid, Namespace: "shop", Name: "web-" + uid, Sandbox: "s" + uid,
			PodAddresses: []string{"10.244.0.1"}, Addresses: have, Problem: problem,
		}
	}
	want := v1alpha1.RealServerNodeStatus{
		Conditions: []metav1.Condition{{
			Type: "Ready", Status: "False", Reason: "NotPrepared", ObservedGeneration: 1, LastTransitionTime: at(noon),
			Message: "2 of 3 pods lack a VIP: shop/web-2 (waits for 192.168.11.200, fd00:11::200), " +
				"shop/web-3 (setting arp_ignore of lo: permission denied)",
		}},
		Counts: &v1alpha1.RealServerNodeCounts{Pods: 3, Prepared: 1},
		Pods: []v1alpha1.PreparedPod{
			pod("1", "", "192.168.11.200", "fd00:11::200"),
			pod("2", "waits for 192.168.11.200, fd00:11::200"),
			pod("3", "setting arp_ignore of lo: permission denied", "fd00:11::200"),
			pod("4", "", "fd00:11::200"),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestRealServerNodeIsReady(t *testing.T) {
	vips := addrs("192.168.11.200")
	for name, tc := range map[string]struct {
		outcome NodeOutcome
		want    string
		message string
	}{
		"without pods": {want: "True Ready", message: "0 pods have the VIPs that are wanted"},
		"all are prepared": {
			outcome: NodeOutcome{Pods: []PodReport{report("1", vips, vips), report("2", vips, vips)}},
			want:    "True Ready", message: "2 pods have the VIPs that are wanted",
		},
		"the runtime does not answer": {
			outcome: NodeOutcome{Pods: []PodReport{report("1", vips, nil)}, CRI: "containerd.sock: connection refused"},
			want:    "False CRIUnavailable", message: "containerd.sock: connection refused",
		},
		"a pod waits": {
			outcome: NodeOutcome{Pods: []PodReport{report("1", vips, nil)}},
			want:    "False NotPrepared", message: "1 of 1 pods lack a VIP: shop/web-1 (waits for 192.168.11.200)",
		},
		"more pods than can be listed": {
			outcome: NodeOutcome{Pods: manyPods(300)},
			want:    "False NotPrepared", message: "the node has 300 pods with VIPs, and only 256 of them can be listed and get connections",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.outcome.RealServerNode, tc.outcome.Now = nodeOf(v1alpha1.RealServerNodeStatus{}), noon
			ready := find(RealServerNode(tc.outcome).Conditions, "Ready")
			if got := string(ready.Status) + " " + ready.Reason; got != tc.want || ready.Message != tc.message {
				t.Errorf("Ready is %s: %q, want %s: %q", got, ready.Message, tc.want, tc.message)
			}
		})
	}
}

func manyPods(count int) []PodReport {
	vips := addrs("192.168.11.200")
	var reports []PodReport
	for i := range count {
		reports = append(reports, report(fmt.Sprintf("%03d", i), vips, vips))
	}
	return reports
}

// TestListedPodsStayListed: a director takes one out of service that is no longer
// listed, so no newcomer may push one out.
func TestListedPodsStayListed(t *testing.T) {
	reports := manyPods(300)
	old := RealServerNode(NodeOutcome{RealServerNode: nodeOf(v1alpha1.RealServerNodeStatus{}), Pods: reports[40:], Now: noon})
	if len(old.Pods) != 256 || old.Pods[0].UID != "040" {
		t.Fatalf("%d pods from %s on", len(old.Pods), old.Pods[0].UID)
	}
	got := RealServerNode(NodeOutcome{RealServerNode: nodeOf(old), Pods: reports, Now: noon})
	if diff := cmp.Diff(old.Pods, got.Pods); diff != "" {
		t.Errorf("pods (-before +now):\n%s", diff)
	}
	if *got.Counts != (v1alpha1.RealServerNodeCounts{Pods: 300, Prepared: 256}) {
		t.Errorf("counts %+v", got.Counts)
	}
}

// TestRealServerNodeFitsItsBounds and takes the duplicates that the API refuses.
func TestRealServerNodeFitsItsBounds(t *testing.T) {
	var vips []netip.Addr
	addr := netip.MustParseAddr("10.0.0.1")
	for range 300 {
		vips = append(vips, addr, addr)
		addr = addr.Next()
	}
	long := report("1", append(vips, addr), vips)
	long.PodAddresses, long.Problem, long.Sandbox = vips, strings.Repeat("ü", 300), strings.Repeat("s", 300)
	got := RealServerNode(NodeOutcome{
		RealServerNode: nodeOf(v1alpha1.RealServerNodeStatus{}), Now: noon,
		Pods: []PodReport{long, report("1", vips, nil), report("", vips, vips)}, CRI: strings.Repeat("c", 40000),
	})
	if len(got.Pods) != 1 {
		t.Fatalf("%d pods, want 1", len(got.Pods))
	}
	pod := got.Pods[0]
	if len(pod.Addresses) != 256 || len(slices.Compact(slices.Clone(pod.Addresses))) != 256 || len(pod.PodAddresses) != 8 ||
		len(pod.Problem) > 256 || len(pod.Sandbox) > 128 || len(got.Conditions[0].Message) > 32768 {
		t.Errorf("%d addresses, %d pod addresses, problem of %d, sandbox of %d", len(pod.Addresses), len(pod.PodAddresses), len(pod.Problem), len(pod.Sandbox))
	}
}

// TestRealServerNodeOverTime: the order of the reports makes no difference, what
// was written is not written again, and times change with the status alone.
func TestRealServerNodeOverTime(t *testing.T) {
	vips := addrs("192.168.11.200", "192.168.11.201", "fd00:11::200")
	some := func(t *rapid.T, name string) []netip.Addr {
		return slices.Clone(vips[:rapid.IntRange(0, len(vips)).Draw(t, name)])
	}
	rapid.Check(t, func(t *rapid.T) {
		node, now := nodeOf(v1alpha1.RealServerNodeStatus{}), noon
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "seconds")) * time.Second)
			var reports []PodReport
			for range rapid.IntRange(0, 6).Draw(t, "pods") {
				reports = append(reports, report(rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(t, "uid"), some(t, "wanted"), some(t, "have")))
			}
			in := NodeOutcome{RealServerNode: node, Pods: reports, Now: now, CRI: rapid.SampledFrom([]string{"", "", "gone"}).Draw(t, "cri")}
			got := RealServerNode(in)
			rand.Shuffle(len(reports), func(i, j int) { reports[i], reports[j] = reports[j], reports[i] })
			for _, r := range reports {
				rand.Shuffle(len(r.Have), func(i, j int) { r.Have[i], r.Have[j] = r.Have[j], r.Have[i] })
			}
			if diff := cmp.Diff(got, RealServerNode(in)); diff != "" {
				t.Fatalf("in another order:\n%s", diff)
			}
			before, after := find(node.Status.Conditions, "Ready"), find(got.Conditions, "Ready")
			changed := before == nil || before.Status != after.Status
			if want := now.Truncate(time.Second); changed != after.LastTransitionTime.Time.Equal(want) {
				t.Fatalf("from %v to %v at %s", before, after, now)
			}
			node.Status = got
			in.Now = now.Add(time.Hour)
			if RealServerNodeDiffers(node, RealServerNode(in)) {
				t.Fatalf("the same again is another status")
			}
		}
	})
}

func TestRealServerNodeApplyHoldsTheStatusAlone(t *testing.T) {
	vips := addrs("192.168.11.200")
	node := nodeOf(v1alpha1.RealServerNodeStatus{})
	node.Labels = map[string]string{"a": "b"}
	apply, err := RealServerNodeApply(node, RealServerNode(NodeOutcome{RealServerNode: node, Pods: []PodReport{report("1", vips, vips)}, Now: noon}))
	if err != nil {
		t.Fatal(err)
	}
	if apply.GetKind() != "RealServerNode" || apply.GetName() != "node-a" || apply.GetLabels() != nil || apply.Object["spec"] != nil {
		t.Errorf("apply = %v", apply.Object)
	}
	if RealServerNodeDiffers(node, node.Status) || !RealServerNodeDiffers(node, v1alpha1.RealServerNodeStatus{Pods: []v1alpha1.PreparedPod{{UID: "1"}}}) {
		t.Error("a status differs from itself, or not from another")
	}
}

func TestPodGate(t *testing.T) {
	vips := addrs("192.168.11.200", "192.168.11.201")
	hourAgo := metav1.NewTime(noon.Add(-time.Hour).Truncate(time.Second))
	existing := func(status corev1.ConditionStatus, reason string) *corev1.PodCondition {
		return &corev1.PodCondition{
			Type: v1alpha1.PodConditionRealServerReady, Status: status, Reason: reason, Message: "as before", LastTransitionTime: hourAgo,
		}
	}
	for name, tc := range map[string]struct {
		gate Gate
		want string
		// wantMessage is told with it, wantOld says that the time is that of before.
		wantMessage string
		wantOld     bool
	}{
		"nobody selects it":           {want: "True NotSelected", wantMessage: "no VirtualServer selects the pod"},
		"only refused ones select it": {gate: Gate{Selection: Selected}, want: "True NotNeeded", wantMessage: "no VirtualServer that selects the pod needs a VIP on it"},
		"it has nothing yet":          {gate: Gate{Selection: Selected, Wanted: vips}, want: "False NotPrepared", wantMessage: "waits for 192.168.11.200, 192.168.11.201"},
		"it has one of two":           {gate: Gate{Selection: Selected, Wanted: vips, Have: vips[1:], Problem: "no sandbox"}, want: "False NotPrepared", wantMessage: "waits for 192.168.11.200: no sandbox"},
		"it has both":                 {gate: Gate{Selection: Selected, Wanted: vips, Have: vips}, want: "True Prepared", wantMessage: "the pod has the VIPs"},
		"it has more than is wanted":  {gate: Gate{Selection: Selected, Wanted: vips[:1], Have: vips}, want: "True Prepared", wantMessage: "the pod has the VIPs"},
		"it goes on waiting": {
			gate: Gate{Existing: existing("False", "NotPrepared"), Selection: Selected, Wanted: vips},
			want: "False NotPrepared", wantMessage: "waits for 192.168.11.200, 192.168.11.201", wantOld: true,
		},
		"its wait is over": {
			gate: Gate{Existing: existing("False", "NotPrepared"), Selection: Selected, Wanted: vips, Have: vips},
			want: "True Prepared", wantMessage: "the pod has the VIPs",
		},
		"a VIP is added": {
			gate: Gate{Existing: existing("True", "Prepared"), Selection: Selected, Wanted: vips, Have: vips[:1]},
			want: "True Prepared", wantMessage: "as before", wantOld: true,
		},
		"the first VIP of a pod that nobody selected": {
			gate: Gate{Existing: existing("True", "NotSelected"), Selection: Selected, Wanted: vips},
			want: "True NotSelected", wantMessage: "as before", wantOld: true,
		},
		"that VIP is there": {
			gate: Gate{Existing: existing("True", "NotSelected"), Selection: Selected, Wanted: vips, Have: vips},
			want: "True Prepared", wantMessage: "the pod has the VIPs", wantOld: true,
		},
		"nobody selects it any more": {
			gate: Gate{Existing: existing("False", "NotPrepared")},
			want: "True NotSelected", wantMessage: "no VirtualServer selects the pod",
		},
		"somebody set it to unknown": {
			gate: Gate{Existing: existing("Unknown", ""), Selection: Selected, Wanted: vips},
			want: "False NotPrepared", wantMessage: "waits for 192.168.11.200, 192.168.11.201",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.gate.Now = noon
			got := PodGate(tc.gate)
			want := corev1.PodCondition{Type: "lvs-operator.io/real-server-ready", Message: tc.wantMessage, LastTransitionTime: at(noon)}
			if tc.wantOld {
				want.LastTransitionTime = hourAgo
			}
			status, reason, _ := strings.Cut(tc.want, " ")
			want.Status, want.Reason = corev1.ConditionStatus(status), reason
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("condition (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPodGateNeverGoesBack follows a pod through any sequence of VIPs.
func TestPodGateNeverGoesBack(t *testing.T) {
	vips := addrs("192.168.11.200", "192.168.11.201", "fd00:11::200")
	rapid.Check(t, func(t *rapid.T) {
		gate := Gate{Now: noon}
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			gate.Now = gate.Now.Add(time.Minute)
			gate.Selection = rapid.SampledFrom([]Selection{NotSelected, Selected}).Draw(t, "selection")
			gate.Wanted, gate.Have = nil, vips[:rapid.IntRange(0, 3).Draw(t, "have")]
			if gate.Selection == Selected {
				gate.Wanted = vips[:rapid.IntRange(0, 3).Draw(t, "wanted")]
			}
			got := PodGate(gate)
			if ready := len(gate.Wanted) <= len(gate.Have); ready && got.Status != corev1.ConditionTrue {
				t.Fatalf("%+v gives %+v", gate, got)
			}
			before := gate.Existing
			if before != nil && before.Status == corev1.ConditionTrue && got.Status != corev1.ConditionTrue {
				t.Fatalf("went back from %+v to %+v", before, got)
			}
			if same := before != nil && before.Status == got.Status; same == got.LastTransitionTime.Time.Equal(gate.Now.Truncate(time.Second)) {
				t.Fatalf("from %+v to %+v at %s", before, got, gate.Now)
			}
			if diff := cmp.Diff(got, PodGate(Gate{
				Existing: &got, Selection: gate.Selection, Wanted: gate.Wanted, Have: gate.Have, Now: gate.Now.Add(time.Hour),
			}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("the same again is another condition:\n%s", diff)
			}
			gate.Existing = &got
		}
	})
}
