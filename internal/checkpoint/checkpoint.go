// Package checkpoint keeps what a director must remember to go on without the
// API server after its process has been restarted. The file lies where a
// reboot removes it, as it removes the kernel's tables.
package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Version is the version of the file's schema. It grows with every change of
// what is stored: a director refuses every other version and starts without a
// checkpoint then, which costs it something only while the API server is away.
const Version = 5

// Checkpoint is what is kept.
type Checkpoint struct {
	// Pool is the director's DirectorPool, NodeName its node.
	Pool     string `json:"pool"`
	NodeName string `json:"nodeName"`
	// Node holds the settings of the pool that concern the node as a whole.
	Node netstate.Node `json:"node"`
	// Within are addresses by which the announcement interface is found if Node
	// does not name it; Refresh is the time between two announcements of a VIP.
	Within  []netip.Addr  `json:"within,omitempty"`
	Refresh time.Duration `json:"refresh,omitempty"`
	// Election and Gossip hold the pool's settings of them.
	Election Election `json:"election"`
	Gossip   Gossip   `json:"gossip"`
	// ConnectionSync holds those of sharing connections.
	ConnectionSync ConnectionSync `json:"connectionSync,omitzero"`

	Keys   []Key   `json:"keys,omitempty"`
	Groups []Group `json:"groups,omitempty"`
	Peers  []Peer  `json:"peers,omitempty"`
}

// Election is how a pool's directors decide who serves.
type Election struct {
	LeaseDuration   time.Duration `json:"leaseDuration"`
	NeverPreempt    bool          `json:"neverPreempt,omitempty"`
	PreemptionDelay time.Duration `json:"preemptionDelay,omitempty"`
	// Groups is how many groups the VIPs are divided into; 0 is one.
	Groups int `json:"groups,omitempty"`
}

// ConnectionSync is how a pool's directors share connections.
type ConnectionSync struct {
	Enabled   bool       `json:"enabled,omitempty"`
	Interface string     `json:"interface,omitempty"`
	ID        uint8      `json:"id,omitempty"`
	Group     netip.Addr `json:"group,omitzero"`
	Port      uint16     `json:"port,omitempty"`
}

// Gossip is how a pool's directors hear of each other. The keys are in a file of
// their own: see SaveKeys.
type Gossip struct {
	Port          uint16        `json:"port,omitempty"`
	ProbeInterval time.Duration `json:"probeInterval,omitempty"`
}

// Key is the wanted state of one key.
type Key struct {
	Key netstate.Key `json:"key"`
	// State has every enabled real server with its full weight.
	State  netstate.State `json:"state"`
	Checks []Check        `json:"checks,omitempty"`
	Owners []Owner        `json:"owners,omitempty"`
	// Policies of its services, each at most once.
	Policies []Policy `json:"policies,omitempty"`
	// Unready are destinations that are to get no new connections.
	Unready []Unready `json:"unready,omitempty"`
	// Links are the interfaces, other than the announcement interface, by which
	// its real servers are reached.
	Links []string `json:"links,omitempty"`
}

// Policy is how a service deals with real servers that are down, come up or
// leave. Durations are stored in nanoseconds, weights as State has them.
type Policy struct {
	Service      netstate.ServiceKey `json:"service"`
	Quiesce      bool                `json:"quiesce,omitempty"`
	DrainTimeout time.Duration       `json:"drainTimeout"`
	SlowStart    time.Duration       `json:"slowStart,omitempty"`
	Scale        uint32              `json:"scale"`
	Quorum       uint64              `json:"quorum"`
	Hysteresis   uint64              `json:"hysteresis,omitempty"`
	// Sorry is the sorry server, if there is one.
	Sorry netip.Addr `json:"sorry,omitzero"`
}

// Unready is a destination that is to get no new connections, with why.
type Unready struct {
	Destination netstate.DestinationKey `json:"destination"`
	Why         string                  `json:"why"`
}

// Check is one check of one destination.
type Check struct {
	Destination netstate.DestinationKey `json:"destination"`
	Name        string                  `json:"name"`
	Target      Target                  `json:"target"`
	Schedule    Schedule                `json:"schedule"`
	InitiallyUp bool                    `json:"initiallyUp,omitempty"`
}

// Target is what a check asks.
type Target struct {
	Type string     `json:"type"`
	Addr netip.Addr `json:"addr"`
	Port uint16     `json:"port"`
}

// Schedule says how often a check runs and what its results mean. Durations
// are stored in nanoseconds.
type Schedule struct {
	Interval         time.Duration `json:"interval"`
	Timeout          time.Duration `json:"timeout"`
	RetryInterval    time.Duration `json:"retryInterval"`
	FailureThreshold int           `json:"failureThreshold"`
	SuccessThreshold int           `json:"successThreshold"`
}

// Owner names the VirtualServer that a service is of.
type Owner struct {
	Service   netstate.ServiceKey `json:"service"`
	Namespace string              `json:"namespace"`
	Name      string              `json:"name"`
}

// Group is this director's part in an election group.
type Group struct {
	Group int `json:"group"`
	// Epoch is the highest that was seen of the group.
	Epoch int64 `json:"epoch"`
	// Active says that this director announced it.
	Active bool `json:"active,omitempty"`
	// Previous is the node of the last other director that held it, if any did.
	Previous string `json:"previous,omitempty"`
}

// Peer is another director of the pool.
type Peer struct {
	Node string     `json:"node"`
	Addr netip.Addr `json:"addr"`
	// IPv6Addr is its IPv6 address, if it has one.
	IPv6Addr netip.Addr `json:"ipv6Addr,omitzero"`
	// SyncAddr is the one from which it sends its connections, if it does.
	SyncAddr netip.Addr `json:"syncAddr,omitzero"`
	MAC      MAC        `json:"mac,omitempty"`
	// Live says that it could take over when that was last known.
	Live bool `json:"live,omitempty"`
}

// MAC is a link-layer address in the usual notation, empty if not known.
type MAC string

// What is wrong with a checkpoint that Load refuses.
var (
	// ErrVersion marks one of another schema version.
	ErrVersion = errors.New("unknown schema version")
	// ErrCorrupt marks one that cannot be read or that contradicts itself.
	ErrCorrupt = errors.New("corrupt checkpoint")
)

// file is what is stored.
type file struct {
	Version int `json:"version"`
	Checkpoint
}

// Path returns the file of a pool's checkpoint in a folder.
func Path(dir, pool string) string { return filepath.Join(dir, pool+".json") }

// Save replaces the checkpoint at path. After a crash at any moment the old one
// or the new one is there, never a part of one. Only one process may save to a
// path at a time; see Acquire.
func Save(path string, c Checkpoint) error {
	if err := save(path, c); err != nil {
		return fmt.Errorf("saving checkpoint %s: %w", path, err)
	}
	return nil
}

func save(path string, c Checkpoint) error {
	data, err := encode(c)
	if err != nil {
		return err
	}
	// The name is always the same, so that crashes leave at most one file.
	part := path + ".part"
	if err := write(part, data); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// encode refuses what decode would, so that it never replaces a file of use.
func encode(c Checkpoint) ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(file{Version: Version, Checkpoint: c})
	return append(data, '\n'), err
}

// write writes a file that only its owner reads, and brings it to the disk.
func write(path string, data []byte) error {
	// One that was left behind keeps its own permissions.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Load reads the checkpoint at path. The error wraps os.ErrNotExist if there is
// none, ErrVersion or ErrCorrupt if it is not usable; in each case the director
// starts without.
func Load(path string) (Checkpoint, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading checkpoint: %w", err)
	}
	c, err := decode(data)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading checkpoint %s: %w", path, err)
	}
	return c, nil
}

func decode(data []byte) (Checkpoint, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if head.Version != Version {
		return Checkpoint{}, fmt.Errorf("%w: it has %d, this program reads %d", ErrVersion, head.Version, Version)
	}
	var f file
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Checkpoint{}, fmt.Errorf("%w: there is something after its end", ErrCorrupt)
	}
	for _, key := range f.Keys {
		if key.State.Services == nil {
			return Checkpoint{}, fmt.Errorf("%w: key %s has no state", ErrCorrupt, key.Key)
		}
	}
	if err := f.validate(); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return f.Checkpoint, nil
}

// validate refuses what no director writes, and what whoever reads the
// checkpoint relies on not to meet.
func (c Checkpoint) validate() error {
	seen := map[netstate.Key]bool{}
	for _, key := range c.Keys {
		if err := key.validate(); err != nil {
			return fmt.Errorf("key %s: %w", key.Key, err)
		}
		if seen[key.Key] {
			return fmt.Errorf("key %s is there twice", key.Key)
		}
		seen[key.Key] = true
	}
	groups := map[int]bool{}
	for _, group := range c.Groups {
		if groups[group.Group] || group.Group < 0 || group.Epoch < 0 {
			return fmt.Errorf("group %d is there twice or has negative numbers", group.Group)
		}
		groups[group.Group] = true
	}
	return nil
}

func (k Key) validate() error {
	if k.Key.Addr.IsValid() == (k.Key.Mark != 0) {
		return errors.New("it needs an address or a mark, and not both")
	}
	for _, check := range k.Checks {
		if check.Destination.Service.Key != k.Key {
			return fmt.Errorf("check %q is of another key", check.Name)
		}
		if err := check.validate(); err != nil {
			return fmt.Errorf("check %q: %w", check.Name, err)
		}
	}
	for _, owner := range k.Owners {
		if owner.Service.Key != k.Key {
			return fmt.Errorf("VirtualServer %s/%s owns a service of another key", owner.Namespace, owner.Name)
		}
	}
	return k.validatePolicies()
}

func (k Key) validatePolicies() error {
	seen := map[netstate.ServiceKey]bool{}
	for _, policy := range k.Policies {
		switch {
		case policy.Service.Key != k.Key:
			return fmt.Errorf("the policy of %s is of another key", policy.Service)
		case seen[policy.Service]:
			return fmt.Errorf("the policy of %s is there twice", policy.Service)
		case policy.DrainTimeout < 0 || policy.SlowStart < 0:
			return fmt.Errorf("the policy of %s has a negative duration", policy.Service)
		}
		seen[policy.Service] = true
	}
	for _, unready := range k.Unready {
		if unready.Destination.Service.Key != k.Key {
			return fmt.Errorf("%s, which is not ready, is of another key", unready.Destination)
		}
	}
	if slices.Contains(k.Links, "") {
		return errors.New("it has an interface without a name")
	}
	return nil
}

func (c Check) validate() error {
	s := c.Schedule
	switch {
	case !c.Target.Addr.IsValid():
		return errors.New("it has no target address")
	case s.Interval <= 0 || s.Timeout <= 0 || s.RetryInterval <= 0:
		return errors.New("its durations have to be positive")
	case s.FailureThreshold < 1 || s.SuccessThreshold < 1:
		return errors.New("its thresholds have to be positive")
	default:
		return nil
	}
}
