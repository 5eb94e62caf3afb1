package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lvs-operator/lvs-operator/hack/lab/cache"
)

// stateRoot is on a file system that is empty after the machine's boot, as the
// labs are; and its name is short, for the sockets.
const stateRoot = "/run/lvs-lab"

// ErrNotUp says that there is no such lab, or that it isn't complete.
var ErrNotUp = errors.New("the lab is not up")

// state is what is remembered of a lab besides its processes.
type state struct {
	Config Config `json:"config"`
	// Complete is set once everything runs.
	Complete bool `json:"complete"`
	// Cuts are the broken connections by node.
	Cuts map[string][]Cut `json:"cuts,omitempty"`
}

func locks() cache.Dir { return cache.Dir(stateRoot) }

func stateDir(lab string) string { return filepath.Join(stateRoot, lab) }

// path is a file in the lab's state folder.
func (l *Lab) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}

func (l *Lab) stateFile() string { return l.path("state.json") }

func readState(lab string) (state, error) {
	content, err := os.ReadFile(filepath.Join(stateDir(lab), "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, ErrNotUp
	}
	if err != nil {
		return state{}, fmt.Errorf("reading the lab's state: %w", err)
	}
	var s state
	if err := json.Unmarshal(content, &s); err != nil {
		return state{}, fmt.Errorf("reading the lab's state: %w", err)
	}
	return s, nil
}

func (l *Lab) writeState(s state) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the lab's state: %w", err)
	}
	return writeFile(l.stateFile(), content)
}

// draftExtension marks a file that is being written.
const draftExtension = ".draft"

// writeFile replaces a file as a whole: a reader sees the old or the new one.
func writeFile(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	draft := file + draftExtension
	if err := os.WriteFile(draft, content, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	if err := os.Rename(draft, file); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}
