package kernel

import (
	"context"
	"fmt"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// expireNodest is the setting by which the kernel gives up the connections of a
// destination that was deleted: at the next packet, and all of them within a
// jiffy or two (ip_vs_in and ip_vs_expire_nodest_conn_flush of ip_vs_core.c and
// ip_vs_conn.c). Without it packets are dropped and connections wait.
const expireNodest = "ipv4/vs/expire_nodest_conn"

// lastWeights remembers the last weight of destinations at weight 0 that were
// given one. Of others it is unknown, as after a restart.
type lastWeights map[netstate.DestinationKey]uint32

// note takes note of an operation that was applied.
func (l *lastWeights) note(op netstate.Op) {
	switch change := op.(type) {
	case netstate.DestinationChange:
		if change.Verb == netstate.Del || change.Value.Weight > 0 || change.Value.LastWeight == 0 {
			delete(*l, change.Entry)
			return
		}
		if *l == nil {
			*l = lastWeights{}
		}
		(*l)[change.Entry] = change.Value.LastWeight
	case netstate.ServiceChange:
		if change.Verb != netstate.Del {
			return
		}
		for k := range *l {
			if k.Service == change.Entry {
				delete(*l, k)
			}
		}
	}
}

// complete adds what is known to what the kernel told.
func (l lastWeights) complete(k netstate.DestinationKey, v netstate.Destination) netstate.Destination {
	if v.Weight == 0 {
		v.LastWeight = l[k]
	}
	return v
}

// moveDestination takes a destination out and puts it in again, behind the
// others. The kernel keeps one that has connections for a while, and one that is
// added again is the same (ip_vs_trash_get_dest of ip_vs_ctl.c), so that its
// connections live on. What they send in between must only be dropped, and is sent
// again. First is what it is put in as; it ends as last.
func (c *Client) moveDestination(ctx context.Context, service *ipvs.Service, first, last *ipvs.Destination) error {
	s := sysctls{root: c.opts.Sysctls, record: c.record}
	var expires string
	if err := c.netns.run(ctx, func() (err error) {
		if expires, err = s.read(expireNodest); err == nil && expires != "0" {
			err = s.write(expireNodest, "0")
		}
		return err
	}); err != nil {
		return fmt.Errorf("having connections wait for their destination: %w", err)
	}
	err := c.ipvs.do(ctx, func(h ipvsHandle) error {
		if err := h.DelDestination(service, last); err != nil && !isErrno(err, unix.ENOENT) {
			return err
		}
		if err := addDestination(h, service, first); err != nil || first.Weight == last.Weight {
			return err
		}
		return h.UpdateDestination(service, last)
	})
	if expires == "0" {
		return err
	}
	// Whatever became of ctx: else it stays so until the next audit.
	return join(err, c.netns.run(context.WithoutCancel(ctx), func() error { return s.write(expireNodest, expires) }))
}
