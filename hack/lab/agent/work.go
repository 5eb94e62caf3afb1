package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest/pid1"
	"github.com/lvs-operator/lvs-operator/hack/lab/node"
)

const (
	readyPoll = 200 * time.Millisecond
	// restartPause keeps a service that can't start from using up the CPU.
	restartPause = time.Second
)

// work does what the boot file says and then takes commands for ever.
func work() error {
	content, err := os.ReadFile(node.BootFile)
	if err != nil {
		return fmt.Errorf("reading the boot file: %w", err)
	}
	var todo node.Boot
	if err := json.Unmarshal(content, &todo); err != nil {
		return fmt.Errorf("reading the boot file: %w", err)
	}
	if err := unix.Sethostname([]byte(todo.Hostname)); err != nil {
		return fmt.Errorf("naming the node: %w", err)
	}
	if err := layOutVar(); err != nil {
		return err
	}
	if err := pid1.LinkUp("lo"); err != nil {
		return err
	}
	failed := make(chan error)
	go func() { failed <- takeCommands() }()
	for _, command := range todo.Setup {
		runOnce(command)
	}
	for _, service := range todo.Services {
		start(service)
	}
	console("all services are started")
	return <-failed
}

func layOutVar() error {
	for _, dir := range []string{
		node.LogDir + "/pods", node.LogDir + "/containers", "/var/lib/kubelet", "/var/lib/containerd",
		"/var/lib/cni", "/var/tmp", "/run/netns", "/run/lock",
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("laying out /var: %w", err)
		}
	}
	if err := os.Symlink("/run", "/var/run"); err != nil {
		return fmt.Errorf("laying out /var: %w", err)
	}
	return nil
}

func runOnce(command []string) {
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		console("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// start brings a service up and keeps it up; it returns once it is ready.
func start(service node.Service) {
	started := time.Now()
	go keep(service)
	if service.Ready != "" {
		awaitSocket(service.Ready)
	}
	for _, command := range service.Then {
		runOnce(command)
	}
	console("%s is up after %s", service.Name, time.Since(started).Round(time.Millisecond))
}

func awaitSocket(path string) {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return
		}
		<-tick.C
	}
}

func keep(service node.Service) {
	for {
		for held(service.Name) {
			<-time.After(restartPause)
		}
		err := runService(service)
		console("%s ended: %v", service.Name, err)
		// A pause, not a wait: what made it fail may take its time to pass.
		<-time.After(restartPause)
	}
}

// held says that a test wants the service to stay ended.
func held(name string) bool {
	_, err := os.Stat(node.HoldFile(name))
	return err == nil
}

func runService(service node.Service) error {
	log, err := os.OpenFile(filepath.Join(node.LogDir, service.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	cmd := exec.Command(service.Args[0], service.Args[1:]...)
	// Signals and page faults are what an emulated processor is slowest at: fewer
	// of Go's preemptions and collections make services several times faster.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOGC=400")
	cmd.Stdout, cmd.Stderr = log, log
	return errors.Join(startNice(cmd, service.Nice), cmd.Wait(), log.Close())
}

// startNice starts a command, which inherits its niceness from the thread that
// does it.
func startNice(cmd *exec.Cmd, nice int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return fmt.Errorf("setting the niceness: %w", err)
	}
	return errors.Join(cmd.Start(), unix.Setpriority(unix.PRIO_PROCESS, 0, 0))
}

// console writes to the guest's serial line, which the lab keeps as a file.
func console(format string, args ...any) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		uptime = []byte("?")
	}
	since, _, _ := strings.Cut(string(uptime), " ")
	_, _ = io.WriteString(os.Stderr, "["+since+"] agent: "+fmt.Sprintf(format, args...)+"\n")
}
