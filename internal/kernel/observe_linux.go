package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// index is where to look: for each key the entries that the last audit saw and
// that were made since. It is never an answer by itself.
type index struct {
	filled bool
	keys   map[netstate.Key]netstate.State
	// audits counts those that run; what is applied meanwhile is kept in journal,
	// since they may have read before it.
	audits  int
	journal []netstate.Op
}

// of returns a copy of what is known of a key.
func (i *index) of(key netstate.Key) netstate.State {
	if s, ok := i.keys[key]; ok {
		return s.Clone()
	}
	return netstate.New()
}

func (i *index) put(key netstate.Key, s netstate.State) {
	if i.keys == nil {
		i.keys = map[netstate.Key]netstate.State{}
	}
	if len(s.Guard)+len(s.Addresses)+len(s.Services)+len(s.Destinations) == 0 {
		delete(i.keys, key)
		return
	}
	i.keys[key] = s
}

// perform notes an operation that was applied.
func (i *index) perform(op netstate.Op) {
	s := i.of(op.Key())
	s.Perform(op)
	i.put(op.Key(), s)
	if i.audits > 0 {
		i.journal = append(i.journal, op)
	}
}

// begin notes that an audit starts; replace needs what it returns.
func (i *index) begin() int {
	i.audits++
	return len(i.journal)
}

func (i *index) end() {
	if i.audits--; i.audits == 0 {
		i.journal = nil
	}
}

// replace puts what an audit found in place of what was known, and after it
// what was applied since the audit began. Services of firewall marks stay: no
// audit can tell whose they are.
func (i *index) replace(fresh map[netstate.Key]netstate.State, since int) {
	for key, s := range i.keys {
		if key.Mark != 0 {
			fresh[key] = s
		}
	}
	i.filled, i.keys = true, fresh
	for _, op := range i.journal[since:] {
		s := i.of(op.Key())
		s.Perform(op)
		i.put(op.Key(), s)
	}
}

func (c *Client) apply(ctx context.Context, op netstate.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	switch change := op.(type) {
	case netstate.GuardChange:
		err = c.applyGuard(ctx, change)
	case netstate.AddressChange:
		err = c.applyAddress(ctx, change)
	case netstate.ServiceChange:
		err = c.applyService(ctx, change)
	case netstate.DestinationChange:
		err = c.applyDestination(ctx, change)
	default:
		err = fmt.Errorf("%w: operation %T", ErrUnsupported, op)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index.perform(op)
	c.lastWeights.note(op)
	return nil
}

// keys audits: it reads the tables and fills the index with what is ours.
func (c *Client) keys(ctx context.Context) ([]netstate.Key, error) {
	c.mu.Lock()
	since := c.index.begin()
	c.mu.Unlock()
	fresh, err := c.audit(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.index.end()
	if err != nil {
		return nil, err
	}
	owned := slices.SortedFunc(maps.Keys(fresh), netstate.Key.Compare)
	c.index.replace(fresh, since)
	return owned, nil
}

// audit finds what is ours. A VIP is ours if it is on netstate.DummyLink, a
// service if its VIP is ours; on the announcement interface only such VIPs are
// looked at, and all of the guard's table is ours by its name.
func (c *Client) audit(ctx context.Context) (map[netstate.Key]netstate.State, error) {
	all := netstate.New()
	if err := c.auditAddresses(ctx, all); err != nil {
		return nil, err
	}
	ours := map[netstate.Key]bool{}
	for k := range all.Addresses {
		ours[netstate.Key{Addr: k.Addr}] = true
	}
	guard, err := c.listGuard(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range guard {
		all.Guard[k] = netstate.Present{}
	}
	services, err := c.listServices(ctx, func(k netstate.Key) bool { return ours[k] })
	if err != nil && !errors.Is(err, ErrNoIPVS) {
		return nil, err
	}
	maps.Copy(all.Services, services)

	keys := map[netstate.Key]netstate.State{}
	for _, k := range all.Keys() {
		keys[k] = netstate.New()
	}
	split(all, keys)
	return keys, nil
}

// split hands the entries of all to the keys that they belong to.
func split(all netstate.State, keys map[netstate.Key]netstate.State) {
	for k, v := range all.Guard {
		keys[netstate.Key{Addr: k.VIP}].Guard[k] = v
	}
	for k, v := range all.Addresses {
		keys[netstate.Key{Addr: k.Addr}].Addresses[k] = v
	}
	for k, v := range all.Services {
		keys[k.Key].Services[k] = v
	}
}

// auditAddresses lists the VIPs on the dummy device, and where they are on the
// announcement interface too.
func (c *Client) auditAddresses(ctx context.Context, all netstate.State) error {
	dummy, err := c.vipsOn(ctx, netstate.DummyLink)
	if err != nil {
		return err
	}
	announced := map[netip.Addr]bool{}
	name, err := c.announcementInterface()
	if err != nil {
		return err
	}
	if name != "" {
		list, err := c.vipsOn(ctx, name)
		if err != nil {
			return err
		}
		for _, addr := range list {
			announced[addr] = true
		}
	}
	for _, addr := range dummy {
		all.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: addr}] = netstate.Address{}
		if announced[addr] {
			all.Addresses[netstate.AddressKey{Link: name, Addr: addr}] = netstate.Address{}
		}
	}
	return nil
}

// vipsOn lists the /32 and /128 addresses of a link; none if there is no link.
func (c *Client) vipsOn(ctx context.Context, name string) ([]netip.Addr, error) {
	link, err := c.linkByName(name)
	if errors.Is(err, ErrNoLink) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := c.listAddresses(ctx, link)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range list {
		if ones, bits := a.Mask.Size(); ones == bits && ones > 0 {
			addrs = append(addrs, fromIP(a.IP).Unmap())
		}
	}
	return addrs, nil
}

// announcementInterface is that of the last Prepare, of this process or, by the
// record, of one before it; empty if there was none.
func (c *Client) announcementInterface() (string, error) {
	c.mu.Lock()
	node := c.node
	c.mu.Unlock()
	if node != nil {
		return node.Interface, nil
	}
	return c.record.announcementInterface()
}

func (c *Client) observe(ctx context.Context, key netstate.Key) (netstate.Observation, error) {
	if err := ctx.Err(); err != nil {
		return netstate.Observation{}, err
	}
	known, err := c.known(ctx, key)
	if err != nil {
		return netstate.Observation{}, err
	}
	seen := netstate.Observation{
		State:       netstate.New(),
		Connections: map[netstate.DestinationKey]netstate.Connections{},
		Order:       map[netstate.ServiceKey][]netstate.DestinationKey{},
	}
	for k := range known.Addresses {
		v, found, err := c.readAddress(k)
		if err != nil {
			return netstate.Observation{}, fmt.Errorf("reading %s: %w", k, err)
		}
		if found {
			seen.Addresses[k] = v
		}
	}
	if err := c.readGuard(ctx, known.Guard, seen.Guard); err != nil {
		return netstate.Observation{}, err
	}
	for k := range known.Services {
		if err := c.observeService(ctx, k, known.Destinations, seen); err != nil {
			return netstate.Observation{}, err
		}
	}
	c.learn(key, seen.State)
	return seen, nil
}

func (c *Client) observeService(
	ctx context.Context, k netstate.ServiceKey,
	known map[netstate.DestinationKey]netstate.Destination, seen netstate.Observation,
) error {
	service, found, err := c.readService(ctx, k)
	if err != nil || !found {
		return err
	}
	seen.Services[k] = service
	destinations, order, err := c.readDestinations(ctx, k, known)
	if err != nil {
		return err
	}
	seen.Order[k] = order
	c.mu.Lock()
	defer c.mu.Unlock()
	for d, v := range destinations {
		seen.Destinations[d] = c.lastWeights.complete(d, v.value)
		seen.Connections[d] = v.connections
	}
	return nil
}

// known returns where to look for the entries of a key.
func (c *Client) known(ctx context.Context, key netstate.Key) (netstate.State, error) {
	c.mu.Lock()
	filled := c.index.filled
	c.mu.Unlock()
	if !filled {
		if _, err := c.keys(ctx); err != nil {
			return netstate.State{}, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index.of(key), nil
}

// learn adds what was read to what is known. What was not found stays known,
// until the next audit: it costs a look, and it may come back.
func (c *Client) learn(key netstate.Key, seen netstate.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.index.of(key)
	maps.Copy(known.Services, seen.Services)
	maps.Copy(known.Destinations, seen.Destinations)
	c.index.put(key, known)
}
