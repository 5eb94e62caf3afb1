package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/cache"
)

// kernelPackage depends on the package that holds the newest kernel. The cloud
// flavour has IPVS and every virtio driver and is a tenth of the full one.
const kernelPackage = "linux-image-cloud-amd64"

// Kernel is an unpacked Debian kernel; nothing of it is installed.
type Kernel struct {
	// Release is what uname -r says in a guest.
	Release string
	// Image is the file to boot.
	Image string
	// Modules is the folder lib/modules/Release, with depmod's files.
	Modules string
}

// DebianKernel returns the kernel that apt offers, unpacked in the cache. With
// a kernel in the cache apt is not asked, so that a lab needs no network.
func DebianKernel(ctx context.Context, dir cache.Dir, progress io.Writer) (Kernel, error) {
	root, err := dir.Fill(ctx, "kernel", func(draft string) error {
		return unpackKernel(ctx, draft, progress)
	})
	if err != nil {
		return Kernel{}, fmt.Errorf("getting a kernel for the guests: %w", err)
	}
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return Kernel{}, fmt.Errorf("no kernel image in %s: remove that folder and try again", root)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return Kernel{
		Release: release,
		Image:   images[0],
		Modules: filepath.Join(root, "lib", "modules", release),
	}, nil
}

func unpackKernel(ctx context.Context, dir string, progress io.Writer) error {
	if err := Install(ctx, progress, Need{"depmod", "kmod"}); err != nil {
		return err
	}
	if err := updateLists(ctx); err != nil {
		return err
	}
	depends, err := Run(ctx, "", "apt-cache", "depends", "--important", kernelPackage)
	if err != nil {
		return fmt.Errorf("asking apt what %s is: %w", kernelPackage, err)
	}
	var real string
	for line := range strings.Lines(depends) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); found {
			real = name
			break
		}
	}
	if real == "" {
		return fmt.Errorf("apt offers no package %s", kernelPackage)
	}
	fmt.Fprintf(progress, "downloading the kernel %s\n", real)
	if err := UnpackPackage(ctx, real, dir); err != nil {
		return err
	}
	modules, err := filepath.Glob(filepath.Join(dir, "lib", "modules", "*"))
	if err != nil || len(modules) != 1 {
		return errors.New("the kernel package holds no modules")
	}
	if _, err := Run(ctx, "", "depmod", "-b", dir, filepath.Base(modules[0])); err != nil {
		return fmt.Errorf("listing what the kernel's modules depend on: %w", err)
	}
	return nil
}

// UnpackPackage puts the files of a Debian package into dir without
// installing it.
func UnpackPackage(ctx context.Context, name, dir string) error {
	download, err := os.MkdirTemp("", "lvs-lab-deb-")
	if err != nil {
		return fmt.Errorf("downloading %s: %w", name, err)
	}
	defer os.RemoveAll(download)
	if err := apt(ctx, download, "download", name); err != nil {
		return fmt.Errorf("downloading %s: %w", name, err)
	}
	packages, err := filepath.Glob(filepath.Join(download, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt downloaded no package %s", name)
	}
	if _, err := Run(ctx, "", "dpkg", "-x", packages[0], dir); err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	return nil
}

// LoadOrder returns the files of the named modules and of all that they need,
// relative to k.Modules, each after those it depends on.
func (k Kernel) LoadOrder(names ...string) ([]string, error) {
	file, err := os.Open(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("reading the modules' dependencies: %w", err)
	}
	defer file.Close()
	dependencies := map[string][]string{}
	paths := map[string]string{}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		path, rest, found := strings.Cut(scanner.Text(), ":")
		if !found {
			continue
		}
		dependencies[path] = strings.Fields(rest)
		paths[moduleName(path)] = path
	}
	var order []string
	for _, name := range names {
		path, found := paths[moduleName(name)]
		if !found {
			return nil, fmt.Errorf("kernel %s has no module %s", k.Release, name)
		}
		// depmod lists what is needed with the deepest dependency last.
		for _, needed := range slices.Backward(append([]string{path}, dependencies[path]...)) {
			if !slices.Contains(order, needed) {
				order = append(order, needed)
			}
		}
	}
	return order, nil
}

func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(name, "-", "_")
}
