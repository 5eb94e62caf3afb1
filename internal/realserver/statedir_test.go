package realserver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

func TestLockNamesItsHolder(t *testing.T) {
	dir := realserver.StateDir(filepath.Join(t.TempDir(), "realserver"))
	if name, err := dir.Keeper(); name != "" || err != nil {
		t.Fatalf("Keeper() = %q, %v before there is a lock", name, err)
	}
	lock, err := dir.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	me := "process " + strconv.Itoa(os.Getpid())
	if name, err := dir.Keeper(); name != me || err != nil {
		t.Errorf("Keeper() = %q, %v", name, err)
	}
	if _, err := dir.Lock(t.Context()); !errors.Is(err, realserver.ErrRunning) || !strings.Contains(err.Error(), me) {
		t.Errorf("a second Lock() = %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if name, err := dir.Keeper(); name != "" || err != nil {
		t.Errorf("Keeper() = %q, %v of a lock that was released", name, err)
	}
	if lock, err = dir.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = lock.Release()
}

func TestLockGivesUpWithItsContext(t *testing.T) {
	dir := realserver.StateDir(t.TempDir())
	lock, err := dir.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Release() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dir.Lock(ctx); !errors.Is(err, realserver.ErrRunning) {
		t.Errorf("Lock() = %v", err)
	}
}

func TestVIPsAreRemembered(t *testing.T) {
	dir := realserver.StateDir(t.TempDir())
	want := addrs("192.0.2.1", "2001:db8::1")
	if got, err := dir.VIPs(); len(got) > 0 || err != nil {
		t.Fatalf("VIPs() = %v, %v before there are any", got, err)
	}
	if err := dir.SaveVIPs(want); err != nil {
		t.Fatal(err)
	}
	if got, err := dir.VIPs(); !slices.Equal(got, want) || err != nil {
		t.Errorf("VIPs() = %v, %v", got, err)
	}
	for range 2 {
		if err := dir.ForgetVIPs(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := dir.VIPs(); len(got) > 0 || err != nil {
		t.Errorf("VIPs() = %v, %v when they are forgotten", got, err)
	}
}
