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
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
	"github.com/lvs-operator/lvs-operator/hack/lab/toolchain"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

// guestName is the lab's only node. A worker has two processors: with one, the hosts
// would stand still while another host's program has it.
const guestName = "worker1"

// stage is the guest with all programs, and the API server with all objects.
type stage struct {
	lab  *cluster.Lab
	api  *objects
	logs string
	// commit and machine are for the rows.
	commit, machine string
}

// newStage brings the programs into the guest and the objects to the API server.
func newStage(ctx context.Context, lab *cluster.Lab, logs string, progress io.Writer) (*stage, error) {
	tools, err := toolchain.New(progress)
	if err != nil {
		return nil, err
	}
	s := &stage{lab: lab, logs: logs}
	if err := s.install(ctx, tools); err != nil {
		return nil, err
	}
	if s.commit, err = commitOf(ctx, tools.Root); err != nil {
		return nil, err
	}
	if s.machine, err = s.describe(ctx); err != nil {
		return nil, err
	}
	// What an interrupted run left in a guest that was kept.
	if _, err := s.lab.Output(ctx, guestName, plan.Runner, "down"); err != nil {
		return nil, err
	}
	s.api, err = newObjects(ctx, lab.Kubeconfig(), filepath.Join(tools.Root, "config", "crd"))
	return s, err
}

// install puts the programs where the plan says.
func (s *stage) install(ctx context.Context, tools *toolchain.Toolchain) error {
	scratch, err := os.MkdirTemp("", "lvs-bench-")
	if err != nil {
		return fmt.Errorf("making a scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	for file, pkg := range map[string]string{
		plan.Runner: "./hack/bench/takeover/runner", plan.Responder: "./hack/lab/responder", plan.Director: "./cmd/director",
	} {
		if err := tools.Own(ctx, pkg, filepath.Join(scratch, file)); err != nil {
			return err
		}
	}
	keepalived, err := machine.UnpackProgram(ctx, tools.Cache, "keepalived", "/usr/sbin/keepalived", tools.Progress)
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(scratch, plan.KeepalivedDir), os.DirFS(keepalived.Dir)); err != nil {
		return fmt.Errorf("copying keepalived: %w", err)
	}
	command := strings.Join(keepalived.Command(plan.KeepalivedDir), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(scratch, plan.KeepalivedFile), []byte(command), 0o644); err != nil {
		return fmt.Errorf("writing keepalived's command: %w", err)
	}
	fmt.Fprintln(tools.Progress, "bringing the programs into the guest")
	return s.send(ctx, filepath.Join(scratch, plan.Dir))
}

// send copies a folder to the same place in the guest.
func (s *stage) send(ctx context.Context, dir string) error {
	pack := exec.CommandContext(ctx, "tar", "-c", "-C", filepath.Dir(dir), filepath.Base(dir))
	var complaint bytes.Buffer
	pack.Stderr = &complaint
	archive, err := pack.StdoutPipe()
	if err == nil {
		err = pack.Start()
	}
	if err != nil {
		return fmt.Errorf("packing the programs: %w", err)
	}
	var stderr bytes.Buffer
	code, err := s.lab.Exec(ctx, guestName, []string{"tar", "-x", "-C", filepath.Dir(plan.Dir)}, wire.Streams{Stdin: archive, Stderr: &stderr})
	if waitErr := pack.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("packing the programs: %w: %s", waitErr, complaint.String()))
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("unpacking the programs in the guest: exit status %d: %s", code, stderr.String())
	}
	return err
}

// play plays one round. Laps are where its time went.
func (s *stage) play(ctx context.Context, one round) (seen plan.Seen, spent laps, err error) {
	spent.last = time.Now()
	seen, err = s.measure(ctx, one, &spent)
	if err != nil && ctx.Err() != nil {
		return seen, spent, err
	}
	logErr := s.saveLogs(ctx, one)
	_, downErr := s.lab.Output(ctx, guestName, plan.Runner, "down")
	spent.lap("down")
	return seen, spent, errors.Join(err, logErr, downErr)
}

func (s *stage) measure(ctx context.Context, one round, spent *laps) (plan.Seen, error) {
	var seen plan.Seen
	if one.System == plan.Ours {
		// Whoever served in an earlier round is dead, and remembered.
		if err := s.api.reset(ctx, one.Variant); err != nil {
			return seen, err
		}
	}
	if _, err := s.lab.Output(ctx, guestName, plan.Runner, "up", string(one.System)); err != nil {
		return seen, err
	}
	spent.lap("up")
	if one.System == plan.Ours {
		if err := s.api.awaitPair(ctx); err != nil {
			return seen, err
		}
		spent.lap("pair")
	}
	text, err := s.lab.Output(ctx, guestName, plan.Runner, "measure", string(one.cause()))
	spent.lap("measured")
	if err != nil {
		return seen, err
	}
	if err := json.Unmarshal([]byte(text), &seen); err != nil {
		return seen, fmt.Errorf("reading what the client saw: %w", err)
	}
	return seen, nil
}

// saveLogs keeps what the programs of a round wrote.
func (s *stage) saveLogs(ctx context.Context, one round) error {
	text, err := s.lab.Output(ctx, guestName, "sh", "-c", "cd "+plan.LogDir+" && tail -n 2000 *.log")
	if err != nil {
		return err
	}
	name := strings.Join(append([]string{string(one.System)}, strings.Fields(one.Variant)...), "-")
	file := filepath.Join(s.logs, fmt.Sprintf("%s-%s-%d.log", name, one.Event, one.Round))
	if err := os.MkdirAll(s.logs, 0o755); err != nil {
		return fmt.Errorf("making the folder for logs: %w", err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("keeping the logs: %w", err)
	}
	return nil
}

// commitOf names the sources that are measured. The pages that the table goes into
// are none.
func commitOf(ctx context.Context, root string) (string, error) {
	commit, err := machine.Run(ctx, root, "git", "rev-parse", "--short=10", "HEAD")
	if err != nil {
		return "", fmt.Errorf("asking for the commit: %w", err)
	}
	changes, err := machine.Run(ctx, root, "git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
	if err != nil {
		return "", fmt.Errorf("asking for changes: %w", err)
	}
	commit = strings.TrimSpace(commit)
	if strings.TrimSpace(changes) != "" {
		commit += "-dirty"
	}
	return commit, nil
}

// describe tells what the machine and the guest are.
func (s *stage) describe(ctx context.Context) (string, error) {
	own, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("looking at the machine: %w", err)
	}
	inside, err := s.lab.Output(ctx, guestName, "cat", "/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	release, err := s.lab.Output(ctx, guestName, "uname", "-r")
	if err != nil {
		return "", err
	}
	return description(string(own), runtime.NumCPU(), inside, strings.TrimSpace(release)), nil
}

// description is a sentence from the two /proc/cpuinfo.
func description(own string, cores int, inside, release string) string {
	models := processors(inside)
	how := "KVM"
	if len(models) > 0 && strings.Contains(models[0], "TCG") {
		how = "software emulation"
	}
	model := "an unknown processor"
	if mine := processors(own); len(mine) > 0 {
		model = mine[0]
	}
	return fmt.Sprintf("%s, %d cores; guest with %d processors by %s, kernel %s", model, cores, len(models), how, release)
}

// processors lists the names of processors in /proc/cpuinfo.
func processors(cpuinfo string) []string {
	var models []string
	for line := range strings.Lines(cpuinfo) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "model name" {
			models = append(models, strings.TrimSpace(value))
		}
	}
	return models
}
