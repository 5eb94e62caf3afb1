package guest

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest/pid1"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// BootModules adds kernel modules that /init loads by itself, by
// pid1.LoadModules, before it can find a modprobe.
func (a *Archive) BootModules(kernel machine.Kernel, names ...string) {
	if a.err != nil {
		return
	}
	files, err := kernel.LoadOrder(names...)
	if err != nil {
		a.err = err
		return
	}
	var list strings.Builder
	for _, file := range files {
		name := path.Join(pid1.BootModulesDir, filepath.Base(file))
		a.File(filepath.Join(kernel.Modules, file), name)
		list.WriteString(name + "\n")
	}
	a.Bytes([]byte(list.String()), pid1.BootModulesList, 0o644)
}

// KeepModule says which of a kernel's modules a guest of ours can need, as
// Archive.Tree asks: networking, file systems for containers, virtual devices.
// Sound, disks and graphics are three quarters of the size.
func KeepModule(file string, dir bool) bool {
	if !strings.HasPrefix(file, "kernel") {
		return strings.HasPrefix(file, "modules.")
	}
	if dir && strings.Count(file, "/") < 2 {
		return true
	}
	for _, prefix := range []string{
		"kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch", "kernel/mm", "kernel/block",
		"kernel/drivers/net", "kernel/drivers/virtio", "kernel/drivers/block", "kernel/drivers/char",
		"kernel/fs/overlayfs", "kernel/fs/fuse", "kernel/fs/configfs",
	} {
		if file == prefix || strings.HasPrefix(file, prefix+"/") {
			return !strings.HasPrefix(file, "kernel/drivers/net/ethernet")
		}
	}
	return false
}
