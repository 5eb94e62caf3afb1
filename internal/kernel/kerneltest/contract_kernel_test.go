//go:build kernel

package kerneltest_test

import (
	"testing"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
)

func TestKernelKeepsTheContract(t *testing.T) {
	kerneltest.Contract(t, func(t *testing.T) kerneltest.Kernel {
		ns := netlab.New(t)
		ns.Dummy("eth0")
		ns.Address("eth0", "198.51.100.2/24")
		ns.Address("eth0", "198.51.100.3/24")
		client, err := kernel.New(kernel.Options{NetNS: ns.Path(), StateDir: t.TempDir(), Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	})
}
