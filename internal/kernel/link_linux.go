package kernel

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (c *Client) link(ctx context.Context, name string) (Link, error) {
	if err := ctx.Err(); err != nil {
		return Link{}, err
	}
	l, err := c.linkByName(name)
	if err != nil {
		return Link{}, err
	}
	attrs := l.Attrs()
	state := Link{
		Name:    attrs.Name,
		Index:   attrs.Index,
		Kind:    l.Type(),
		Up:      attrs.RawFlags&unix.IFF_UP != 0,
		Running: attrs.RawFlags&unix.IFF_RUNNING != 0,
		MAC:     slices.Clone(attrs.HardwareAddr),
		MTU:     attrs.MTU,
	}
	if bond, ok := l.(*netlink.Bond); ok {
		state.BondMode = bond.Mode.String()
	}
	if attrs.MasterIndex != 0 {
		// A master that is gone by now is none.
		if master, err := c.route.LinkByIndex(attrs.MasterIndex); err == nil {
			state.Master = master.Attrs().Name
		}
	}
	addrs, err := c.listAddresses(ctx, l)
	if err != nil {
		return Link{}, err
	}
	for _, a := range addrs {
		state.Addresses = append(state.Addresses, prefixOf(a))
	}
	slices.SortFunc(state.Addresses, comparePrefixes)
	return state, nil
}

func (c *Client) watchLink(ctx context.Context, name string) (<-chan Link, error) {
	// Subscribing comes before the first read, so that no change falls between.
	changed, stop, err := c.subscribe()
	if err != nil {
		return nil, err
	}
	states := make(chan Link, 1)
	go func() {
		defer close(states)
		reported := reporter{states: states}
		for err == nil && c.followLink(ctx, name, changed, &reported) {
			// The kernel dropped messages: subscribe anew, then read.
			stop()
			changed, stop, err = c.subscribe()
		}
		if err == nil {
			stop()
		}
	}()
	return states, nil
}

// followLink reports until ctx ends (false) or the subscription breaks (true).
func (c *Client) followLink(ctx context.Context, name string, changed <-chan struct{}, reported *reporter) bool {
	for {
		state, err := c.link(ctx, name)
		if ctx.Err() != nil {
			return false
		}
		if err == nil || errors.Is(err, ErrNoLink) {
			reported.report(state)
		}
		select {
		case <-ctx.Done():
			return false
		case _, ok := <-changed:
			if !ok {
				return true
			}
		}
	}
}

// reporter sends states that differ from the last one.
type reporter struct {
	states chan Link
	last   *Link
}

func (r *reporter) report(state Link) {
	if r.last == nil || !reflect.DeepEqual(*r.last, state) {
		replace(r.states, state)
		r.last = &state
	}
}

// replace puts a state into a channel of one, in place of an older one.
func replace(states chan Link, state Link) {
	for {
		select {
		case states <- state:
			return
		default:
		}
		select {
		case <-states:
		default:
		}
	}
}

// subscribe reports that some link or address changed. The channel is closed
// when the subscription broke; stop ends it.
func (c *Client) subscribe() (changed <-chan struct{}, stop func(), err error) {
	done := make(chan struct{})
	links := make(chan netlink.LinkUpdate)
	addrs := make(chan netlink.AddrUpdate)
	ns := c.netns.handle
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{Namespace: &ns}); err != nil {
		close(done)
		return nil, nil, fmt.Errorf("watching interfaces: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{Namespace: &ns}); err != nil {
		close(done)
		go drain(links)
		return nil, nil, fmt.Errorf("watching addresses: %w", err)
	}
	out := make(chan struct{}, 1)
	go func() {
		defer func() {
			close(out)
			// Their senders wait for a receiver until they see that it is over.
			go drain(links)
			drain(addrs)
		}()
		for {
			ok := true
			select {
			case _, ok = <-links:
			case _, ok = <-addrs:
			}
			if !ok {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, func() { close(done) }, nil
}

func drain[T any](ch <-chan T) {
	for range ch {
	}
}
