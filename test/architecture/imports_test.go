package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/lvs-operator/lvs-operator"
)

// dependencies lists all packages that those of the patterns are built of.
func dependencies(t *testing.T, patterns ...string) []string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps"}, patterns...)...)
	command.Dir = root
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.Fields(string(out))
}

func TestWhatDecidesLinksNoKernel(t *testing.T) {
	kernel := []string{
		"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/mdlayher/netlink",
		"github.com/moby/ipvs", "github.com/google/nftables", "github.com/mdlayher/packet", module + "/internal/kernel",
	}
	deciding := []string{
		"./api/...", "./controllers/...", "./internal/plan", "./internal/netstate", "./internal/health", "./internal/conditions", "./internal/election",
	}
	for _, dependency := range dependencies(t, deciding...) {
		for _, pkg := range kernel {
			if dependency == pkg || strings.HasPrefix(dependency, pkg+"/") {
				t.Errorf("%v depend on %s", deciding, dependency)
			}
		}
	}
}

func TestTheModelOfTheKernelIsBuiltOfTheStandardLibrary(t *testing.T) {
	for _, dependency := range dependencies(t, "./internal/netstate") {
		first, _, _ := strings.Cut(dependency, "/")
		if strings.Contains(first, ".") && dependency != module+"/internal/netstate" {
			t.Errorf("internal/netstate depends on %s", dependency)
		}
	}
}

// Decisions are tried on any developer's machine. (make verify compiles them for
// another system; this only finds what has no files there.)
func TestWhatDecidesIsThereOnOtherSystems(t *testing.T) {
	command := exec.CommandContext(t.Context(), "go", "list", "-deps", "-e", "-f", "{{with .Error}}{{.}}{{end}}",
		"./api/...", "./controllers/...", "./internal/plan", "./internal/netstate", "./internal/health", "./internal/conditions")
	command.Dir = root
	command.Env = append(os.Environ(), "GOOS=darwin", "CGO_ENABLED=0")
	out, err := command.CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil || text != "" {
		t.Errorf("%s: %v\n%s", command, err, text)
	}
}

// Programs need nothing but the kernel: an image has no ipvsadm, arping, ip or
// sysctl, and what these would do is done by system calls. (moby/ipvs asks for
// modprobe when it is first used, and does without.)
func TestTheProductExecutesNoProgram(t *testing.T) {
	for _, folder := range []string{"api", "cmd", "controllers", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") ||
				strings.Contains(path, "/kerneltest/") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			for _, name := range executing(file) {
				t.Errorf("%s uses %s", path, name)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// executing lists what a file uses to start processes.
func executing(file *ast.File) []string {
	var found []string
	for _, spec := range file.Imports {
		if path := strings.Trim(spec.Path.Value, `"`); path == "os/exec" {
			found = append(found, path)
		}
	}
	starts := []string{"os.StartProcess", "syscall.Exec", "syscall.ForkExec", "syscall.StartProcess", "unix.Exec"}
	ast.Inspect(file, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := selector.X.(*ast.Ident); ok && slices.Contains(starts, pkg.Name+"."+selector.Sel.Name) {
			found = append(found, pkg.Name+"."+selector.Sel.Name)
		}
		return true
	})
	return found
}
