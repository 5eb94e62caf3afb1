package plan

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Preparations returns which VIPs each pod of the snapshot is to have on its lo,
// in order: those of its family of every VirtualServer that is accepted and
// that selects it or names a Service that it is an endpoint of. A pod that has no
// address yet may be of either family, and is to have all of them. Whether the pod
// is ready makes no difference, since being prepared is what it may wait for, nor
// whether it is being deleted, since its connections are to end in peace. Pods
// that no VirtualServer wants are not in it; those that only refused ones want,
// or that are in the network of a director, have an empty list. Those that have
// finished are not in it. The snapshot's Key, Source, Prepared and Reach do not
// matter.
func Preparations(s Snapshot) map[types.UID][]netip.Addr {
	p := preparing{
		court:  newCourt(&s),
		pods:   indexPods(s.Pods),
		wanted: map[types.UID][]netip.Addr{},
	}
	for _, vs := range oldestFirst(s.VirtualServers) {
		if accepted, refused := p.court.judge(vs); refused == nil {
			p.want(vs.Namespace, &accepted.selection, accepted)
			continue
		}
		// What can't be read of a refused one selects nothing.
		selected, _ := selectionOf(&vs.Spec)
		p.want(vs.Namespace, &selected, nil)
	}
	for uid, vips := range p.wanted {
		slices.SortFunc(vips, netip.Addr.Compare)
		p.wanted[uid] = slices.Compact(vips)
	}
	return p.wanted
}

// preparing collects what pods are to have.
type preparing struct {
	court  *court
	pods   podIndex
	wanted map[types.UID][]netip.Addr
}

// want enters the pods of a selection; the claim is nil if it is refused.
func (p *preparing) want(namespace string, of *selection, accepted *claim) {
	for _, pod := range p.pods.byNamespace[namespace] {
		if of.selects(pod) {
			p.give(pod, accepted)
		}
	}
	if of.service == "" {
		return
	}
	for _, e := range p.court.snapshot.Endpoints[types.NamespacedName{Namespace: namespace, Name: of.service}] {
		if pod, believed := p.pods.behind(&e, namespace); believed {
			p.give(pod, accepted)
		}
	}
}

// give enters the VIPs of a claim that a pod can serve.
func (p *preparing) give(pod *Pod, accepted *claim) {
	vips := p.wanted[pod.UID]
	if accepted != nil {
		for _, vip := range accepted.addresses {
			if p.canServe(pod, vip, accepted) {
				vips = append(vips, vip)
			}
		}
	}
	p.wanted[pod.UID] = vips
}

// canServe says whether the pod has an address of the VIP's family that
// a director may send to, or may still get one.
func (p *preparing) canServe(pod *Pod, vip netip.Addr, accepted *claim) bool {
	if p.court.directorOf(netip.Addr{}, pod) != "" {
		return false // the director has it
	}
	if len(pod.Addresses) == 0 {
		return true
	}
	return slices.ContainsFunc(pod.Addresses, func(addr netip.Addr) bool {
		return addr.BitLen() == vip.BitLen() && p.court.directorOf(addr, pod) == "" && p.court.judgePod(addr, pod, accepted) == nil
	})
}
