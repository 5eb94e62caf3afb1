package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// leaderless in its environment makes the test program one that has lost its
// first thread and lives on.
const leaderless = "LVS_LAB_TEST_LEADERLESS=1"

// init runs on the first thread, which a test can't get back to.
func init() {
	if os.Getenv("LVS_LAB_TEST_LEADERLESS") != "" {
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	}
}

func TestParseStat(t *testing.T) {
	stat := "123 (a (b) c) S 1 123 123 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 5 0 498079 1000 10 18446744073709551615"
	state, started, err := parseStat([]byte(stat))
	if state != 'S' || started != 498079 || err != nil {
		t.Errorf("parseStat() = %c %d %v, want S 498079", state, started, err)
	}
	if _, _, err := parseStat([]byte("garbage")); err == nil {
		t.Error("parseStat(garbage) = nil, want an error")
	}
}

// startSleeper starts a process that would live long, and collects its exit.
func startSleeper(t *testing.T) process {
	t.Helper()
	return startProcess(t, exec.Command("sleep", "1000"))
}

func startProcess(t *testing.T, cmd *exec.Cmd) process {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestKillEndsTheProcessThatWasRecorded(t *testing.T) {
	p := startSleeper(t)
	if err := p.kill(t.Context()); err != nil || p.running() {
		t.Errorf("kill() = %v, running: %t", err, p.running())
	}
	if err := p.kill(t.Context()); err != nil {
		t.Errorf("second kill() = %v, want nil", err)
	}
}

func TestKillSparesAnotherProcessWithTheSameID(t *testing.T) {
	p := startSleeper(t)
	earlier := process{PID: p.PID, Started: p.Started - 1}
	if err := earlier.kill(t.Context()); err != nil || !p.running() {
		t.Errorf("kill() = %v, other process running: %t, want it alive", err, p.running())
	}
}

// A qemu that was killed can have its taps open for a while after the end of
// its first thread.
func TestAProcessRunsUntilItsLastThreadEnds(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), leaderless)
	p := startProcess(t, cmd)
	for deadline := time.Now().Add(10 * time.Second); ; {
		content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		if state, _, _ := parseStat(content); state == 'Z' {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the first thread does not end")
		}
	}
	if !p.running() {
		t.Error("ended with the first thread")
	}
	if err := p.kill(t.Context()); err != nil || p.running() {
		t.Errorf("kill() = %v, running: %t", err, p.running())
	}
}
