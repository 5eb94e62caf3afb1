// Package toolchain builds the programs that the project is developed and
// tested with from Go modules, at the versions that the modules under
// hack/tools pin, and keeps them in the cache.
package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/cache"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// modulePath is how the project's own go.mod is told from a tool's.
const modulePath = "github.com/lvs-operator/lvs-operator"

// Toolchain makes tools on demand. Its methods may be called concurrently, and
// by several processes.
type Toolchain struct {
	// Cache is where tools are kept.
	Cache cache.Dir
	// Root is the project's checkout.
	Root string
	// Progress gets a line now and then while something is built.
	Progress io.Writer
}

// New returns a Toolchain with the default cache, for the checkout that the
// working directory is in.
func New(progress io.Writer) (*Toolchain, error) {
	dir, err := cache.Default()
	if err != nil {
		return nil, err
	}
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	return &Toolchain{Cache: dir, Root: root, Progress: progress}, nil
}

func findRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("looking for the checkout: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module "+modulePath+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not in a checkout of %s", start, modulePath)
		}
	}
}

// Names lists what Ensure can make.
func Names() []string { return slices.Sorted(maps.Keys(programs())) }

// Ensure returns the path of the named program and builds it if the cache has
// none of the pinned version.
func (t *Toolchain) Ensure(ctx context.Context, name string) (string, error) {
	tool, found := programs()[name]
	if !found {
		return "", fmt.Errorf("no tool %q: there are %s", name, strings.Join(Names(), " "))
	}
	dir, err := t.folder(ctx, tool)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// Assets returns a folder with etcd, kube-apiserver and kubectl, which is what
// controller-runtime's envtest wants.
func (t *Toolchain) Assets(ctx context.Context) (string, error) {
	apiserver, err := t.Ensure(ctx, "kube-apiserver")
	if err != nil {
		return "", err
	}
	return filepath.Dir(apiserver), nil
}

func (t *Toolchain) folder(ctx context.Context, tool tool) (string, error) {
	source := filepath.Join(t.Root, "hack", "tools", tool.module)
	ldflags, err := tool.linkerFlags(source)
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", fmt.Errorf("looking for the sources of %s: %w", tool.name, err)
	}
	sources, err := cache.FilesKey(append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))...)
	if err != nil {
		return "", err
	}
	goVersion, err := machine.Run(ctx, source, "go", "env", "GOVERSION")
	if err != nil {
		return "", fmt.Errorf("asking for Go's version: %w", err)
	}
	key := cache.Key(append([]string{sources, goVersion, tool.pkg, tool.cgo, ldflags}, tool.flags...)...)
	dir, err := t.Cache.Fill(ctx, "bin/"+tool.name+"-"+key, func(draft string) error {
		return t.build(ctx, tool, source, ldflags, draft)
	})
	if err != nil {
		return "", fmt.Errorf("making %s: %w", tool.name, err)
	}
	return dir, nil
}

func (t *Toolchain) build(ctx context.Context, tool tool, source, ldflags, dir string) error {
	if err := checkDisk(tool.diskMiB, string(t.Cache), os.TempDir()); err != nil {
		return err
	}
	if err := machine.Install(ctx, t.Progress, tool.needs...); err != nil {
		return err
	}
	fmt.Fprintf(t.Progress, "building %s\n", tool.name)
	started := time.Now()
	args := slices.Concat([]string{"build", "-v", "-trimpath", "-buildvcs=false"}, tool.flags,
		[]string{"-ldflags", ldflags, "-o", filepath.Join(dir, tool.name), tool.pkg})
	if err := compile(ctx, t.Progress, tool.name, source, tool.cgo, args); err != nil {
		return err
	}
	for _, alias := range tool.aliases {
		if err := os.Symlink(tool.name, filepath.Join(dir, alias)); err != nil {
			return fmt.Errorf("naming %s: %w", alias, err)
		}
	}
	fmt.Fprintf(t.Progress, "built %s in %s\n", tool.name, time.Since(started).Round(time.Second))
	return nil
}

// checkDisk fails if one of the folders, or what is to hold it, has less room
// than a build needs.
func checkDisk(needMiB uint64, dirs ...string) error {
	for _, dir := range dirs {
		var stat unix.Statfs_t
		err := unix.Statfs(dir, &stat)
		for errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			err = unix.Statfs(dir, &stat)
		}
		if err != nil {
			return fmt.Errorf("asking for the room on %s: %w", dir, err)
		}
		if free := stat.Bavail * uint64(stat.Bsize) >> 20; free < needMiB {
			return fmt.Errorf("too little disk: %s has %d MiB free, %d are needed", dir, free, needMiB)
		}
	}
	return nil
}
