package toolchain

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// reportEvery is how often a long build says that it goes on.
const reportEvery = 20 * time.Second

// compile runs go build -v and turns its long list of packages into a line of
// progress now and then.
func compile(ctx context.Context, progress io.Writer, name, dir, cgo string, args []string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOWORK=off")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("running go build: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running go build: %w", err)
	}
	watch := &buildWatch{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch.read(stderr)
	}()
	started := time.Now()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-tick.C:
			fmt.Fprintf(progress, "building %s: %d packages compiled, %s\n",
				name, watch.count(), time.Since(started).Round(time.Second))
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("go build: %w: %s", err, strings.Join(watch.complaints, "; "))
	}
	return nil
}

type buildWatch struct {
	mu       sync.Mutex
	packages int
	// complaints are the last lines that aren't a package's name; they are
	// read only after read has returned.
	complaints []string
}

func (w *buildWatch) read(r io.Reader) {
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		line := scanner.Text()
		if strings.ContainsAny(line, " \t:") {
			w.complaints = append(w.complaints[max(0, len(w.complaints)-4):], strings.TrimSpace(line))
			continue
		}
		w.mu.Lock()
		w.packages++
		w.mu.Unlock()
	}
}

func (w *buildWatch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.packages
}
