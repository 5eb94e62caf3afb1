package guest

import (
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	config := Config{
		Accelerator: Emulation, MemoryMiB: 512, Console: "/c", Initrd: "/i", Parameters: "extra",
		Disks: []Disk{{Path: "/d", Size: 4 << 20}}, NICs: []NIC{{Tap: "t0", MAC: "52:54:00:00:00:01"}},
		Ports: []Port{{Name: "exec0", Backend: "socket,path=/s,server=on"}},
	}
	line := strings.Join(config.Arguments(), " ")
	for _, want := range []string{
		"-accel tcg", "-smp 1 ", "no_timer_check extra", "mem-path=/d,size=4194304", "-m 512,slots=2,maxmem=2564M",
		"tap,id=nic0,ifname=t0", "socket,id=port0,path=/s,server=on", "chardev=port0,name=exec0",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
	config.Accelerator = KVM
	if line := strings.Join(config.Arguments(), " "); !strings.Contains(line, "-smp 2 ") || strings.Contains(line, "mitigations") {
		t.Errorf("with KVM: %s", line)
	}
}

func TestParseAccelerator(t *testing.T) {
	if a, err := ParseAccelerator("kvm"); a != KVM || err != nil {
		t.Errorf("ParseAccelerator(kvm) = %s, %v", a, err)
	}
	if _, err := ParseAccelerator(""); err == nil {
		t.Error("ParseAccelerator() = nil, want an error")
	}
}
