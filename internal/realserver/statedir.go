package realserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrRunning says that another process keeps this host a real server.
var ErrRunning = errors.New("another realserver keeps this host")

// StateDir is the folder of what outlives a process and goes with a reboot:
// package kernel's record is in it too.
type StateDir string

// Lock keeps other processes off a host. The kernel ends it with the process,
// however that dies.
type Lock struct {
	file *os.File
}

// How often a lock that is taken is tried: StateDir.Keeper takes it for an
// instant.
const (
	lockTries = 10
	lockPause = 20 * time.Millisecond
)

// Lock takes the lock; the folder is made if need be. If a process has it the
// error wraps ErrRunning and names it.
func (d StateDir) Lock(ctx context.Context) (*Lock, error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	f, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the host: %w", err)
	}
	if err := lock(ctx, f); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the host: %w", err), f.Close())
	}
	return &Lock{file: f}, nil
}

func lock(ctx context.Context, f *os.File) error {
	for try := 1; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if try == lockTries || ctx.Err() != nil {
			return fmt.Errorf("%w: %s", ErrRunning, holder(f))
		}
		pause(ctx, lockPause)
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(f, "process %d\n", os.Getpid())
	return err
}

// holder returns what the holder of a lock wrote into its file.
func holder(f *os.File) string {
	const enough = 64
	text, err := io.ReadAll(io.LimitReader(f, enough))
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name
	}
	return "its process is not known"
}

// Release gives the lock up.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("unlocking the host: %w", err)
	}
	return nil
}

// Keeper names the process that has the lock; it is empty if none has.
func (d StateDir) Keeper() (string, error) {
	f, err := os.Open(d.lockFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for a process that keeps the host: %w", err)
	}
	defer func() { _ = f.Close() }()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return holder(f), nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for a process that keeps the host: %w", err)
	}
	return "", nil
}

// SaveVIPs remembers which VIPs are set up, those among them that were on lo
// before.
func (d StateDir) SaveVIPs(vips []netip.Addr) error {
	var text strings.Builder
	for _, vip := range vips {
		fmt.Fprintln(&text, vip)
	}
	if err := d.replace(text.String()); err != nil {
		return fmt.Errorf("remembering the VIPs: %w", err)
	}
	return nil
}

func (d StateDir) replace(text string) error {
	tmp := d.vipsFile() + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, d.vipsFile())
}

// VIPs returns what SaveVIPs remembered; none if nothing is set up.
func (d StateDir) VIPs() ([]netip.Addr, error) {
	text, err := os.ReadFile(d.vipsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the VIPs: %w", err)
	}
	vips, err := ParseVIPs(strings.Fields(string(text)))
	if err != nil {
		return nil, fmt.Errorf("reading the VIPs of %s: %w", d.vipsFile(), err)
	}
	return vips, nil
}

// ForgetVIPs says that nothing is set up any more.
func (d StateDir) ForgetVIPs() error {
	if err := os.Remove(d.vipsFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the VIPs: %w", err)
	}
	return nil
}

func (d StateDir) lockFile() string { return filepath.Join(string(d), "lock") }
func (d StateDir) vipsFile() string { return filepath.Join(string(d), "vips") }
