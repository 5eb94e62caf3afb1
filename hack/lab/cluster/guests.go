package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
	"github.com/lvs-operator/lvs-operator/hack/lab/node"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

// bootLimit is many times what a guest needs until its agent answers.
const bootLimit = 3 * time.Minute

// guestFiles are what the lab was made from. They are recorded, so that a node
// that comes back is the same even if the checkout has changed.
type guestFiles struct {
	Kernel      machine.Kernel    `json:"kernel"`
	Root        string            `json:"root"`
	Accelerator guest.Accelerator `json:"accelerator"`
	// Kube is the folder of the control plane's programs.
	Kube string `json:"kube"`
}

func (l *Lab) readGuestFiles() (guestFiles, error) {
	var files guestFiles
	content, err := os.ReadFile(l.path("guest.json"))
	if err == nil {
		err = json.Unmarshal(content, &files)
	}
	if err != nil {
		return guestFiles{}, fmt.Errorf("looking up what the lab was made from: %w", err)
	}
	return files, nil
}

func nodeProcess(name string) string { return "node-" + name }

func (l *Lab) nodePath(name, file string) string { return l.path("nodes", name, file) }

// portSocket is where qemu listens for a caller of one of the agent's lines.
func (l *Lab) portSocket(name string, port int) string {
	return l.nodePath(name, node.PortName(port)+".sock")
}

// controlSocket is where qemu takes orders about a node's cables.
func (l *Lab) controlSocket(name string) string { return l.nodePath(name, "qmp.sock") }

// writeInitrd puts what is a node's own into its initramfs.
func (l *Lab) writeInitrd(n Node, kernel machine.Kernel, creds *credentials) error {
	if err := os.MkdirAll(l.path("nodes", n.Name), 0o755); err != nil {
		return fmt.Errorf("preparing %s: %w", n.Name, err)
	}
	boot, err := json.Marshal(l.boot(n))
	if err != nil {
		return fmt.Errorf("preparing %s: %w", n.Name, err)
	}
	overlay, err := l.overlay(n, creds)
	if err != nil {
		return fmt.Errorf("preparing %s: %w", n.Name, err)
	}
	out, err := os.Create(l.nodePath(n.Name, "initrd"))
	if err != nil {
		return fmt.Errorf("preparing %s: %w", n.Name, err)
	}
	archive := guest.NewArchive(out)
	archive.File(l.path("bin", "agent"), "/init")
	archive.BootModules(kernel, "virtio_pci", "virtio_pmem", "nd_pmem", "virtio_net", "virtio_console", "virtio_rng", "overlay")
	archive.Bytes(boot, node.BootFile, 0o600)
	for name, content := range overlay {
		archive.Bytes(content, node.Overlay+name, 0o644)
	}
	if err := errors.Join(archive.Close(), out.Close()); err != nil {
		return fmt.Errorf("preparing %s: %w", n.Name, err)
	}
	return nil
}

// bootNode starts a node's guest and does not wait for it.
func (l *Lab) bootNode(n Node, files guestFiles) error {
	qemu, err := machine.Program("qemu-system-x86_64")
	if err != nil {
		return fmt.Errorf("booting %s: %w", n.Name, err)
	}
	var disks []guest.Disk
	for _, file := range []string{files.Root, l.imagesDisk()} {
		disk, err := guest.OpenDisk(file)
		if err != nil {
			return fmt.Errorf("booting %s: %w", n.Name, err)
		}
		disks = append(disks, disk)
	}
	config := guest.Config{
		Kernel: files.Kernel, Initrd: l.nodePath(n.Name, "initrd"), Accelerator: files.Accelerator,
		MemoryMiB: l.config.MemoryMiB, Console: l.path("logs", n.Name+".console"),
		Disks: disks, Control: l.controlSocket(n.Name),
		NICs: []guest.NIC{
			{Tap: n.segmentTap(), MAC: n.segmentMAC()},
			{Tap: n.managementTap(), MAC: n.managementMAC()},
		},
	}
	if !n.Director {
		// Pods are started, probed and asked there, which is more than one emulated
		// processor does beside the node's own programs.
		config.CPUs = 2
	}
	for port := range node.Ports {
		config.Ports = append(config.Ports, guest.Port{
			Name:    node.PortName(port),
			Backend: "socket,path=" + l.portSocket(n.Name, port) + ",server=on,wait=off",
		})
	}
	return l.launch(program{
		name: nodeProcess(n.Name), host: Control, args: append([]string{qemu}, config.Arguments()...),
	})
}

// awaitNode waits until a node's agent answers, or its guest ends.
func (l *Lab) awaitNode(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	code, err := l.Exec(ctx, name, []string{"true"}, wire.Streams{})
	if err != nil || code != 0 {
		return fmt.Errorf("waiting for %s to boot: exit %d: %w; see %s", name, code, err, l.path("logs", name+".console"))
	}
	return nil
}

// Kill cuts a node's power: nothing in it gets to do anything. A node that is
// off stays off.
func (l *Lab) Kill(ctx context.Context, name string) error {
	if _, found := l.config.findNode(name); !found {
		return l.unknown(name, "a node")
	}
	return l.alone(ctx, func() error { return l.end(ctx, nodeProcess(name)) })
}

// Start boots a node that was killed, as new, and waits for its agent; or it
// starts a real server's responder. One that runs already is left alone.
func (l *Lab) Start(ctx context.Context, name string) error {
	if host, found := findHost(name); found {
		if !host.Responder {
			return fmt.Errorf("%s has no program to start: %s and %s have", name, RS1, RS2)
		}
		return l.alone(ctx, func() error { return l.startResponder(host) })
	}
	n, found := l.config.findNode(name)
	if !found {
		return l.unknown(name, "a node or a host")
	}
	return l.alone(ctx, func() error {
		if _, running := l.recorded(nodeProcess(name)); running {
			return nil
		}
		files, err := l.readGuestFiles()
		if err != nil {
			return fmt.Errorf("booting %s: %w", name, err)
		}
		if err := l.packImages(ctx); err != nil {
			return err
		}
		if err := l.bootNode(n, files); err != nil {
			return err
		}
		return l.awaitNode(ctx, name)
	})
}

// Stop ends a real server's responder; its machine stays up and refuses
// connections.
func (l *Lab) Stop(ctx context.Context, name string) error {
	if host, found := findHost(name); !found || !host.Responder {
		return fmt.Errorf("%s has no program to stop: %s and %s have", name, RS1, RS2)
	}
	return l.alone(ctx, func() error { return l.end(ctx, responderProcess(name)) })
}

func responderProcess(host string) string { return "responder-" + host }

func (l *Lab) startResponder(host Host) error {
	if _, running := l.recorded(responderProcess(host.Name)); running {
		return nil
	}
	return l.launch(program{
		name: responderProcess(host.Name), host: host.Name,
		args: []string{l.path("bin", "responder"), "--name", host.Name},
	})
}

// alone runs an operation that changes the lab while no other one does.
func (l *Lab) alone(ctx context.Context, operation func() error) error {
	release, err := locks().Lock(ctx, l.config.Name)
	if err != nil {
		return err
	}
	defer release()
	if _, err := readState(l.config.Name); err != nil {
		return err
	}
	return operation()
}

func (l *Lab) unknown(name, what string) error {
	return fmt.Errorf("%q is not %s: there are %s", name, what, l.config.memberNames())
}

// pick returns the nodes with these names; all if there are none.
func (l *Lab) pick(names []string) ([]Node, error) {
	all := l.config.Nodes()
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(n Node) bool { return n.Name == name }) {
			return nil, l.unknown(strings.TrimSpace(name), "a node")
		}
	}
	return slices.DeleteFunc(all, func(n Node) bool { return !slices.Contains(names, n.Name) }), nil
}
