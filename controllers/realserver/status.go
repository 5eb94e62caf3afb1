package realserver

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// The API's bounds of a RealServerNode.
const (
	mostPods, mostVIPs, mostPodAddresses = 256, 256, 8
	longestSandbox, longestProblem       = 128, 256
	longestMessage                       = 1024
)

// problemOf says what is wrong with a pod that lacks a VIP.
func problemOf(report Report) string {
	switch {
	case report.Problem != "":
		return report.Problem
	case report.Sandbox == "":
		return "its network namespace has not been found yet"
	default:
		return "it is being prepared"
	}
}

// withTold returns what was found, and what a RealServerNode said of pods that are
// wanted and have not been looked at yet: they did not lose anything because the
// agent was restarted, or because the container runtime does not answer.
func withTold(node *v1alpha1.RealServerNode, wanted wants, found map[types.UID]Report) map[types.UID]Report {
	all := maps.Clone(found)
	for _, told := range node.Status.Pods {
		uid := types.UID(told.UID)
		pod, report := wanted[uid], found[uid]
		if len(lacking(pod, report)) == 0 || report.Sandbox != "" && report.Sandbox != told.Sandbox {
			continue
		}
		report.Sandbox = told.Sandbox
		report.PodAddresses = addressesOf(told.PodAddresses)
		report.VIPs = slices.DeleteFunc(addressesOf(told.Addresses), func(vip netip.Addr) bool { return !wanted.has(uid, vip) })
		all[uid] = report
	}
	return all
}

func addressesOf(texts []string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// statusOf returns what a RealServerNode is to say when these pods are wanted and
// these were found. Unknown says why that may be old.
func statusOf(node *v1alpha1.RealServerNode, wanted wants, found map[types.UID]Report, unknown error, now time.Time) v1alpha1.RealServerNodeStatus {
	status := v1alpha1.RealServerNodeStatus{}
	counts := v1alpha1.RealServerNodeCounts{}
	problem := ""
	for _, uid := range slices.Sorted(maps.Keys(union(wanted, found))) {
		report, pod := found[uid], wanted[uid]
		if len(pod.VIPs) > 0 {
			counts.Pods++
			if missing := lacking(pod, report); len(missing) == 0 {
				counts.Prepared++
				report.Problem = ""
			} else {
				report.Problem = problemOf(report)
				problem = cmp.Or(problem, fmt.Sprintf("%s/%s lacks %s: %s", pod.Namespace, pod.Name, missing[0], report.Problem))
			}
		}
		if len(status.Pods) < mostPods {
			status.Pods = append(status.Pods, preparedOf(uid, pod, report))
		}
	}
	status.Counts = &counts
	switch {
	case unknown != nil:
		status.Conditions = ready(node, metav1.ConditionFalse, v1alpha1.ReasonCRIUnavailable, unknown.Error(), now)
	case counts.Prepared == counts.Pods:
		status.Conditions = ready(node, metav1.ConditionTrue, v1alpha1.ReasonReady, "every pod has the VIPs that are wanted of it", now)
	default:
		message := fmt.Sprintf("%d of %d pods are not prepared; %s", counts.Pods-counts.Prepared, counts.Pods, problem)
		status.Conditions = ready(node, metav1.ConditionFalse, v1alpha1.ReasonNotPrepared, message, now)
	}
	return status
}

// union are the pods that are to have VIPs or have any.
func union(wanted wants, found map[types.UID]Report) map[types.UID]struct{} {
	all := map[types.UID]struct{}{}
	for uid, pod := range wanted {
		if len(pod.VIPs) > 0 {
			all[uid] = struct{}{}
		}
	}
	for uid, report := range found {
		if len(report.VIPs) > 0 {
			all[uid] = struct{}{}
		}
	}
	return all
}

// lacking are the VIPs that a pod is to have and has not.
func lacking(pod Pod, report Report) []netip.Addr {
	var missing []netip.Addr
	for _, vip := range pod.VIPs {
		if report.Sandbox == "" || !slices.Contains(report.VIPs, vip.Addr) {
			missing = append(missing, vip.Addr)
		}
	}
	return missing
}

func preparedOf(uid types.UID, pod Pod, report Report) v1alpha1.PreparedPod {
	return v1alpha1.PreparedPod{
		UID:          string(uid),
		Namespace:    cmp.Or(pod.Namespace, report.Namespace),
		Name:         cmp.Or(pod.Name, report.Name),
		Sandbox:      shorten(report.Sandbox, longestSandbox),
		PodAddresses: texts(append(common(pod.own, report.PodAddresses), report.PodAddresses...), mostPodAddresses),
		Addresses:    texts(report.VIPs, mostVIPs),
		Problem:      shorten(report.Problem, longestProblem),
	}
}

// common are the addresses of both: a node has many, of which its pods have a few.
func common(a, b []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(a), func(addr netip.Addr) bool { return !slices.Contains(b, addr) })
}

// texts writes so many of the addresses at most, the first ones, each once and in
// order.
func texts(addrs []netip.Addr, most int) []string {
	first := map[netip.Addr]struct{}{}
	for _, addr := range addrs {
		if len(first) < most {
			first[addr] = struct{}{}
		}
	}
	var texts []string
	for _, addr := range slices.SortedFunc(maps.Keys(first), netip.Addr.Compare) {
		texts = append(texts, addr.String())
	}
	return texts
}

// shorten cuts a text to so many bytes, between characters.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const mark = "..."
	return strings.ToValidUTF8(text[:most-len(mark)], "") + mark
}

// ready returns the conditions with Ready set; its transition time changes only
// with its status.
func ready(node *v1alpha1.RealServerNode, status metav1.ConditionStatus, reason, message string, now time.Time) []metav1.Condition {
	condition := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: shorten(message, longestMessage),
		ObservedGeneration: node.Generation, LastTransitionTime: seconds(now),
	}
	if before := meta.FindStatusCondition(node.Status.Conditions, condition.Type); before != nil && before.Status == status {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	return []metav1.Condition{condition}
}

// seconds returns the time as the API stores it.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

func statusDiffers(node *v1alpha1.RealServerNode, wanted v1alpha1.RealServerNodeStatus) bool {
	return !equality.Semantic.DeepEqual(node.Status, wanted)
}

// applyOf returns an object with nothing but what is needed to find it and its
// status, since an apply takes ownership of all that it holds. It is refused
// for another object of the same name.
func applyOf(kind schema.GroupVersionKind, of client.Object, status any) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return nil, fmt.Errorf("writing the status of %s %s: %w", kind.Kind, of.GetName(), err)
	}
	apply := &unstructured.Unstructured{Object: map[string]any{"status": fields}}
	apply.SetGroupVersionKind(kind)
	apply.SetNamespace(of.GetNamespace())
	apply.SetName(of.GetName())
	apply.SetUID(of.GetUID())
	return apply, nil
}
