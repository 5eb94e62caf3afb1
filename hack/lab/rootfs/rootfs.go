// Package rootfs makes the disk that all nodes of a lab start from: Kubernetes
// and containerd from the toolchain, the kernel's modules, and the network
// programs of Debian that kube-proxy and people need.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/cache"
	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
	"github.com/lvs-operator/lvs-operator/hack/lab/toolchain"
)

// layout is part of the cache's key: raise it with any change to what this
// package puts where.
const layout = "7"

// Where the programs are on a node.
const (
	BinDir = "/usr/local/bin"
	CNIDir = "/opt/cni/bin"
)

func nodePrograms() []string {
	return []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc"}
}

func cniPlugins() []string {
	return []string{"bridge", "host-local", "loopback", "macvlan", "portmap", "ptp"}
}

// debian maps packages to the programs of theirs that nodes get.
func debian() map[string][]string {
	return map[string][]string{
		"iptables":  {"/usr/sbin/xtables-nft-multi"},
		"nftables":  {"/usr/sbin/nft"},
		"iproute2":  {"/bin/ip", "/bin/ss", "/sbin/bridge", "/sbin/tc"},
		"ipvsadm":   {"/sbin/ipvsadm"},
		"conntrack": {"/usr/sbin/conntrack"},
		"tcpdump":   {"/usr/bin/tcpdump"},
		// Busybox's wget crashes: it is static, and glibc's resolver is not.
		"curl": {"/usr/bin/curl"},
		// Busybox's shell takes busybox's own ip and its like before any other.
		"dash": {"/bin/dash"},
	}
}

// xtablesNames are the names under which the one program of iptables acts as
// each of its commands.
func xtablesNames() []string {
	return []string{
		"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
	}
}

// Image returns the file of the disk, made if the cache has none.
func Image(ctx context.Context, tools *toolchain.Toolchain, kernel machine.Kernel) (string, error) {
	b := &builder{tools: tools, kernel: kernel}
	if err := b.collect(ctx); err != nil {
		return "", err
	}
	dir, err := tools.Cache.Fill(ctx, "rootfs/"+b.key, func(draft string) error {
		fmt.Fprintln(tools.Progress, "making the nodes' disk")
		tree := filepath.Join(draft, "tree")
		if err := b.stage(ctx, tree); err != nil {
			return fmt.Errorf("making the nodes' disk: %w", err)
		}
		if err := Disk(ctx, tree, filepath.Join(draft, "root.ext4")); err != nil {
			return err
		}
		return os.RemoveAll(tree)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "root.ext4"), nil
}

type builder struct {
	tools  *toolchain.Toolchain
	kernel machine.Kernel
	// kube is the one program that is everything of Kubernetes.
	kube string
	// files maps files of this machine to their place on the disk.
	files map[string]string
	key   string
}

// collect gets all programs and derives the disk's key from their versions.
func (b *builder) collect(ctx context.Context) error {
	var err error
	if b.kube, err = b.tools.Ensure(ctx, "kube"); err != nil {
		return err
	}
	b.files = map[string]string{}
	parts := []string{layout, b.kernel.Release, b.kube}
	for dir, names := range map[string][]string{BinDir: nodePrograms(), CNIDir: cniPlugins()} {
		for _, name := range names {
			file, err := b.tools.Ensure(ctx, name)
			if err != nil {
				return err
			}
			b.files[file] = filepath.Join(dir, name)
			parts = append(parts, file)
		}
	}
	needs := []machine.Need{{File: "mke2fs", Package: "e2fsprogs"}}
	var packages []string
	for name, programs := range debian() {
		needs = append(needs, machine.Need{File: programs[0], Package: name})
		packages = append(packages, name)
	}
	if err := machine.Install(ctx, b.tools.Progress, needs...); err != nil {
		return err
	}
	versions, err := machine.PackageVersions(ctx, append(packages, "busybox-static")...)
	if err != nil {
		return err
	}
	slices.Sort(parts)
	b.key = cache.Key(append(parts, versions)...)
	return nil
}

func (b *builder) stage(ctx context.Context, tree string) error {
	if err := layOut(tree); err != nil {
		return err
	}
	for from, to := range b.files {
		if err := copyFile(from, filepath.Join(tree, to)); err != nil {
			return err
		}
	}
	if err := copyFile(b.kube, filepath.Join(tree, BinDir, "kube")); err != nil {
		return err
	}
	for _, name := range []string{"kubelet", "kube-proxy", "kubectl"} {
		if err := os.Symlink("kube", filepath.Join(tree, BinDir, name)); err != nil {
			return err
		}
	}
	if err := b.stageDebian(ctx, tree); err != nil {
		return err
	}
	if err := stageBusybox(ctx, tree); err != nil {
		return err
	}
	return copyTree(b.kernel.Modules, filepath.Join(tree, "usr/lib/modules", b.kernel.Release), guest.KeepModule)
}

// layOut makes the folders, with /bin and its like as links into /usr, and the
// files that programs of the nodes look for.
func layOut(tree string) error {
	for _, dir := range []string{
		"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", BinDir, CNIDir,
		"dev", "etc/cni/net.d", "etc/containerd", "lab", "mnt", "proc", "root", "run", "sys", "tmp", "var",
	} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(tree, name)); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"group":         "root:x:0:\nnogroup:x:65534:\n",
		"resolv.conf":   "",
		"nsswitch.conf": "hosts: files\n",
		"os-release":    "PRETTY_NAME=\"lvs-operator lab node\"\nID=debian\nVERSION_ID=12\n",
	} {
		if err := os.WriteFile(filepath.Join(tree, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) stageDebian(ctx context.Context, tree string) error {
	libraries := map[string]bool{}
	for _, programs := range debian() {
		for _, program := range programs {
			needed, err := machine.Libraries(ctx, program)
			if err != nil {
				return err
			}
			for _, library := range needed {
				libraries[library] = true
			}
			if err := copyFile(program, filepath.Join(tree, program)); err != nil {
				return err
			}
		}
	}
	plugins, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil {
		return err
	}
	for _, plugin := range plugins {
		libraries[plugin] = true
	}
	for library := range libraries {
		if err := copyFile(library, filepath.Join(tree, library)); err != nil {
			return err
		}
	}
	for _, name := range xtablesNames() {
		if err := os.Symlink("xtables-nft-multi", filepath.Join(tree, "usr/sbin", name)); err != nil {
			return err
		}
	}
	return nil
}

// stageBusybox fills in every command that isn't there yet, modprobe among
// them.
func stageBusybox(ctx context.Context, tree string) error {
	if err := copyFile("/bin/busybox", filepath.Join(tree, "bin/busybox")); err != nil {
		return err
	}
	applets, err := machine.Run(ctx, "", "/bin/busybox", "--list-full")
	if err != nil {
		return fmt.Errorf("listing busybox's commands: %w", err)
	}
	if err := os.Symlink("dash", filepath.Join(tree, "bin/sh")); err != nil {
		return err
	}
	own := map[string]bool{}
	for _, programs := range debian() {
		for _, program := range programs {
			own[filepath.Base(program)] = true
		}
	}
	for applet := range strings.FieldsSeq(applets) {
		if own[filepath.Base(applet)] {
			continue // in another folder, it might come first on PATH
		}
		err := os.Symlink("/bin/busybox", filepath.Join(tree, applet))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func copyTree(from, to string, keep func(path string, dir bool) bool) error {
	return filepath.WalkDir(from, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		within, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		switch {
		case within != "." && !keep(filepath.ToSlash(within), entry.IsDir()):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case entry.Type().IsRegular():
			return copyFile(file, filepath.Join(to, within))
		}
		return nil
	})
}

// copyFile follows links, keeps the mode and makes the folder.
func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
