package election

import (
	"strconv"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// This is the simulated API server, with what lies between it and a director.

// request carries a request to the API server and its outcome back: exactly one
// of done and lost is called, lost after a third of the duration.
func (n *node) request(serve func() (answer func()), lost func()) {
	w, start := n.w, n.starts
	deadline := w.now.Add(duration / 3)
	answered := false
	w.after(duration/3, func() {
		n.live(start, func() {
			if !answered {
				answered = true
				lost()
			}
		})
	})
	if n.cut || w.rand.Float64() < w.loss {
		return
	}
	w.after(w.delay(), func() {
		answer := serve()
		if n.cut || w.rand.Float64() < w.loss {
			return
		}
		w.after(w.delay(), func() {
			if w.now.After(deadline) {
				return
			}
			n.live(start, func() {
				if !answered {
					answered = true
					answer()
				}
			})
		})
	})
}

// store is what the API server does with a write; nil is a conflict.
func (g *group) store(d Decision, object *coordinationv1.Lease) *coordinationv1.Lease {
	switch {
	case d.Write == Create && g.lease != nil:
		return nil
	case d.Write != Create && (g.lease == nil || g.lease.ResourceVersion != object.ResourceVersion):
		return nil
	}
	before := claim{}
	if g.lease != nil {
		before = claimOf(g.lease)
	}
	if after := claimOf(object); d.Write == Acquire || d.Write == Create {
		if after.epoch <= before.epoch {
			g.w.fail("%s acquired epoch %d of %s after epoch %d", after.instance, after.epoch, g.name, before.epoch)
		}
		g.epochs[after.epoch] = after.instance
	}
	g.put(object.DeepCopy())
	return g.lease.DeepCopy()
}

// put stores a version of the Lease and tells all who can hear it.
func (g *group) put(object *coordinationv1.Lease) {
	g.version++
	object.ResourceVersion = strconv.Itoa(g.version)
	g.lease = object
	g.broadcast(object.DeepCopy(), false)
}

func (g *group) remove() {
	if g.lease == nil {
		return
	}
	g.version++
	gone := g.lease.DeepCopy()
	gone.ResourceVersion = strconv.Itoa(g.version)
	g.lease = nil
	g.broadcast(gone, true)
}

func (g *group) broadcast(object *coordinationv1.Lease, deleted bool) {
	w := g.w
	for _, p := range g.parts {
		start := p.starts
		if !p.running || p.cut || w.rand.Float64() < w.loss {
			continue
		}
		w.after(w.delay(), func() {
			p.live(start, func() {
				p.heardOf = w.now
				p.belief.event(w.now, object, deleted)
				p.decide()
			})
		})
	}
}

// vacate is what somebody does who edits the Lease.
func (g *group) vacate() {
	if g.lease != nil {
		object := g.lease.DeepCopy()
		object.Spec.HolderIdentity = new("")
		stamp := metav1.NewMicroTime(g.w.now)
		object.Spec.RenewTime = &stamp
		g.put(object)
	}
}
