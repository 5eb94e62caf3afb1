package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/lvs-operator/lvs-operator/hack/lab/cache"
)

// Bundle is a Debian program that is not installed, with all that it needs to
// run elsewhere, in one folder.
type Bundle struct {
	Dir string

	program string
}

// Command starts the program where the folder is at the place at: by the loader
// of the same libraries, whatever the other place has.
func (b Bundle) Command(at string) []string {
	return []string{filepath.Join(at, loader), "--library-path", at, filepath.Join(at, b.program)}
}

// UnpackProgram returns a program of a Debian package as a Bundle, kept in the
// cache. Nothing is installed: a package may come with a service that starts at
// once. If the package is installed the Bundle is made from that.
func UnpackProgram(ctx context.Context, dir cache.Dir, name, program string, progress io.Writer) (Bundle, error) {
	root, err := dir.Fill(ctx, "program/"+name, func(draft string) error {
		fmt.Fprintf(progress, "downloading %s\n", name)
		return bundle(ctx, name, program, draft)
	})
	if err != nil {
		return Bundle{}, fmt.Errorf("getting %s: %w", name, err)
	}
	return Bundle{Dir: root, program: filepath.Base(program)}, nil
}

const (
	loader       = "ld-linux-x86-64.so.2"
	libraryPlace = "x86_64-linux-gnu"
)

func bundle(ctx context.Context, name, program, draft string) error {
	tree, err := os.MkdirTemp("", "lvs-lab-program-")
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	defer os.RemoveAll(tree)
	if err := unpackWithDependencies(ctx, name, tree); err != nil {
		return err
	}
	file := filepath.Join(tree, program)
	if !present(file) {
		file = program // it is installed, and so nothing was downloaded
	}
	path := filepath.Join(tree, "lib", libraryPlace) + ":" + filepath.Join(tree, "usr/lib", libraryPlace)
	listing, err := Run(ctx, "", "env", "LD_LIBRARY_PATH="+path, "ldd", file)
	if err != nil {
		return fmt.Errorf("looking for the libraries of %s: %w", program, err)
	}
	for _, part := range append(parseLdd(listing), file) {
		content, err := os.ReadFile(part)
		if err == nil {
			err = os.WriteFile(filepath.Join(draft, filepath.Base(part)), content, 0o755)
		}
		if err != nil {
			return fmt.Errorf("copying what %s needs: %w", program, err)
		}
	}
	return nil
}

// unpackWithDependencies puts the files of a package, and of those that it
// depends on and this machine does not have, into dir.
func unpackWithDependencies(ctx context.Context, name, dir string) error {
	if err := updateLists(ctx); err != nil {
		return err
	}
	download, err := os.MkdirTemp("", "lvs-lab-deb-")
	if err != nil {
		return fmt.Errorf("downloading %s: %w", name, err)
	}
	defer os.RemoveAll(download)
	err = apt(ctx, "", "install", "-y", "--no-install-recommends", "--download-only", "-o", "Dir::Cache::archives="+download, name)
	if err != nil {
		return fmt.Errorf("downloading %s: %w", name, err)
	}
	packages, err := filepath.Glob(filepath.Join(download, "*.deb"))
	if err != nil {
		return fmt.Errorf("downloading %s: %w", name, err)
	}
	var failed error
	for _, file := range packages {
		_, err := Run(ctx, "", "dpkg", "-x", file, dir)
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("unpacking %s: %w", name, failed)
	}
	return nil
}
