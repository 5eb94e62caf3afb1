package machine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseLdd(t *testing.T) {
	listing := "\tlinux-vdso.so.1 (0x00007f4e62394000)\n" +
		"\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f4e622c6000)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f4e62396000)\n"
	want := []string{"/lib/x86_64-linux-gnu/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"}
	if have := parseLdd(listing); !slices.Equal(have, want) {
		t.Errorf("parseLdd() = %q, want %q", have, want)
	}
}

func TestLoadOrder(t *testing.T) {
	dir := t.TempDir()
	dependencies := "kernel/virtio_net.ko: kernel/net_failover.ko kernel/failover.ko\n" +
		"kernel/net_failover.ko: kernel/failover.ko\n" +
		"kernel/failover.ko:\n" +
		"kernel/nft-chain.ko: kernel/failover.ko\n"
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dependencies), 0o644); err != nil {
		t.Fatal(err)
	}
	kernel := Kernel{Release: "test", Modules: dir}

	have, err := kernel.LoadOrder("virtio_net", "nft_chain")
	want := []string{"kernel/failover.ko", "kernel/net_failover.ko", "kernel/virtio_net.ko", "kernel/nft-chain.ko"}
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("LoadOrder() = %q, %v, want %q", have, err, want)
	}
	if _, err := kernel.LoadOrder("missing"); err == nil {
		t.Error("LoadOrder(missing) = nil, want an error")
	}
}

func TestLastLines(t *testing.T) {
	if have := lastLines("a\nb\nc\n\n", 2); have != "b; c" {
		t.Errorf("lastLines() = %q, want the last two", have)
	}
}
