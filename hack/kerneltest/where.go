package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/kerneltest/plan"
	"github.com/lvs-operator/lvs-operator/hack/lab/cache"
	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// marker tells tests where they run. A test that skips itself where there is
// no IPVS must fail instead if it is set.
const marker = "LVS_KERNELTEST"

// reportBackend is the first of a command's ExtraFiles. It is not qemu's
// stdio, which hangs up for good once stdin is at its end.
const reportBackend = "file,path=/dev/fd/3"

// consoleTail is how much of the guest's console an error shows.
const consoleTail = 3000

// useHost says whether the tests can run without a guest.
func useHost(where string) bool {
	if where != "auto" {
		return where == "host"
	}
	_, err := os.Stat("/proc/net/ip_vs")
	return err == nil && os.Geteuid() == 0
}

func runHere(ctx context.Context, binaries []testBinary, results *results) error {
	for i, binary := range binaries {
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, binary.file, binary.args...)
		cmd.Dir, cmd.Env = binary.dir, append(os.Environ(), marker+"=host")
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.WaitDelay = time.Second
		started := time.Now()
		err := cmd.Run()
		event := plan.Event{Binary: i, Output: out.Bytes(), Done: true, Seconds: time.Since(started).Seconds()}
		if err != nil {
			event.Exit = 1
		}
		results.take(event)
	}
	return ctx.Err()
}

func runInGuest(ctx context.Context, opts options, binaries []testBinary, scratch string, results *results) error {
	config, err := prepareGuest(ctx, opts, binaries, scratch)
	if err != nil {
		return err
	}
	fmt.Fprintf(results.out, "kerneltest: running in a guest with kernel %s (%s)\n", config.Kernel.Release, config.Accelerator)
	qemu, err := machine.Program("qemu-system-x86_64")
	if err != nil {
		return err
	}
	var messages bytes.Buffer
	cmd := exec.CommandContext(ctx, qemu, config.Arguments()...)
	cmd.Stderr = &messages
	reports, written, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("booting the guest: %w", err)
	}
	defer reports.Close()
	cmd.ExtraFiles = []*os.File{written}
	err = cmd.Start()
	// Only qemu's copy may stay open, or the end of the guest would not be
	// the end of the reports.
	if err := errors.Join(err, written.Close()); err != nil {
		return fmt.Errorf("booting the guest: %w", err)
	}
	readErr := readEvents(reports, results)
	waitErr := cmd.Wait()
	if finished(results) {
		return nil
	}
	return fmt.Errorf("the guest did not finish: %w; the end of its console:\n%s%s",
		errors.Join(ctx.Err(), readErr, waitErr, errors.New("it ended early")), tail(config.Console), messages.String())
}

func readEvents(r io.Reader, results *results) error {
	for decoder := json.NewDecoder(r); ; {
		var event plan.Event
		err := decoder.Decode(&event)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading results: %w", err)
		}
		results.take(event)
	}
}

func finished(r *results) bool {
	for i := range r.states {
		if !r.states[i].done {
			return false
		}
	}
	return true
}

func prepareGuest(ctx context.Context, opts options, binaries []testBinary, scratch string) (guest.Config, error) {
	dir, err := cache.Default()
	if err != nil {
		return guest.Config{}, err
	}
	if err := machine.Install(ctx, os.Stderr, guest.Packages()...); err != nil {
		return guest.Config{}, err
	}
	kernel, err := machine.DebianKernel(ctx, dir, os.Stderr)
	if err != nil {
		return guest.Config{}, err
	}
	accelerator, err := guest.ChooseAccelerator(ctx, opts.accelerator, dir, kernel, os.Stderr)
	if err != nil {
		return guest.Config{}, err
	}
	runner := filepath.Join(scratch, "runner")
	if err := goTool(ctx, "CGO_ENABLED=0", io.Discard, "build", "-o", runner, runnerPackage); err != nil {
		return guest.Config{}, fmt.Errorf("building the guest's first program: %w", err)
	}
	initrd := filepath.Join(scratch, "initrd")
	if err := writeInitrd(initrd, runner, kernel, binaries); err != nil {
		return guest.Config{}, err
	}
	return guest.Config{
		Kernel: kernel, Initrd: initrd, Accelerator: accelerator,
		CPUs: opts.cpus, MemoryMiB: opts.memoryMiB, Console: filepath.Join(scratch, "console"),
		Ports: []guest.Port{{Name: plan.Port, Backend: reportBackend}},
	}, nil
}

const runnerPackage = "github.com/lvs-operator/lvs-operator/hack/kerneltest/runner"

func writeInitrd(file, runner string, kernel machine.Kernel, binaries []testBinary) error {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("writing the guest's files: %w", err)
	}
	archive := guest.NewArchive(out)
	archive.File(runner, "/init")
	archive.File("/bin/busybox", "/bin/busybox")
	archive.Link("/bin/busybox", "/sbin/modprobe")
	archive.BootModules(kernel, "virtio_pci", "virtio_console", "virtio_rng")
	archive.Tree(kernel.Modules, "/lib/modules/"+kernel.Release, guest.KeepModule)
	archive.Bytes([]byte("root:x:0:0:root:/root:/bin/sh\n"), "/etc/passwd", 0o644)
	archive.Bytes([]byte("root:x:0:\n"), "/etc/group", 0o644)
	archive.Bytes([]byte("127.0.0.1 localhost\n::1 localhost\n"), "/etc/hosts", 0o644)
	archive.Dir("/root")
	archive.Dir("/var/run")
	var todo plan.Plan
	for i, binary := range binaries {
		todo.Binaries = append(todo.Binaries, addBinary(archive, i, binary))
	}
	content, err := json.Marshal(todo)
	if err != nil {
		return errors.Join(fmt.Errorf("writing the plan: %w", err), out.Close())
	}
	archive.Bytes(content, plan.File, 0o644)
	return errors.Join(archive.Close(), out.Close())
}

// addBinary lays a package out as in the source tree, so that a test finds
// its testdata where go test would show it.
func addBinary(archive *guest.Archive, index int, binary testBinary) plan.Binary {
	dir := path.Join("/src", binary.importPath)
	file := "/tests/" + strconv.Itoa(index) + ".test"
	archive.Dir(dir)
	archive.File(binary.file, file)
	testdata := filepath.Join(binary.dir, "testdata")
	if _, err := os.Stat(testdata); err == nil {
		archive.Tree(testdata, path.Join(dir, "testdata"), nil)
	}
	return plan.Binary{
		Package: binary.importPath, Path: file, Dir: dir, Args: binary.args,
		Env: []string{
			"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "PWD=" + dir, "TMPDIR=/tmp", marker + "=guest",
		},
	}
}

func tail(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Sprintf("(%v)\n", err)
	}
	text := strings.TrimSpace(string(content[max(0, len(content)-consoleTail):]))
	return text + "\n"
}
