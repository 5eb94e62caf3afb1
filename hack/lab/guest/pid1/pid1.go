// Package pid1 is what the first process of a guest has to do, whatever the
// guest is for.
package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Where the initramfs keeps the modules that are loaded at boot.
const (
	BootModulesDir  = "/boot-modules"
	BootModulesList = BootModulesDir + "/list"
)

const portPoll = 10 * time.Millisecond

// MountKernel mounts the kernel's own file systems under root.
func MountKernel(root string) error {
	for _, m := range []struct {
		kind, at, data string
		flags          uintptr
	}{
		{"proc", "/proc", "", 0},
		{"sysfs", "/sys", "", 0},
		{"devtmpfs", "/dev", "", 0},
		{"devpts", "/dev/pts", "ptmxmode=0666", 0},
		{"tmpfs", "/dev/shm", "", 0},
		{"cgroup2", "/sys/fs/cgroup", "", 0},
		{"tmpfs", "/run", "", 0},
		{"tmpfs", "/tmp", "mode=1777", 0},
	} {
		at := filepath.Join(root, m.at)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
		if err := unix.Mount(m.kind, at, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	return nil
}

// LoadModules loads what the initramfs lists in BootModulesList.
func LoadModules() error {
	list, err := os.ReadFile(BootModulesList)
	if err != nil {
		return fmt.Errorf("reading the list of modules: %w", err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := loadModule(name); err != nil {
			return fmt.Errorf("loading %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// OpenPort opens the virtio-serial port with this name. The kernel finds the
// ports a little after the driver is there, so it waits for the name to come
// up. Reads return io.EOF while nobody is at the other end.
func OpenPort(ctx context.Context, name string) (*os.File, error) {
	tick := time.NewTicker(portPoll)
	defer tick.Stop()
	for {
		if device := findPort(name); device != "" {
			// A blocking descriptor: on one that Go polls, a read would fail
			// where it has to wait for the other end.
			fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				return os.NewFile(uintptr(fd), device), nil
			}
			if !errors.Is(err, unix.ENOENT) {
				return nil, fmt.Errorf("opening port %s: %w", name, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("looking for port %s: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

func findPort(name string) string {
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return ""
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(content)) == name {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(file)))
		}
	}
	return ""
}

// LinkUp brings a network interface up.
func LinkUp(name string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}

// PowerOff ends the guest. It returns only if that can't be done.
func PowerOff() error {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		return fmt.Errorf("powering off: %w", err)
	}
	return nil
}
