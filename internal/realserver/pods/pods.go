// Package pods keeps the pods of one node real servers for direct routing: in the
// network namespace of each that is wanted it puts VIPs on lo and sets the ARP
// sysctls, keeps both so, and puts everything back when it is wanted no more. It
// knows no Kubernetes: what is wanted comes from outside, what there is is told.
package pods

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/podnetns"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// Pod is a pod that is to have VIPs.
type Pod struct {
	// UID, Namespace and Name are the pod's.
	UID, Namespace, Name string
	// HostNetwork says that the pod is in the node's network, where all such pods
	// have the VIPs of all of them.
	HostNetwork bool
	// VIPs in any order, none twice. A pod with none is reported and left alone.
	VIPs []VIP
}

// VIP is an address that a pod is to have on lo.
type VIP struct {
	Addr netip.Addr
	// Linger is how long it stays when it is not wanted any more: for connections
	// that end, and for directors that have not heard yet.
	Linger time.Duration
}

// Report is what a pod has.
type Report struct {
	// UID, Namespace and Name are the pod's.
	UID, Namespace, Name string
	// Sandbox is the runtime's name of the namespace that this is about; empty if
	// the pod has none.
	Sandbox string
	// PodAddresses are those of that namespace, the runtime's first; for a pod with
	// HostNetwork all that the node has on other interfaces than lo, in order.
	PodAddresses []netip.Addr
	// VIPs, in order, are those that were found on lo when it was last looked at, with
	// nothing that would make the pod answer ARP for them. A VIP that is to be taken
	// off is not in it any more when that begins.
	VIPs []netip.Addr
	// Problem says in one line why a VIP that is wanted is missing.
	Problem string
	// Complete says that none is missing.
	Complete bool
}

// Runtime tells of the sandboxes of pods; podnetns.Client is one.
type Runtime interface {
	// Sandboxes lists all sandboxes, with details of those wanted.
	Sandboxes(ctx context.Context, wanted func(podUID, sandbox string) bool) ([]podnetns.Sandbox, error)
	// Changes sends when another list may differ; it need not.
	Changes(context.Context) <-chan struct{}
}

// Host is one network namespace; kernel.RealServer is one.
type Host interface {
	realserver.Host
	// Close gives it up and leaves what is there.
	Close() error
}

// Options are what an Agent works with.
type Options struct {
	Runtime Runtime
	// OpenHost opens the network namespace at a path; without one it is the agent's
	// own, which has to be the node's. See OpenKernel.
	OpenHost func(netns, stateDir string) (Host, error)
	// StateDir is the folder for what was found before it was changed. It has to
	// outlive the process and go with a reboot.
	StateDir string
	// Interval is the time between two checks of a namespace for what the kernel
	// reports no changes of; 0 is DefaultInterval.
	Interval time.Duration
	// Poll is the time between two lists of sandboxes while the runtime tells of
	// no change; 0 is DefaultPoll.
	Poll time.Duration
	// Changed is called after Reports began to return something else, from any
	// goroutine. It must not wait.
	Changed func()
	Log     *slog.Logger
}

// The defaults of Options, and how long VIPs stay that an earlier process left and
// that nobody wants.
const (
	DefaultInterval = 10 * time.Second
	DefaultPoll     = 3 * time.Second
	DefaultLinger   = 90 * time.Second
)

// hostKey is the key of the node's own namespace among those of sandboxes.
const hostKey = ""

// Agent keeps the pods of a node real servers. Its methods may be called
// concurrently; Run once.
type Agent struct {
	opts  Options
	wake  chan struct{}
	slots chan struct{}

	mu      sync.Mutex
	pods    map[string]Pod // by UID; nil before the first Want
	listed  bool           // the runtime has answered once
	listErr error          // of the last list
	newest  map[string]podnetns.Sandbox
	keepers map[string]*keeper // by sandbox
	missing map[string]time.Time
}

// together is how many namespaces are worked on at a time: each such work takes a
// thread.
const together = 8

// New makes an agent. Nothing happens before Run.
func New(opts Options) *Agent {
	if opts.Interval <= 0 {
		opts.Interval = DefaultInterval
	}
	if opts.Poll <= 0 {
		opts.Poll = DefaultPoll
	}
	if opts.Changed == nil {
		opts.Changed = func() {}
	}
	return &Agent{
		opts: opts, wake: make(chan struct{}, 1), slots: make(chan struct{}, together),
		keepers: map[string]*keeper{}, missing: map[string]time.Time{},
	}
}

// Want says which pods are to have VIPs, all of them; none is listed twice. What
// an earlier process has left is not touched before the first call.
func (a *Agent) Want(pods []Pod) {
	wanted := make(map[string]Pod, len(pods))
	for _, p := range pods {
		p.VIPs = slices.Clone(p.VIPs)
		wanted[p.UID] = p
	}
	a.mu.Lock()
	same := a.pods != nil && reflect.DeepEqual(a.pods, wanted)
	a.pods = wanted
	a.mu.Unlock()
	if !same {
		signal(a.wake)
	}
}

// Reports says of each pod that is wanted what it has, and of others that have
// VIPs still, ordered by UID. It is empty before the first Want. An error means that the
// container runtime does not answer; the reports are then about the sandboxes
// that it last told of.
func (a *Agent) Reports() ([]Report, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reports(), a.listErr
}

func (a *Agent) reports() []Report {
	var reports []Report
	for _, pod := range a.pods {
		reports = append(reports, a.report(pod))
	}
	for uid, s := range a.newest {
		k := a.keepers[s.ID]
		if _, wanted := a.pods[uid]; wanted || k == nil {
			continue
		}
		if found, _ := k.found(); len(found.VIPs) > 0 {
			reports = append(reports, Report{
				UID: uid, Namespace: s.Namespace, Name: s.Name, Sandbox: s.ID,
				PodAddresses: s.Addresses, VIPs: found.VIPs, Complete: true,
			})
		}
	}
	slices.SortFunc(reports, func(x, y Report) int { return strings.Compare(x.UID, y.UID) })
	return reports
}

// report of a pod that is wanted.
func (a *Agent) report(pod Pod) Report {
	r := Report{UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name}
	s, found := a.newest[pod.UID]
	switch {
	case !found && a.listed:
		r.Problem = "the container runtime has no sandbox of the pod that is ready"
	case !found:
		r.Problem = "the container runtime has not been asked yet"
	case s.Err != nil:
		r.Sandbox, r.Problem = s.ID, s.Err.Error()
	case !known(s):
		r.Sandbox, r.Problem = s.ID, "the container runtime has not been asked yet"
	case s.HostNetwork != pod.HostNetwork:
		r.Sandbox = s.ID
		r.Problem = "the container runtime and the pod disagree whether it is in the node's network"
	default:
		r.Sandbox, r.PodAddresses = s.ID, s.Addresses
		if k := a.keepers[keyOf(s)]; k != nil {
			var outcome realserver.Outcome
			outcome, r.Problem = k.found()
			r.VIPs = outcome.VIPs
			if s.HostNetwork {
				r.PodAddresses = outcome.Addresses
			}
		}
	}
	r.Complete = !slices.ContainsFunc(pod.VIPs, func(v VIP) bool { return !slices.Contains(r.VIPs, v.Addr) })
	switch {
	case r.Complete:
		r.Problem = ""
	case r.Problem == "":
		r.Problem = "the pod is being prepared"
	}
	return r
}

// keyOf is the key of the namespace that a sandbox has.
func keyOf(s podnetns.Sandbox) string {
	if s.HostNetwork {
		return hostKey
	}
	return s.ID
}

// stateDir is where the record of a namespace is.
func (a *Agent) stateDir(key string) string {
	if key == hostKey {
		return filepath.Join(a.opts.StateDir, "host")
	}
	return filepath.Join(a.podsDir(), key)
}

func (a *Agent) podsDir() string { return filepath.Join(a.opts.StateDir, "pods") }

// union is what all pods in the node's network are to have together.
func union(pods []Pod) []VIP {
	lingers := map[netip.Addr]time.Duration{}
	for _, pod := range pods {
		for _, v := range pod.VIPs {
			lingers[v.Addr] = max(lingers[v.Addr], v.Linger)
		}
	}
	var vips []VIP
	for _, addr := range slices.SortedFunc(maps.Keys(lingers), netip.Addr.Compare) {
		vips = append(vips, VIP{Addr: addr, Linger: lingers[addr]})
	}
	return vips
}

// signal wakes whoever waits, now or next.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
