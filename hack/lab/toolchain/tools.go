package toolchain

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// tool is one thing to build.
type tool struct {
	name string
	// module is the folder under hack/tools that pins its version.
	module string
	// pkg is the package to build.
	pkg string
	// aliases are other names for the program.
	aliases []string
	cgo     string
	flags   []string
	needs   []machine.Need
	// diskMiB is what a build from nothing takes at most, with Go's caches.
	diskMiB uint64
}

// programs maps what Ensure can be asked for to the tool that brings it.
func programs() map[string]tool {
	all := map[string]tool{}
	for _, t := range tools() {
		if t.diskMiB == 0 {
			t.diskMiB = 1500
		}
		if t.cgo == "" {
			t.cgo = "0"
		}
		all[t.name] = t
		for _, alias := range t.aliases {
			all[alias] = t
		}
	}
	return all
}

func tools() []tool {
	list := []tool{
		{
			name: "kube", module: "kubernetes", pkg: ".", diskMiB: 5000,
			aliases: []string{
				"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl",
			},
		},
		{
			// Without seccomp even a pod's sandbox fails, and that is a C library.
			name: "runc", module: "containers", pkg: "github.com/opencontainers/runc",
			cgo: "1", flags: []string{"-tags", "seccomp,netgo,osusergo"},
			needs: []machine.Need{
				{File: "gcc", Package: "gcc"},
				{File: "/usr/include/stdlib.h", Package: "libc6-dev"},
				{File: "/usr/include/seccomp.h", Package: "libseccomp-dev"},
				{File: "pkg-config", Package: "pkg-config"},
			},
		},
	}
	for module, packages := range map[string][]string{
		"containers": {
			"github.com/containerd/containerd/v2/cmd/containerd",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
			"github.com/containerd/containerd/v2/cmd/ctr",
			"github.com/containernetworking/plugins/plugins/ipam/host-local",
			"github.com/containernetworking/plugins/plugins/main/bridge",
			"github.com/containernetworking/plugins/plugins/main/loopback",
			"github.com/containernetworking/plugins/plugins/main/macvlan",
			"github.com/containernetworking/plugins/plugins/main/ptp",
			"github.com/containernetworking/plugins/plugins/meta/portmap",
		},
		"dev": {
			"sigs.k8s.io/controller-tools/cmd/controller-gen",
			"gotest.tools/gotestsum",
			// golangci-lint with one linter more.
			"sigs.k8s.io/kube-api-linter/cmd/golangci-lint-kube-api-linter",
		},
		"helm": {"helm.sh/helm/v4/cmd/helm"},
	} {
		for _, pkg := range packages {
			list = append(list, tool{name: path.Base(pkg), module: module, pkg: pkg})
		}
	}
	return list
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)$`)

// linkerFlags strips the program, and tells Kubernetes its version, which the
// nodes report and clients look at.
func (t tool) linkerFlags(source string) (string, error) {
	flags := "-s -w"
	if t.cgo == "1" {
		return flags + " -extldflags -static", nil
	}
	if t.name != "kube" {
		return flags, nil
	}
	content, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("looking for the version of Kubernetes: %w", err)
	}
	match := kubernetesVersion.FindStringSubmatch(string(content))
	if match == nil {
		return "", fmt.Errorf("%s requires no k8s.io/kubernetes", filepath.Join(source, "go.mod"))
	}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, set := range []string{
			"gitVersion=" + match[1], "gitMajor=" + match[2], "gitMinor=" + match[3],
			"gitTreeState=clean", "buildDate=2026-01-01T00:00:00Z",
		} {
			flags += " -X " + pkg + "." + set
		}
	}
	return strings.TrimSpace(flags), nil
}
