package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/cache"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// trialLimit is many times what a kernel needs to come up with KVM.
const trialLimit = 15 * time.Second

// trialMark is printed by the trial guest once its /init runs.
const trialMark = "lvs-lab: the guest is up"

// ChooseAccelerator replaces Auto by what works on this machine. A /dev/kvm
// that opens proves nothing (nested virtualization may start a machine whose
// kernel then hangs), so the choice is by a trial boot, and its outcome is kept
// in the cache.
func ChooseAccelerator(ctx context.Context, want Accelerator, dir cache.Dir, kernel machine.Kernel, progress io.Writer) (Accelerator, error) {
	if want != Auto {
		return want, nil
	}
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil {
		return Emulation, nil
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return "", fmt.Errorf("asking for the running kernel: %w", err)
	}
	name := "accelerator/" + cache.Key(unix.ByteSliceToString(host.Release[:]), kernel.Release)
	entry, err := dir.Fill(ctx, name, func(draft string) error {
		fmt.Fprintln(progress, "trying whether KVM boots a guest")
		answer, err := tryKVM(ctx, kernel, draft)
		if err != nil {
			return err
		}
		fmt.Fprintf(progress, "guests run with %s\n", answer)
		return os.WriteFile(filepath.Join(draft, "answer"), []byte(answer), 0o644)
	})
	if err != nil {
		return "", fmt.Errorf("choosing an accelerator: %w", err)
	}
	answer, err := os.ReadFile(filepath.Join(entry, "answer"))
	if err != nil {
		return "", fmt.Errorf("choosing an accelerator: %w", err)
	}
	return ParseAccelerator(string(answer))
}

func tryKVM(ctx context.Context, kernel machine.Kernel, dir string) (Accelerator, error) {
	initrd := filepath.Join(dir, "trial.cpio")
	if err := writeTrial(initrd); err != nil {
		return "", err
	}
	qemu, err := machine.Program("qemu-system-x86_64")
	if err != nil {
		return "", err
	}
	config := Config{
		Kernel: kernel, Initrd: initrd, Accelerator: KVM, CPUs: 1, MemoryMiB: 256,
		Console: filepath.Join(dir, "console"),
	}
	limited, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	runErr := exec.CommandContext(limited, qemu, config.Arguments()...).Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	console, err := os.ReadFile(config.Console)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the trial's console: %w", err)
	}
	if runErr == nil && bytes.Contains(console, []byte(trialMark)) {
		return KVM, nil
	}
	return Emulation, nil
}

func writeTrial(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("making a trial guest: %w", err)
	}
	archive := NewArchive(file)
	archive.File("/bin/busybox", "/bin/busybox")
	archive.Dir("/dev")
	script := []string{
		"#!/bin/busybox sh",
		"/bin/busybox mount -t devtmpfs dev /dev",
		"echo '" + trialMark + "' > /dev/console",
		"/bin/busybox poweroff -f", "",
	}
	archive.Bytes([]byte(strings.Join(script, "\n")), "/init", 0o755)
	return errors.Join(archive.Close(), file.Close())
}
