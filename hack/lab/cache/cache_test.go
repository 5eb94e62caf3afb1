package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestFillMakesAnEntryOnce(t *testing.T) {
	dir := Dir(t.TempDir())
	var made atomic.Int32
	create := func(draft string) error {
		made.Add(1)
		return os.WriteFile(filepath.Join(draft, "file"), []byte("x"), 0o644)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			entry, err := dir.Fill(t.Context(), "kind/name", create)
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(entry, "file")); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times, want once", made.Load())
	}
}

func TestFillLeavesNothingHalfMade(t *testing.T) {
	dir := Dir(t.TempDir())
	broken := errors.New("broken")
	_, err := dir.Fill(t.Context(), "name", func(draft string) error {
		return errors.Join(os.WriteFile(filepath.Join(draft, "half"), nil, 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatalf("Fill() = %v, want the error of create", err)
	}
	entry, err := dir.Fill(t.Context(), "name", func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(entry, "half")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the first try's file: %v, want none", err)
	}
}

func TestLockWaitsForItsHolder(t *testing.T) {
	dir := Dir(t.TempDir())
	release, err := dir.Lock(t.Context(), "name")
	if err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := dir.Lock(limited, "name"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second Lock() = %v, want that it waits", err)
	}
	release()
	release, err = dir.Lock(t.Context(), "name")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestKey(t *testing.T) {
	if Key("ab", "c") == Key("a", "bc") {
		t.Error("parts run together")
	}
	if first, second := Key("a", "b"), Key("a", "b"); first != second {
		t.Error("the same parts have two keys")
	}
}
