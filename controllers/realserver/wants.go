package realserver

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

const (
	// forgetting is how long a VIP stays beyond the deadline of the connections that
	// drain: for as long directors that lag behind may still send.
	forgetting = 60 * time.Second
	// defaultDrain is the API's default of drain.timeout.
	defaultDrain = 30 * time.Second
)

// wants are the pods that VirtualServers select and the VIPs that each is to
// have. A pod that only refused ones select has none.
type wants map[types.UID]Pod

// wantsOf decides which VIPs the pods of a node are to have, by Prepare, which is
// plan.Preparations.
//
// A VirtualServer selects pods of its own namespace, so those of namespaces that
// have no pod here are read only where they share an address with one that has:
// what is older may refuse it.
func wantsOf(w *world, prepare func(plan.Snapshot) map[types.UID][]netip.Addr) wants {
	all := wants{}
	w.components(func(s plan.Snapshot) {
		drains := drainsOf(s.VirtualServers)
		for uid, vips := range prepare(s) {
			more := Pod{UID: uid}
			for _, vip := range vips {
				more.VIPs = append(more.VIPs, VIP{Addr: vip, Linger: drains[vip] + forgetting})
			}
			all[uid] = merge(all[uid], more)
		}
	})
	for i := range w.planned {
		pod := &w.planned[i]
		if wanted, selected := all[pod.UID]; selected {
			wanted.Namespace, wanted.Name, wanted.HostNetwork = pod.Name.Namespace, pod.Name.Name, pod.HostNetwork
			wanted.own = pod.Addresses
			all[pod.UID] = wanted
		}
	}
	return all
}

// merge returns a pod that is to have what either says, for as long as the
// longer of both.
func merge(a, b Pod) Pod {
	lingers := map[netip.Addr]time.Duration{}
	for _, vip := range slices.Concat(a.VIPs, b.VIPs) {
		lingers[vip.Addr] = max(lingers[vip.Addr], vip.Linger)
	}
	merged := b
	merged.VIPs = nil
	for _, addr := range slices.SortedFunc(maps.Keys(lingers), netip.Addr.Compare) {
		merged.VIPs = append(merged.VIPs, VIP{Addr: addr, Linger: lingers[addr]})
	}
	return merged
}

// components calls fn with a snapshot of each set of VirtualServers that share
// addresses and of which one may select a pod of the node.
func (w *world) components(fn func(plan.Snapshot)) {
	named := w.byAddress()
	populated := w.populated()
	judged := map[types.NamespacedName]struct{}{}
	for i := range w.servers {
		vs := &w.servers[i]
		if _, ok := populated[vs.Namespace]; !ok || vs.Spec.PodSelector == nil && vs.Spec.ServiceName == "" {
			continue
		}
		keys := plan.Keys(vs)
		if _, done := judged[nameOf(vs)]; done || len(keys) == 0 {
			continue
		}
		pool := vs.Spec.DirectorPoolName
		component := plan.Component(keys[0], func(addr netip.Addr) []v1alpha1.VirtualServer { return named[inPool{pool, addr}] })
		for j := range component {
			judged[nameOf(&component[j])] = struct{}{}
		}
		fn(w.snapshot(keys[0], pool, component))
	}
}

// inPool is an address in one pool: pools know nothing of each other.
type inPool struct {
	pool string
	addr netip.Addr
}

func (w *world) byAddress() map[inPool][]v1alpha1.VirtualServer {
	named := map[inPool][]v1alpha1.VirtualServer{}
	for i := range w.servers {
		for _, key := range plan.Keys(&w.servers[i]) {
			of := inPool{w.servers[i].Spec.DirectorPoolName, key.Addr}
			named[of] = append(named[of], w.servers[i])
		}
	}
	return named
}

func (w *world) snapshot(key netstate.Key, pool string, servers []v1alpha1.VirtualServer) plan.Snapshot {
	return plan.Snapshot{
		Key:             key,
		VirtualServers:  servers,
		Pool:            w.pools[pool],
		NamespaceLabels: w.namespaces,
		Reserved:        w.reserved,
		Directors:       w.directors[pool],
		Pods:            w.planned,
		Endpoints:       w.endpoints,
	}
}

// drainsOf returns for each VIP the longest time that connections to it may
// take to end.
func drainsOf(servers []v1alpha1.VirtualServer) map[netip.Addr]time.Duration {
	longest := map[netip.Addr]time.Duration{}
	for i := range servers {
		timeout := defaultDrain
		if drain := servers[i].Spec.Drain; drain != nil && drain.Timeout != nil {
			timeout = drain.Timeout.Duration
		}
		for _, key := range plan.Keys(&servers[i]) {
			longest[key.Addr] = max(longest[key.Addr], timeout)
		}
	}
	return longest
}

func nameOf(vs *v1alpha1.VirtualServer) types.NamespacedName {
	return types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}
}

// has says whether a pod is to have the VIP.
func (all wants) has(uid types.UID, vip netip.Addr) bool {
	return slices.ContainsFunc(all[uid].VIPs, func(v VIP) bool { return v.Addr == vip })
}

// with returns all and those VIPs of others that keep is true of.
func (all wants) with(others wants, keep func(types.UID, netip.Addr) bool) wants {
	union := maps.Clone(all)
	for uid, other := range others {
		for _, vip := range other.VIPs {
			if all.has(uid, vip.Addr) || !keep(uid, vip.Addr) {
				continue
			}
			more := other
			more.VIPs = []VIP{vip}
			union[uid] = merge(union[uid], more)
		}
	}
	return union
}

// thatHave returns those pods that have some VIP: the others, such as pods that
// are gone, have none to lose.
func (all wants) thatHave(found map[types.UID]Report) wants {
	having := wants{}
	for uid, pod := range all {
		if len(found[uid].VIPs) > 0 {
			having[uid] = pod
		}
	}
	return having
}

// pods lists, in order, those that are to have VIPs.
func (all wants) pods() []Pod {
	var pods []Pod
	for _, pod := range all {
		if len(pod.VIPs) > 0 {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(a, b Pod) int { return cmp.Compare(a.UID, b.UID) })
	return pods
}

// losing counts the pods that lose a VIP from one to the other, of how many that
// have any.
func losing(from, to wants) (losers, of int) {
	for uid, pod := range from {
		if len(pod.VIPs) > 0 {
			of++
		}
		if slices.ContainsFunc(pod.VIPs, func(vip VIP) bool { return !to.has(uid, vip.Addr) }) {
			losers++
		}
	}
	return losers, of
}
