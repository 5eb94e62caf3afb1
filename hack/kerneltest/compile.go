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
	"strconv"
)

// buildTag marks tests that need a kernel with IPVS: only here are they built.
const buildTag = "kernel"

// testBinary is a package's compiled tests.
type testBinary struct {
	importPath string
	// dir is the package's folder, file its compiled tests.
	dir, file string
	args      []string
}

// listed is what is used of go list's answer.
type listed struct {
	ImportPath   string
	Dir          string
	TestGoFiles  []string
	XTestGoFiles []string
}

// compile makes a static test binary of each package that has tests.
func compile(ctx context.Context, opts options, scratch string) ([]testBinary, error) {
	packages, err := list(ctx, opts.packages)
	if err != nil {
		return nil, err
	}
	var binaries []testBinary
	for i, pkg := range packages {
		if len(pkg.TestGoFiles)+len(pkg.XTestGoFiles) == 0 {
			continue
		}
		file := filepath.Join(scratch, strconv.Itoa(i)+".test")
		args := []string{"test", "-tags", buildTag, "-c", "-o", file}
		env := "CGO_ENABLED=0"
		if opts.race {
			args = append(args, "-race", "-ldflags", "-linkmode external -extldflags -static")
			env = "CGO_ENABLED=1"
		}
		if err := goTool(ctx, env, io.Discard, append(args, pkg.ImportPath)...); err != nil {
			return nil, fmt.Errorf("compiling the tests of %s: %w", pkg.ImportPath, err)
		}
		binaries = append(binaries, testBinary{
			importPath: pkg.ImportPath, dir: pkg.Dir, file: file, args: testArgs(opts),
		})
	}
	if len(binaries) == 0 {
		return nil, errors.New("none of these packages has tests")
	}
	return binaries, nil
}

func testArgs(opts options) []string {
	args := []string{"-test.v", "-test.timeout=" + opts.timeout.String(), "-test.count=" + strconv.Itoa(opts.count)}
	if opts.run != "" {
		args = append(args, "-test.run="+opts.run)
	}
	return args
}

func list(ctx context.Context, patterns []string) ([]listed, error) {
	var out bytes.Buffer
	if err := goTool(ctx, "CGO_ENABLED=0", &out, append([]string{"list", "-tags", buildTag, "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", "--"}, patterns...)...); err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	var packages []listed
	for decoder := json.NewDecoder(&out); ; {
		var pkg listed
		err := decoder.Decode(&pkg)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading go list's answer: %w", err)
		}
		packages = append(packages, pkg)
	}
}

func goTool(ctx context.Context, env string, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), env)
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	return cmd.Run()
}
