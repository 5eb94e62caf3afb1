// Package cluster runs a Kubernetes cluster with a network of its own on one
// machine: nodes are virtual machines whose kernel has IPVS, the control plane
// and hosts outside the cluster are in network namespaces. Pods are routed, or
// on the nodes' segment by a bridge or macvlan. docs/lab.md has the addresses.
//
// A lab is known by its name. What this package starts is found again by what
// it records, and by the namespaces' names: also after a crash Down leaves
// nothing behind.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
	"github.com/lvs-operator/lvs-operator/hack/lab/rootfs"
	"github.com/lvs-operator/lvs-operator/hack/lab/toolchain"
)

// takeDownLimit bounds the clean-up after an Up that failed or was
// interrupted.
const takeDownLimit = time.Minute

// Lab is one that is up, or coming up. Its methods may be called concurrently.
type Lab struct {
	config Config
	dir    string
}

// Open returns the lab with this name, or ErrNotUp.
func Open(name string) (*Lab, error) {
	s, err := readState(name)
	if err != nil {
		return nil, err
	}
	if !s.Complete {
		return nil, ErrNotUp
	}
	return &Lab{config: s.Config, dir: stateDir(name)}, nil
}

// Config is what the lab is made of.
func (l *Lab) Config() Config { return l.config }

// Kubeconfig is the path of a kubeconfig with all rights, which works on this
// machine.
func (l *Lab) Kubeconfig() string { return l.path("kubeconfig") }

// Up makes a lab and returns once all nodes are Ready, bare ones once they have
// booted, telling on progress what it does and how long that took. If there is a lab of that name already
// it says so and returns that one. If it fails, or ctx ends, nothing is left.
func Up(ctx context.Context, config Config, progress io.Writer) (*Lab, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := checkMachine(); err != nil {
		return nil, err
	}
	release, err := locks().Lock(ctx, config.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	if lab, err := Open(config.Name); err == nil {
		fmt.Fprintf(progress, "lab %s is up already, with %d directors and %d workers\n",
			config.Name, lab.config.Directors, lab.config.Workers)
		return lab, nil
	}
	// What a crashed Up may have left.
	if err := takeDown(ctx, config.Name); err != nil {
		return nil, err
	}
	lab := &Lab{config: config, dir: stateDir(config.Name)}
	if err := lab.up(ctx, progress); err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeDownLimit)
		defer cancel()
		lab.keepLogs(progress)
		return nil, errors.Join(fmt.Errorf("bringing lab %s up: %w", config.Name, err), takeDown(clean, config.Name))
	}
	return lab, nil
}

// Down ends everything of the lab with this name and removes it. A lab that
// isn't there, or is half there, is no error.
func Down(ctx context.Context, name string) error {
	if !names.MatchString(name) {
		return fmt.Errorf("%q is no name for a lab", name)
	}
	if os.Geteuid() != 0 {
		return errors.New("taking a lab down: not root")
	}
	release, err := locks().Lock(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	return takeDown(ctx, name)
}

// takeDown needs the lab's lock.
func takeDown(ctx context.Context, name string) error {
	lab := &Lab{config: Config{Name: name}, dir: stateDir(name)}
	failed := lab.endAll(ctx)
	for _, namespace := range namespaces(name) {
		failed = errors.Join(failed, deleteNamespace(ctx, namespace))
	}
	if failed != nil {
		// The records stay for the next try.
		return fmt.Errorf("taking lab %s down: %w", name, failed)
	}
	if err := os.RemoveAll(lab.dir); err != nil {
		return fmt.Errorf("taking lab %s down: %w", name, err)
	}
	return nil
}

func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root: it makes network namespaces")
	}
	if unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK) != nil {
		return errors.New("a lab needs /dev/net/tun: the kernel's tun module is missing or the container may not use it")
	}
	return nil
}

func (l *Lab) up(ctx context.Context, progress io.Writer) error {
	phases := newPhases(progress)
	tools, err := toolchain.New(progress)
	if err != nil {
		return err
	}
	files, err := l.prepare(ctx, tools)
	if err != nil {
		return err
	}
	phases.done("programs, kernel and disk")

	for _, dir := range []string{"logs", "processes", "bin"} {
		if err := os.MkdirAll(l.path(dir), 0o755); err != nil {
			return fmt.Errorf("making the lab's folder: %w", err)
		}
	}
	if err := l.writeState(state{Config: l.config}); err != nil {
		return err
	}
	if err := l.writePrograms(ctx, tools); err != nil {
		return err
	}
	phases.done("own programs and images")

	if err := l.buildNetwork(ctx); err != nil {
		return err
	}
	creds, err := l.startAPI(ctx, files.Kube)
	if err != nil {
		return err
	}
	if err := l.startMachines(files, creds); err != nil {
		return err
	}
	phases.done("networks and starting everything")

	api, err := l.newAPIClient(creds)
	if err != nil {
		return err
	}
	defer api.http.CloseIdleConnections()
	if err := l.awaitAPI(ctx, api); err != nil {
		return err
	}
	phases.done("API server ready")

	if !l.config.Bare {
		if err := l.startControllers(files.Kube, creds); err != nil {
			return err
		}
	}
	if err := l.awaitNodes(ctx, api, phases); err != nil {
		return err
	}
	if err := l.writeState(state{Config: l.config, Complete: true}); err != nil {
		return err
	}
	phases.total("lab " + l.config.Name + " is up")
	return nil
}

// prepare gets what is the same for every lab.
func (l *Lab) prepare(ctx context.Context, tools *toolchain.Toolchain) (guestFiles, error) {
	needs := append(guest.Packages(),
		machine.Need{File: "ip", Package: "iproute2"}, machine.Need{File: "nft", Package: "nftables"})
	if err := machine.Install(ctx, tools.Progress, needs...); err != nil {
		return guestFiles{}, err
	}
	kernel, err := machine.DebianKernel(ctx, tools.Cache, tools.Progress)
	if err != nil {
		return guestFiles{}, err
	}
	accelerator, err := guest.ParseAccelerator(l.config.Accelerator)
	if err != nil {
		return guestFiles{}, err
	}
	if accelerator, err = guest.ChooseAccelerator(ctx, accelerator, tools.Cache, kernel, tools.Progress); err != nil {
		return guestFiles{}, err
	}
	root, err := rootfs.Image(ctx, tools, kernel)
	if err != nil {
		return guestFiles{}, err
	}
	kube, err := tools.Assets(ctx)
	return guestFiles{Kernel: kernel, Root: root, Accelerator: accelerator, Kube: kube}, err
}

// writePrograms builds the lab's own programs and the images of them.
func (l *Lab) writePrograms(ctx context.Context, tools *toolchain.Toolchain) error {
	for _, name := range []string{"agent", "forwarder", "pause", "responder"} {
		if err := tools.Own(ctx, "./hack/lab/"+name, l.path("bin", name)); err != nil {
			return err
		}
	}
	if err := l.writeImages(); err != nil {
		return err
	}
	return l.packImages(ctx)
}

// startMachines boots the nodes and starts the real servers.
func (l *Lab) startMachines(files guestFiles, creds *credentials) error {
	content, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("recording what nodes boot from: %w", err)
	}
	if err := writeFile(l.path("guest.json"), content); err != nil {
		return err
	}
	for _, n := range l.config.Nodes() {
		if err := l.writeInitrd(n, files.Kernel, creds); err != nil {
			return err
		}
		if err := l.bootNode(n, files); err != nil {
			return err
		}
	}
	for _, host := range Hosts() {
		if host.Responder {
			if err := l.startResponder(host); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lab) awaitAPI(ctx context.Context, api *apiClient) error {
	return l.await(ctx, "the API server", func(ctx context.Context) (bool, error) {
		_, err := api.get(ctx, "/readyz")
		return err == nil, err
	})
}

func (l *Lab) awaitNodes(ctx context.Context, api *apiClient, phases *phases) error {
	nodes := l.config.Nodes()
	results := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() { results[i] = l.awaitNode(ctx, n.Name) })
	}
	group.Wait()
	if err := errors.Join(results...); err != nil {
		return err
	}
	phases.done("guests booted")
	if l.config.Bare {
		return nil
	}

	err := l.await(ctx, "the nodes to be Ready", func(ctx context.Context) (bool, error) {
		ready, err := api.readyNodes(ctx)
		return ready == len(nodes), err
	})
	if err != nil {
		return err
	}
	phases.done("nodes Ready")
	return nil
}

// keepLogs saves the logs of an Up that failed from the clean-up.
func (l *Lab) keepLogs(progress io.Writer) {
	dir := filepath.Join(os.TempDir(), "lvs-lab-"+l.config.Name+"-logs")
	if os.RemoveAll(dir) != nil || os.Rename(l.path("logs"), dir) != nil {
		if os.CopyFS(dir, os.DirFS(l.path("logs"))) != nil {
			return // there are none
		}
	}
	fmt.Fprintf(progress, "the logs are in %s\n", dir)
}

// phases tells how long each step took.
type phases struct {
	out         io.Writer
	begin, last time.Time
}

func newPhases(out io.Writer) *phases {
	now := time.Now()
	return &phases{out: out, begin: now, last: now}
}

func (p *phases) done(what string) {
	now := time.Now()
	fmt.Fprintf(p.out, "%-36s %7s\n", what, now.Sub(p.last).Round(100*time.Millisecond))
	p.last = now
}

func (p *phases) total(what string) {
	fmt.Fprintf(p.out, "%-36s %7s\n", what, time.Since(p.begin).Round(100*time.Millisecond))
}
