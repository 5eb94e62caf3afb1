package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Own builds a program of this project, given as a path in the checkout such
// as "./hack/lab/agent", statically into a file. It is built each time: Go's
// own cache knows better than a key of ours whether a source has changed.
func (t *Toolchain) Own(ctx context.Context, pkg, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file, pkg)
	cmd.Dir = t.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("building %s: %w", pkg, ctx.Err())
		}
		return fmt.Errorf("building %s: %w: %s", pkg, err, strings.TrimSpace(string(out)))
	}
	return nil
}
