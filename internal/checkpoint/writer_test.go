package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// source counts how often it was asked, and changes each time it is told to.
type source struct {
	epoch, asked, failures atomic.Int64
}

func (s *source) snapshot() Checkpoint {
	s.asked.Add(1)
	c := example()
	c.Groups[0].Epoch = s.epoch.Load()
	return c
}

func (s *source) failed(error) { s.failures.Add(1) }

func epochAt(t *testing.T, path string) int64 {
	t.Helper()
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c.Groups[0].Epoch
}

func TestWriterWritesTheFirstChangeAtOnceAndGathersTheRest(t *testing.T) {
	path := Path(t.TempDir(), "default")
	synctest.Test(t, func(t *testing.T) {
		var s source
		w := NewWriter(path, time.Second, s.snapshot, s.failed)
		s.epoch.Store(1)
		w.Changed()
		synctest.Wait()
		if got := epochAt(t, path); got != 1 {
			t.Errorf("epoch %d right after the first change, want 1", got)
		}
		for epoch := range int64(500) {
			s.epoch.Store(epoch)
			w.Changed()
		}
		time.Sleep(3 * time.Second)
		if got, asked := epochAt(t, path), s.asked.Load(); got != 499 || asked != 2 {
			t.Errorf("epoch %d after %d writes, want 499 after 2", got, asked)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWriterWritesWhatIsLeftWhenItIsClosed(t *testing.T) {
	path := Path(t.TempDir(), "default")
	synctest.Test(t, func(t *testing.T) {
		var s source
		w := NewWriter(path, time.Hour, s.snapshot, s.failed)
		w.Changed()
		synctest.Wait()
		s.epoch.Store(9)
		w.Changed()
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
		if got := epochAt(t, path); got != 9 {
			t.Errorf("epoch %d, want 9", got)
		}
	})
}

func TestWriterTriesAgainAfterAFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := Path(dir, "default")
	synctest.Test(t, func(t *testing.T) {
		var s source
		w := NewWriter(path, time.Second, s.snapshot, s.failed)
		s.epoch.Store(3)
		w.Changed()
		time.Sleep(2500 * time.Millisecond)
		if got := s.failures.Load(); got != 3 {
			t.Errorf("%d failures in 2.5 s, want 3", got)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := epochAt(t, path); got != 3 {
			t.Errorf("epoch %d, want 3", got)
		}
		if err := w.Close(); err != nil {
			t.Errorf("Close() = %v, though the last write went well", err)
		}
	})
}

func TestWriterReportsAFailedLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		w := NewWriter(Path(filepath.Join(t.TempDir(), "missing"), "default"), time.Hour, s.snapshot, s.failed)
		w.Changed()
		synctest.Wait()
		if err := w.Close(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Close() = %v, want os.ErrNotExist", err)
		}
	})
}

func TestOneDirectorANode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	first, err := Acquire(dir, "pod director-x of a very long name")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(dir, "pod director-y")
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "pod director-x of a very long name, process ") {
		t.Errorf("Acquire() = %v, want ErrLocked that names pod director-x", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := Acquire(dir, "pod y")
	if err != nil {
		t.Fatalf("Acquire() of a lock that was released: %v", err)
	}
	_, err = Acquire(dir, "pod z")
	if !errors.Is(err, ErrLocked) || strings.Count(err.Error(), "process") != 1 || !strings.Contains(err.Error(), "pod y, process ") {
		t.Errorf("Acquire() = %v, want ErrLocked that names pod y alone", err)
	}
	if err := second.Release(); err != nil {
		t.Error(err)
	}
}
