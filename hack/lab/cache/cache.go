// Package cache keeps what the lab builds or unpacks, outside the source
// tree, so that it is made once for each version and shared by every checkout
// on the machine.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a taken lock is tried again: flock can't be waited
// for together with a context.
const lockPoll = 200 * time.Millisecond

// Dir is the root of a cache.
type Dir string

// Default is the cache of the user that runs the program.
func Default() (Dir, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w", err)
	}
	return Dir(filepath.Join(user, "lvs-operator")), nil
}

// Path is where the entry with this name is or would be; names may have
// slashes.
func (d Dir) Path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

// Fill returns the folder of the named entry and calls create to make it if it
// isn't there yet. The entry appears whole or not at all, also when the
// program is killed, and only one process makes it at a time.
func (d Dir) Fill(ctx context.Context, name string, create func(dir string) error) (string, error) {
	final := d.Path(name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	release, err := d.Lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer release()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	draft := final + ".draft"
	if err := os.RemoveAll(draft); err != nil {
		return "", fmt.Errorf("clearing an unfinished %s: %w", name, err)
	}
	if err := os.MkdirAll(draft, 0o755); err != nil {
		return "", fmt.Errorf("making room for %s: %w", name, err)
	}
	if err := create(draft); err != nil {
		return "", errors.Join(err, os.RemoveAll(draft))
	}
	if err := os.Rename(draft, final); err != nil {
		return "", fmt.Errorf("keeping %s: %w", name, err)
	}
	return final, nil
}

// Lock waits until this process is the only one to hold the named lock. A
// process that dies lets go of it.
func (d Dir) Lock(ctx context.Context, name string) (release func(), err error) {
	path := d.Path(name) + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", name, err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another process that works on %s: %w", name, ctx.Err()), file.Close())
		case <-tick.C:
		}
	}
}

// Key is a short name for the given parts: equal parts, equal key.
func Key(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}

// FilesKey is the Key of the contents of files, in the order given.
func FilesKey(paths ...string) (string, error) {
	sum := sha256.New()
	for _, path := range paths {
		if err := hashFile(sum, path); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

func hashFile(sum io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading what a cache key is made of: %w", err)
	}
	defer file.Close()
	fmt.Fprintf(sum, "%s:", filepath.Base(path))
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("reading what a cache key is made of: %w", err)
	}
	return nil
}
