package realserver

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
)

// mostPodAddresses is how many addresses of a pod a RealServerNode lists.
const mostPodAddresses = 8

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
		report := found[uid]
		lacks := slices.ContainsFunc(wanted[uid].VIPs, func(vip VIP) bool { return !slices.Contains(report.VIPs, vip.Addr) })
		if !lacks || report.Sandbox != "" && report.Sandbox != told.Sandbox {
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

// outcomeOf returns what a RealServerNode is to tell of, when these pods are wanted
// and these were found. Unknown says why that may be old.
func outcomeOf(node *v1alpha1.RealServerNode, wanted wants, found map[types.UID]Report, unknown error, now time.Time) conditions.NodeOutcome {
	outcome := conditions.NodeOutcome{RealServerNode: node, Now: now}
	if unknown != nil {
		outcome.CRI = unknown.Error()
	}
	uids := map[types.UID]struct{}{}
	for uid := range wanted {
		uids[uid] = struct{}{}
	}
	for uid := range found {
		uids[uid] = struct{}{}
	}
	for uid := range uids {
		report, pod := found[uid], wanted[uid]
		outcome.Pods = append(outcome.Pods, conditions.PodReport{
			UID:          uid,
			Name:         types.NamespacedName{Namespace: cmp.Or(pod.Namespace, report.Namespace), Name: cmp.Or(pod.Name, report.Name)},
			Sandbox:      report.Sandbox,
			PodAddresses: mattering(pod.own, report.PodAddresses),
			Wanted:       pod.addresses(),
			Have:         report.VIPs,
			Problem:      problemOf(report),
		})
	}
	return outcome
}

// addresses are the VIPs that a pod is to have.
func (p Pod) addresses() []netip.Addr {
	addrs := make([]netip.Addr, len(p.VIPs))
	for i, vip := range p.VIPs {
		addrs[i] = vip.Addr
	}
	return addrs
}

// mattering are so many of a pod's addresses as are listed, those first that the
// API knows: a pod in its node's network has all that the node has.
func mattering(own, all []netip.Addr) []netip.Addr {
	known := func(addr netip.Addr) bool { return slices.Contains(own, addr) }
	first := slices.DeleteFunc(slices.Clone(all), func(addr netip.Addr) bool { return !known(addr) })
	rest := slices.DeleteFunc(slices.Clone(all), known)
	addrs := append(first, rest...)
	return addrs[:min(len(addrs), mostPodAddresses)]
}
