// Package deploy installs the operator into a lab as a user would into a
// cluster: the image, the chart, and realserver on the hosts outside.
package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/hack/image/assemble"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/lab/toolchain"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

const (
	// Namespace is where the operator is installed.
	Namespace = "lvs-operator-system"
	// Release is the name of the chart's release.
	Release = "lvs-operator"
	// DaemonSet is the name of the directors' DaemonSet.
	DaemonSet = "lvs-operator-director"

	repository = "lvs-operator.local/lvs-operator"
)

// DirectorPods tells the directors' pods from the others of the namespace.
func DirectorPods() client.MatchingLabels {
	return client.MatchingLabels{"app.kubernetes.io/component": "director"}
}

// Deployment is the operator in a lab.
type Deployment struct {
	Lab *cluster.Lab
	// Root is the top of the source tree.
	Root     string
	Progress io.Writer

	realserver string
	helm       string
	// tag is the image's: another image has another, so that the pods of a lab
	// that stayed up are replaced.
	tag string
}

// New prepares a deployment of the source tree that holds the working
// directory: it builds the programs and loads the image into the nodes.
func New(ctx context.Context, lab *cluster.Lab, progress io.Writer) (*Deployment, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	tools, err := toolchain.New(progress)
	if err != nil {
		return nil, err
	}
	d := &Deployment{Lab: lab, Root: root, Progress: progress}
	if d.helm, err = tools.Ensure(ctx, "helm"); err != nil {
		return nil, err
	}
	programs, err := assemble.Programs(ctx, assemble.Source{Dir: root, Packages: assemble.Packages(), Architecture: runtime.GOARCH})
	if err != nil {
		return nil, err
	}
	out := filepath.Join(root, "out")
	if err := os.MkdirAll(filepath.Join(out, "bin"), 0o755); err != nil {
		return nil, fmt.Errorf("making the output folder: %w", err)
	}
	d.realserver = filepath.Join(out, "bin", "realserver")
	if err := replace(d.realserver, programs["/realserver"]); err != nil {
		return nil, err
	}
	image, err := assemble.Image(programs, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	archive := filepath.Join(out, "image.tar")
	if d.tag, err = writeImage(archive, image); err != nil {
		return nil, err
	}
	return d, lab.Load(ctx, archive)
}

// writeImage writes the image's archive and returns its tag, which is made of
// its digest.
func writeImage(archive string, image v1.Image) (string, error) {
	digest, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("computing the image's digest: %w", err)
	}
	tag := digest.Hex[:12]
	reference, err := name.NewTag(repository + ":" + tag)
	if err != nil {
		return "", fmt.Errorf("naming the image: %w", err)
	}
	if err := tarball.WriteToFile(archive, reference, image); err != nil {
		return "", fmt.Errorf("writing the image: %w", err)
	}
	return tag, nil
}

// replace writes a program anew: one that runs is not written over.
func replace(path string, content []byte) error {
	if len(content) == 0 {
		return fmt.Errorf("the program for %s was not built", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replacing %s: %w", path, err)
	}
	if err := os.WriteFile(path, content, 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the source tree: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "charts", "lvs-operator", "Chart.yaml")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("finding the source tree: no parent of the working directory holds charts/lvs-operator")
		}
	}
}

// values are what the lab sets of the chart's values, for helm's --set.
func (d *Deployment) values() []string {
	return []string{
		"image.repository=" + repository,
		"image.tag=" + d.tag,
		"apiServer.host=10.99.0.1",
		"pool.allow[0].addresses={192.168.11.200-192.168.11.229,fd00:11::200-fd00:11::220}",
		"pool.allow[0].realServers={192.168.11.0/24,fd00:11::/64}",
	}
}

// Install installs or upgrades the chart and waits until its pods are ready.
func (d *Deployment) Install(ctx context.Context, values ...string) error {
	args := []string{
		"upgrade", "--install", Release, filepath.Join(d.Root, "charts", "lvs-operator"),
		"--namespace", Namespace, "--create-namespace", "--wait", "--timeout", "5m",
		// In a lab that stayed up a test may have changed what the chart made.
		"--force-conflicts",
	}
	for _, value := range append(d.values(), values...) {
		args = append(args, "--set", value)
	}
	return d.Helm(ctx, args...)
}

// Uninstall takes the chart away. Its Job waits until every node is as it was
// found.
func (d *Deployment) Uninstall(ctx context.Context) error {
	return d.Helm(ctx, "uninstall", Release, "--namespace", Namespace, "--wait", "--timeout", "6m")
}

// Helm runs helm against the lab.
func (d *Deployment) Helm(ctx context.Context, args ...string) error {
	command := exec.CommandContext(ctx, d.helm, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+d.Lab.Kubeconfig())
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Run(); err != nil {
		return fmt.Errorf("running helm %s: %w\n%s", args[0], err, said.String())
	}
	return nil
}

// RealServer runs realserver on a host outside the cluster and returns what it
// wrote.
func (d *Deployment) RealServer(ctx context.Context, host string, args ...string) (string, error) {
	var out, problems bytes.Buffer
	code, err := d.Lab.Exec(ctx, host, d.RealServerCommand(host, args...), wire.Streams{Stdout: &out, Stderr: &problems})
	if err != nil {
		return out.String(), fmt.Errorf("running realserver on %s: %w", host, err)
	}
	if code != 0 {
		return out.String(), fmt.Errorf("realserver on %s ended with %d: %s", host, code, problems.String())
	}
	return out.String(), nil
}

// RealServerCommand is how realserver is run on a host. Hosts share this
// machine's files, so each has a state directory of its own.
func (d *Deployment) RealServerCommand(host string, args ...string) []string {
	state := filepath.Join("/run/lvs-operator-lab", d.Lab.Config().Name, "realserver-"+host)
	return append([]string{d.realserver, args[0], "--state-dir", state}, args[1:]...)
}
