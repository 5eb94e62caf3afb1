// Package assemble makes the container image of the operator from Go source,
// without Docker: what the Dockerfile says in another language.
package assemble

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// Packages are the programs of the image, as paths in the module.
func Packages() []string {
	return []string{"./cmd/director", "./cmd/realserver"}
}

// Source says what is built.
type Source struct {
	// Dir is the top of a Go module.
	Dir string
	// Packages of the module, each a program that becomes /NAME in the image.
	Packages []string
	// Architecture is a GOARCH.
	Architecture string
}

// arguments are go's for a static program that does not depend on where it
// was built.
func arguments(out, pkg string) []string {
	return []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg}
}

// Programs builds the source and returns the programs' content by their paths
// in the image. The go command's words are part of the error.
func Programs(ctx context.Context, source Source) (map[string][]byte, error) {
	temporary, err := os.MkdirTemp("", "image")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the programs: %w", err)
	}
	defer os.RemoveAll(temporary)

	programs := map[string][]byte{}
	for _, pkg := range source.Packages {
		name := path.Base(pkg)
		out := filepath.Join(temporary, name)
		command := exec.CommandContext(ctx, "go", arguments(out, pkg)...)
		command.Dir = source.Dir
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+source.Architecture)
		if said, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w: %s", pkg, err, bytes.TrimSpace(said))
		}
		content, err := os.ReadFile(out)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		programs["/"+name] = content
	}
	return programs, nil
}
