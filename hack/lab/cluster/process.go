package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const gonePoll = 10 * time.Millisecond

// process is one that runs on the machine. Ids are used again by the kernel;
// with the time of its start an id names one process for ever.
type process struct {
	PID int `json:"pid"`
	// Started is in clock ticks since the machine's boot.
	Started uint64 `json:"started"`
}

// identify looks up a running process. One that isn't there, or has ended and
// is not yet collected, is an error for which errors.Is os.ErrNotExist holds.
// It runs as long as one of its threads does, the first or another: until then
// it holds what it has open, such as a node's taps.
func identify(pid int) (process, error) {
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if errors.Is(err, syscall.ESRCH) {
		err = os.ErrNotExist
	}
	if err != nil {
		return process{}, fmt.Errorf("looking up process %d: %w", pid, err)
	}
	state, started, err := parseStat(content)
	if err != nil {
		return process{}, fmt.Errorf("looking up process %d: %w", pid, err)
	}
	if state == 'X' || state == 'Z' && !hasThreads(pid) {
		return process{}, fmt.Errorf("looking up process %d: it has ended: %w", pid, os.ErrNotExist)
	}
	return process{PID: pid, Started: started}, nil
}

// hasThreads says whether a process whose first thread has ended has others.
func hasThreads(pid int) bool {
	threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	return err == nil && len(threads) > 1
}

// parseStat reads the state and the start from /proc/PID/stat. The program's
// name, in brackets, may have spaces and brackets of its own.
func parseStat(content []byte) (state byte, started uint64, err error) {
	const startField = 19 // counted from the state, which is the first after the name
	end := bytes.LastIndexByte(content, ')')
	fields := bytes.Fields(content[max(end, 0):])
	if end < 0 || len(fields) < startField+2 {
		return 0, 0, errors.New("/proc has another format")
	}
	started, err = strconv.ParseUint(string(fields[startField+1]), 10, 64)
	return fields[1][0], started, err
}

func (p process) running() bool {
	now, err := identify(p.PID)
	return err == nil && now == p
}

// kill ends the process and, if it leads one, its group, and waits until it
// is gone. One that is gone already is no error.
func (p process) kill(ctx context.Context) error {
	if !p.running() {
		return nil
	}
	target := p.PID
	if group, err := syscall.Getpgid(p.PID); err == nil && group == p.PID {
		target = -p.PID
	}
	if err := syscall.Kill(target, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending process %d: %w", p.PID, err)
	}
	tick := time.NewTicker(gonePoll)
	defer tick.Stop()
	for p.running() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of process %d: %w", p.PID, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// program is one to start for the lab; it outlives us.
type program struct {
	// name is what it is recorded under, once at a time.
	name string
	// host is whose namespace it runs in.
	host  string
	args  []string
	files []*os.File
}

// launch starts a program and records it. Its output goes to a log file.
func (l *Lab) launch(p program) error {
	logFile, err := os.OpenFile(l.path("logs", p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	defer logFile.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = logFile, logFile, p.files
	// Its own session: an interrupt at the terminal is for us to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := inNamespace(namespace(l.config.Name, p.host), cmd.Start); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	started, err := identify(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // collects it, if we live that long
	if err != nil {
		return fmt.Errorf("starting %s: it ended at once: see %s", p.name, logFile.Name())
	}
	content, err := json.Marshal(started)
	if err != nil {
		return fmt.Errorf("recording %s: %w", p.name, err)
	}
	return writeFile(l.path("processes", p.name), content)
}

// recorded returns the process with this name; ok is false if there is no
// such record or the process has ended.
func (l *Lab) recorded(name string) (p process, ok bool) {
	content, err := os.ReadFile(l.path("processes", name))
	if err != nil || json.Unmarshal(content, &p) != nil {
		return process{}, false
	}
	return p, p.running()
}

// end ends the named program and forgets it. It doesn't have to run.
func (l *Lab) end(ctx context.Context, name string) error {
	if p, running := l.recorded(name); running {
		if err := p.kill(ctx); err != nil {
			return fmt.Errorf("ending %s: %w", name, err)
		}
	}
	if err := os.Remove(l.path("processes", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting %s: %w", name, err)
	}
	return nil
}

// ended lists the recorded programs that don't run any more.
func (l *Lab) ended() ([]string, error) {
	entries, err := os.ReadDir(l.path("processes"))
	if err != nil {
		return nil, fmt.Errorf("listing the lab's processes: %w", err)
	}
	var ended []string
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == draftExtension {
			continue
		}
		if _, running := l.recorded(entry.Name()); !running {
			ended = append(ended, entry.Name())
		}
	}
	return ended, nil
}

// endAll ends every recorded program.
func (l *Lab) endAll(ctx context.Context) error {
	entries, err := os.ReadDir(l.path("processes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing the lab's processes: %w", err)
	}
	var failed error
	for _, entry := range entries {
		failed = errors.Join(failed, l.end(ctx, entry.Name()))
	}
	return failed
}
