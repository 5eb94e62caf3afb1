package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrLocked says that another director runs on this node.
var ErrLocked = errors.New("another director runs on this node")

// Lock keeps a second director off the node. The kernel ends it with the
// process, however that dies.
type Lock struct {
	file *os.File
}

// Acquire takes the lock of a folder, which is made if need be. holder is what
// a second director is told of this one: its pod, say. If the lock is taken the
// error wraps ErrLocked and names its holder.
func Acquire(dir, holder string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	if err := lock(f, holder); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	return &Lock{file: f}, nil
}

func lock(f *os.File, holder string) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s", ErrLocked, holderOf(f))
	}
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s, process %d\n", holder, os.Getpid())
	return err
}

// holderOf returns what the holder of a lock wrote into its file.
func holderOf(f *os.File) string {
	const enough = 1024
	text, err := io.ReadAll(io.LimitReader(f, enough))
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name
	}
	return "its name is not known"
}

// Release gives the lock up.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("unlocking %s: %w", filepath.Dir(l.file.Name()), err)
	}
	return nil
}
