// Package machine gets from this machine what the lab needs of it: Debian
// packages, a kernel to boot, programs with their libraries.
package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Need is a file that the lab uses and the Debian package that brings it.
type Need struct {
	// File is a program that is looked for on PATH, or an absolute path.
	File    string
	Package string
}

// Install gets the packages of the needs that aren't met, with apt, and says
// on progress what it gets. It does nothing, and needs no rights, if all are.
func Install(ctx context.Context, progress io.Writer, needs ...Need) error {
	var packages []string
	for _, need := range needs {
		if !present(need.File) {
			packages = append(packages, need.Package)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("installing %s: not root", strings.Join(packages, " "))
	}
	fmt.Fprintf(progress, "installing %s\n", strings.Join(packages, " "))
	if err := updateLists(ctx); err != nil {
		return err
	}
	args := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if err := apt(ctx, "", args...); err != nil {
		return fmt.Errorf("installing %s: %w", strings.Join(packages, " "), err)
	}
	return nil
}

func present(file string) bool {
	if filepath.IsAbs(file) {
		_, err := os.Stat(file)
		return err == nil
	}
	_, err := Program(file)
	return err == nil
}

// Program is the path of an installed program. The sbin folders are searched
// too: a root shell made by su does not have them on PATH.
func Program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// Run executes a program and returns its output; an error carries what it
// wrote to stderr.
func Run(ctx context.Context, dir, name string, args ...string) (string, error) {
	path, err := Program(name)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("%s: %w: %s", name, err, lastLines(stderr.String(), 3))
	}
	return stdout.String(), nil
}

// updateLists fetches apt's package lists only where there are none: an
// update takes long, and old lists still serve most packages.
func updateLists(ctx context.Context) error {
	lists, err := filepath.Glob("/var/lib/apt/lists/*_Packages*")
	if err != nil {
		return fmt.Errorf("looking for apt's package lists: %w", err)
	}
	if len(lists) > 0 {
		return nil
	}
	return apt(ctx, "", "update")
}

// apt retries once after an update: a list that is older than the archive
// names files that are gone.
func apt(ctx context.Context, dir string, args ...string) error {
	_, err := aptGet(ctx, dir, args...)
	if err == nil || args[0] == "update" || ctx.Err() != nil {
		return err
	}
	if _, updateErr := aptGet(ctx, "", "update"); updateErr != nil {
		return errors.Join(err, updateErr)
	}
	_, err = aptGet(ctx, dir, args...)
	return err
}

func aptGet(ctx context.Context, dir string, args ...string) (string, error) {
	quiet := []string{"-q", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root"}
	return Run(ctx, dir, "env", append(append([]string{"DEBIAN_FRONTEND=noninteractive", "apt-get"}, quiet...), args...)...)
}

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "; ")
}
