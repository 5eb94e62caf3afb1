package pods

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/podnetns"
)

const (
	// settle is the least time between two lists.
	settle = 100 * time.Millisecond
	// A record is deleted when its sandbox has been missing from all lists for this
	// time.
	forgetAfter = 30 * time.Second
)

// Run works until ctx ends and leaves everything in place then: the next process
// takes it over. When it returns nothing is worked on any more.
func (a *Agent) Run(ctx context.Context) {
	changes := a.opts.Runtime.Changes(ctx)
	defer a.wait()
	for {
		a.pass(ctx)
		if !pause(ctx, settle) {
			return
		}
		poll := time.NewTimer(a.opts.Poll)
		select {
		case <-ctx.Done():
			return
		case _, ok := <-changes:
			if !ok {
				changes = nil
			}
		case <-a.wake:
		case <-poll.C:
		}
	}
}

// pause is false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// wait lets all keepers end, whose context has ended.
func (a *Agent) wait() {
	a.mu.Lock()
	var all []*keeper
	for _, k := range a.keepers {
		all = append(all, k)
	}
	a.mu.Unlock()
	for _, k := range all {
		<-k.done
	}
}

// pass looks at the sandboxes and gives each keeper what is wanted of it.
func (a *Agent) pass(ctx context.Context) {
	recorded, err := a.recorded()
	if err != nil {
		a.opts.Log.Error("what an earlier process has left can't be taken over; trying again", "err", err)
	}
	sandboxes, listErr := a.opts.Runtime.Sandboxes(ctx, func(podUID, sandbox string) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		_, wanted := a.pods[podUID]
		return wanted || recorded[sandbox] || a.keepers[sandbox] != nil
	})
	if ctx.Err() != nil {
		return
	}
	if a.take(ctx, sandboxes, listErr, recorded) {
		a.opts.Changed()
	}
}

// take works with a list, or without one, and says whether the reports are others
// than before.
func (a *Agent) take(ctx context.Context, sandboxes []podnetns.Sandbox, listErr error, recorded map[string]bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, errBefore := a.reports(), a.listErr
	a.listErr = listErr
	if listErr == nil {
		a.listed = true
		remember(a.newest, sandboxes)
		a.newest = podnetns.Newest(sandboxes)
	}
	if a.pods != nil {
		if listErr == nil {
			a.sweep(sandboxes, recorded)
			a.begin(ctx, sandboxes, recorded)
		}
		a.distribute(ctx, recorded[hostKey])
	}
	a.complain(errBefore)
	return (errBefore == nil) != (listErr == nil) || !reflect.DeepEqual(before, a.reports())
}

// remember completes a list by what an earlier one said of the same sandboxes, which
// does not change: a pod that is wanted again must not depend on whether the runtime
// answers just then.
func remember(earlier map[string]podnetns.Sandbox, sandboxes []podnetns.Sandbox) {
	for i, s := range sandboxes {
		was, found := earlier[s.PodUID]
		if found && was.ID == s.ID && known(was) && !known(s) {
			sandboxes[i].HostNetwork, sandboxes[i].NetNS = was.HostNetwork, was.NetNS
			sandboxes[i].Addresses, sandboxes[i].Err = was.Addresses, nil
		}
	}
}

// known says whether it is known which network a sandbox has.
func known(s podnetns.Sandbox) bool { return s.HostNetwork || s.NetNS != "" }

// complain logs when the runtime stops answering and when it answers again.
func (a *Agent) complain(before error) {
	switch {
	case a.listErr != nil && before == nil:
		a.opts.Log.Error("the container runtime does not answer; pods are kept as they are", "err", a.listErr)
	case a.listErr == nil && before != nil:
		a.opts.Log.Info("the container runtime answers again")
	}
}

// recorded returns the keys of the namespaces of which there is a record.
func (a *Agent) recorded() (map[string]bool, error) {
	recorded := map[string]bool{}
	entries, err := os.ReadDir(a.podsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return recorded, err
	}
	for _, entry := range entries {
		recorded[entry.Name()] = true
	}
	_, err = os.Stat(a.stateDir(hostKey))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return recorded, err
	}
	recorded[hostKey] = err == nil
	return recorded, nil
}

// sweep ends the keepers of sandboxes that are not ready, so that nothing holds
// their namespaces, and deletes the records of those that are gone.
func (a *Agent) sweep(sandboxes []podnetns.Sandbox, recorded map[string]bool) {
	there, ready := map[string]bool{}, map[string]bool{}
	for _, s := range sandboxes {
		there[s.ID] = true
		ready[s.ID] = s.Ready
	}
	for key, k := range a.keepers {
		if key != hostKey && !ready[key] {
			k.stop()
		}
		if k.ended() {
			delete(a.keepers, key)
		}
	}
	for key := range a.missing {
		if there[key] || !recorded[key] {
			delete(a.missing, key)
		}
	}
	for key := range recorded {
		if key == hostKey || there[key] || a.keepers[key] != nil {
			continue
		}
		since, missing := a.missing[key]
		switch {
		case !missing:
			// One list alone is not believed.
			a.missing[key] = time.Now()
		case time.Since(since) >= forgetAfter:
			if err := os.RemoveAll(a.stateDir(key)); err != nil {
				a.opts.Log.Error("the record of a sandbox that is gone can't be deleted", "sandbox", key, "err", err)
			}
		}
	}
}

// begin starts keepers for sandboxes that are wanted, or that an earlier process
// left something in.
func (a *Agent) begin(ctx context.Context, sandboxes []podnetns.Sandbox, recorded map[string]bool) {
	for _, s := range sandboxes {
		if !s.Ready || s.Err != nil || s.NetNS == "" || a.keepers[s.ID] != nil {
			continue
		}
		vips := a.wantedOf(s.ID, s.PodUID)
		if recorded[s.ID] || len(vips) > 0 {
			log := a.opts.Log.With("pod", s.Namespace+"/"+s.Name, "sandbox", s.ID)
			a.start(ctx, s.ID, &keeper{podUID: s.PodUID, netns: s.NetNS, log: log}, vips)
		}
	}
}

// start begins to keep a namespace.
func (a *Agent) start(ctx context.Context, key string, k *keeper, vips []VIP) {
	k.stateDir = a.stateDir(key)
	k.open, k.slots, k.interval, k.changed = a.opts.OpenHost, a.slots, a.opts.Interval, a.opts.Changed
	k.wake, k.done, k.tenancy = make(chan struct{}, 1), make(chan struct{}), newTenancy()
	k.want(vips)
	a.keepers[key] = k
	ctx, k.cancel = context.WithCancel(ctx)
	go func() {
		// So that it is started again if it is wanted again.
		defer signal(a.wake)
		defer close(k.done)
		defer k.cancel()
		k.run(ctx)
	}()
}

// wantedOf is what is wanted of a sandbox that is no host's: nothing, if it is not
// the newest of a pod that is wanted.
func (a *Agent) wantedOf(sandbox, podUID string) []VIP {
	pod, wanted := a.pods[podUID]
	if !wanted || pod.HostNetwork || a.newest[podUID].ID != sandbox {
		return nil
	}
	return pod.VIPs
}

// distribute tells each keeper what is wanted of it.
func (a *Agent) distribute(ctx context.Context, hostRecorded bool) {
	var hosts []Pod
	for uid, pod := range a.pods {
		s, found := a.newest[uid]
		// A runtime that does not answer is no reason to take VIPs off the node.
		unknown := a.listErr != nil && (!found || !known(s))
		if pod.HostNetwork && (s.HostNetwork || unknown) {
			hosts = append(hosts, pod)
		}
	}
	vips := union(hosts)
	if k := a.keepers[hostKey]; k != nil && k.ended() {
		delete(a.keepers, hostKey)
	}
	if a.keepers[hostKey] == nil && a.listed && (hostRecorded || len(vips) > 0) {
		log := a.opts.Log.With("pod", "those in the node's network")
		a.start(ctx, hostKey, &keeper{log: log}, vips)
	}
	for key, k := range a.keepers {
		if key != hostKey {
			k.want(a.wantedOf(key, k.podUID))
		} else {
			k.want(vips)
		}
	}
}
