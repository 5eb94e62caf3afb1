package checkpoint

import (
	"sync"
	"time"
)

// Writer keeps a checkpoint file up to date with something that changes.
type Writer struct {
	path     string
	snapshot func() Checkpoint
	every    time.Duration
	onError  func(error)

	dirty   chan struct{}
	closing chan struct{}
	closed  sync.WaitGroup
	once    sync.Once
	last    error
}

// NewWriter returns a Writer that saves what snapshot returns to path after
// each call of Changed: at once, but not more often than every so long, so that
// a burst of changes costs one write. snapshot is called on the Writer's
// goroutine. A write that failed is reported to onError and repeated after that
// time. Close must be called.
func NewWriter(path string, every time.Duration, snapshot func() Checkpoint, onError func(error)) *Writer {
	w := &Writer{
		path: path, snapshot: snapshot, every: every, onError: onError,
		dirty: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	w.closed.Go(w.run)
	return w
}

// Changed says that the file is out of date. It does not wait for the write.
func (w *Writer) Changed() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// Close writes what has not been written and ends the Writer. It returns the
// error of the last write.
func (w *Writer) Close() error {
	w.once.Do(func() { close(w.closing) })
	w.closed.Wait()
	return w.last
}

func (w *Writer) run() {
	for {
		select {
		case <-w.closing:
			w.flush()
			return
		case <-w.dirty:
			w.save()
		}
		pause := time.NewTimer(w.every)
		select {
		case <-w.closing:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// save writes once. The mark of a change is gone before the snapshot is taken,
// so that a change while it is taken leads to another write.
func (w *Writer) save() {
	w.last = Save(w.path, w.snapshot())
	if w.last != nil {
		w.onError(w.last)
		w.Changed()
	}
}

// flush writes what is still to be written.
func (w *Writer) flush() {
	select {
	case <-w.dirty:
		w.last = Save(w.path, w.snapshot())
	default:
	}
}
