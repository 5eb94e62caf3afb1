package guest

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// Accelerator says how qemu runs a guest's instructions.
type Accelerator string

// The accelerators. Auto is replaced by one of the others before a guest
// boots, see ChooseAccelerator.
const (
	Auto      Accelerator = "auto"
	KVM       Accelerator = "kvm"
	Emulation Accelerator = "tcg"
)

// ParseAccelerator returns the accelerator with this name.
func ParseAccelerator(name string) (Accelerator, error) {
	switch a := Accelerator(name); a {
	case Auto, KVM, Emulation:
		return a, nil
	}
	return "", fmt.Errorf("%q is no accelerator: use %s, %s or %s", name, Auto, KVM, Emulation)
}

// Config describes a virtual machine.
type Config struct {
	Kernel machine.Kernel
	// Initrd is an initramfs with a program /init.
	Initrd      string
	Accelerator Accelerator
	// CPUs is how many the guest has; 0 for what suits the accelerator. By
	// emulation several are slower than one: each change of a mapping, and Go
	// programs make many, stops all of them.
	CPUs      int
	MemoryMiB int
	// Parameters go onto the kernel's command line.
	Parameters string
	// Console is a file that gets what the kernel and /init print.
	Console string
	// Disks are images that the guest finds as /dev/pmem0 and so on.
	Disks []Disk
	NICs  []NIC
	// Ports are virtio-serial ports; the guest finds them by name.
	Ports []Port
	// Control is where qemu makes a socket for SetLink; none if it is empty.
	Control string
}

// Disk is a file that a guest has as persistent memory: what it reads are the
// pages of the machine's own cache, which several guests share, and no request
// has to wait for a busy machine. What a guest writes is its own and is lost.
type Disk struct {
	Path string
	// Size is the file's, a multiple of DiskUnit.
	Size int64
}

// DiskUnit is what a Disk's size has to be a multiple of.
const DiskUnit = 2 << 20

// OpenDisk returns the Disk in a file.
func OpenDisk(file string) (Disk, error) {
	info, err := os.Stat(file)
	if err != nil {
		return Disk{}, fmt.Errorf("looking at a guest's disk: %w", err)
	}
	if info.Size()%DiskUnit != 0 {
		return Disk{}, fmt.Errorf("%s has %d bytes, want a multiple of %d", file, info.Size(), DiskUnit)
	}
	return Disk{Path: file, Size: info.Size()}, nil
}

// NIC is a network card behind a tap device in qemu's network namespace.
type NIC struct {
	Tap string
	MAC string
}

// Port is a serial line between the machine and the guest.
type Port struct {
	// Name is the port's name in the guest, see pid1.OpenPort.
	Name string
	// Backend is qemu's character device, such as "file,path=/x" or
	// "socket,path=/run/x,server=on,wait=off".
	Backend string
}

// Packages are what has to be installed to boot a guest.
func Packages() []machine.Need {
	return []machine.Need{
		{File: "qemu-system-x86_64", Package: "qemu-system-x86"},
		{File: "/bin/busybox", Package: "busybox-static"},
	}
}

// Arguments is the command line for qemu-system-x86_64.
func (c Config) Arguments() []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot",
		"-smp", strconv.Itoa(c.cpus()), "-m", c.memory(),
		"-serial", "file:" + c.Console,
		"-kernel", c.Kernel.Image, "-initrd", c.Initrd,
		"-append", c.kernelParameters(),
		"-device", "virtio-rng-pci",
	}
	if c.Accelerator == KVM {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		args = append(args, "-accel", "tcg,thread=multi", "-cpu", "max")
	}
	for i, disk := range c.Disks {
		args = append(args,
			"-object", fmt.Sprintf("memory-backend-file,id=disk%d,share=off,mem-path=%s,size=%d", i, disk.Path, disk.Size),
			"-device", fmt.Sprintf("virtio-pmem-pci,memdev=disk%d", i))
	}
	for i, nic := range c.NICs {
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=%s,ifname=%s,script=no,downscript=no", nicName(i), nic.Tap),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s,romfile=", nicName(i), nic.MAC))
	}
	if c.Control != "" {
		args = append(args, "-qmp", "unix:"+c.Control+",server=on,wait=off")
	}
	if len(c.Ports) > 0 {
		args = append(args, "-device", "virtio-serial-pci")
	}
	for i, port := range c.Ports {
		args = append(args,
			"-chardev", withID(port.Backend, fmt.Sprintf("port%d", i)),
			"-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s", i, port.Name))
	}
	return args
}

// memory leaves room in the address space for the disks.
func (c Config) memory() string {
	room := int64(c.MemoryMiB)
	for _, disk := range c.Disks {
		room += disk.Size>>20 + 1024 // each is aligned to a gigabyte
	}
	return fmt.Sprintf("%d,slots=%d,maxmem=%dM", c.MemoryMiB, len(c.Disks)+1, room+1024)
}

func (c Config) cpus() int {
	switch {
	case c.CPUs > 0:
		return c.CPUs
	case c.Accelerator == KVM:
		return 2
	}
	return 1
}

func (c Config) kernelParameters() string {
	// panic=-1 makes a panic a reboot, and -no-reboot makes that the end.
	parameters := "console=ttyS0 panic=-1 quiet"
	if c.Accelerator != KVM {
		// The kernel does not trust an emulated time stamp counter, and would
		// ask an emulated device for the time; and it would guard against
		// faults that an emulated processor does not have. On a busy machine it
		// would also find its timer not to tick in time, and panic.
		parameters += " tsc=reliable clocksource=tsc mitigations=off no_timer_check"
	}
	return strings.TrimSpace(parameters + " " + c.Parameters)
}

// withID puts the id behind the kind of backend, which has to come first.
func withID(backend, id string) string {
	for i, c := range backend {
		if c == ',' {
			return backend[:i] + ",id=" + id + backend[i:]
		}
	}
	return backend + ",id=" + id
}
