package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest/pid1"
	"github.com/lvs-operator/lvs-operator/hack/lab/node"
)

const (
	newRoot = "/new"
	// diskLimit is many times what the kernel needs to find a disk.
	diskLimit = 30 * time.Second
	diskPoll  = 10 * time.Millisecond
)

// buildRoot lays a tmpfs over the read-only disk that all nodes share. /var
// and /run are file systems of their own: containerd's snapshots can't live on
// an overlay.
func buildRoot() error {
	for _, dir := range []string{"/lower", "/upper", newRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("building the root: %w", err)
		}
	}
	if err := mountDisk("/dev/pmem0", "/lower"); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/upper", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting the writable part of the root: %w", err)
	}
	for _, dir := range []string{"/upper/files", "/upper/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("building the root: %w", err)
		}
	}
	if err := unix.Mount("overlay", newRoot, "overlay", 0, "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work"); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	if err := os.CopyFS(newRoot, os.DirFS(node.Overlay)); err != nil {
		return fmt.Errorf("laying the node's own files over the root: %w", err)
	}
	boot, err := os.ReadFile(node.BootFile)
	if err != nil {
		return fmt.Errorf("keeping the boot file: %w", err)
	}
	if err := os.WriteFile(newRoot+node.BootFile, boot, 0o600); err != nil {
		return fmt.Errorf("keeping the boot file: %w", err)
	}
	if err := pid1.MountKernel(newRoot); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", newRoot+"/var", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /var: %w", err)
	}
	if err := os.MkdirAll(newRoot+node.ImagesDir, 0o755); err != nil {
		return fmt.Errorf("making room for images: %w", err)
	}
	return mountDisk("/dev/pmem1", newRoot+node.ImagesDir)
}

func mountDisk(device, at string) error {
	tick := time.NewTicker(diskPoll)
	defer tick.Stop()
	deadline := time.After(diskLimit)
	for {
		if _, err := os.Stat(device); err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("no disk %s after %s", device, diskLimit)
		}
	}
	if err := unix.Mount(device, at, "ext4", unix.MS_RDONLY, "dax=always"); err != nil {
		return fmt.Errorf("mounting %s: %w", device, err)
	}
	return nil
}

// enterRoot makes newRoot the root. An initramfs can't be left with
// pivot_root, so the new root is moved over the old one.
func enterRoot() error {
	if err := os.Chdir(newRoot); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	// The kubelet wants mounts to be seen in containers.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing mounts: %w", err)
	}
	return nil
}
