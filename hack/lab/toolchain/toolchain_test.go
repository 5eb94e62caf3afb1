package toolchain

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryToolIsPinned(t *testing.T) {
	tools, err := New(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for name, tool := range programs() {
		gomod, err := os.ReadFile(filepath.Join(tools.Root, "hack", "tools", tool.module, "go.mod"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tool.pkg != "." && !strings.Contains(string(gomod), tool.pkg+"\n") {
			t.Errorf("%s: hack/tools/%s has no tool line for %s", name, tool.module, tool.pkg)
		}
	}
}

func TestNames(t *testing.T) {
	for _, want := range []string{
		"kube", "etcd", "kube-apiserver", "kubectl", "kubelet", "helm", "controller-gen", "golangci-lint-kube-api-linter", "gotestsum", "runc",
	} {
		if !slices.Contains(Names(), want) {
			t.Errorf("no tool %s", want)
		}
	}
}

func TestKubernetesVersionIsTheModules(t *testing.T) {
	dir := t.TempDir()
	gomod := "module x\n\nrequire (\n\tk8s.io/kubernetes v1.37.0\n)\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(gomod), 0o644); err != nil {
		t.Fatal(err)
	}
	flags, err := programs()["kubelet"].linkerFlags(dir)
	if err != nil || !strings.Contains(flags, "client-go/pkg/version.gitVersion=v1.37.0 ") || !strings.Contains(flags, ".gitMinor=37 ") {
		t.Errorf("linkerFlags() = %q, %v", flags, err)
	}
}

func TestCheckDisk(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "not", "there")
	if err := checkDisk(1, missing); err != nil {
		t.Errorf("checkDisk(1 MiB) = %v", err)
	}
	if err := checkDisk(1<<40, missing); err == nil || !strings.Contains(err.Error(), "too little disk") {
		t.Errorf("checkDisk(an exbibyte) = %v, want too little disk", err)
	}
}
