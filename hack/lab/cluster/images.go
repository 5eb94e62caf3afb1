package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/lvs-operator/lvs-operator/hack/lab/image"
	"github.com/lvs-operator/lvs-operator/hack/lab/rootfs"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

// imagesDisk is the file system with the images that nodes import when they
// boot: a power cut loses what they had.
func (l *Lab) imagesDisk() string { return l.path("images.ext4") }

// writeImages makes the images that every lab has.
func (l *Lab) writeImages() error {
	if err := os.MkdirAll(l.path("images"), 0o755); err != nil {
		return fmt.Errorf("making images: %w", err)
	}
	for reference, name := range map[string]string{pauseImage: "pause", ResponderImage: "responder"} {
		static := image.Static{Reference: reference, Program: l.path("bin", name)}
		if err := static.Write(l.path("images", name+".tar")); err != nil {
			return err
		}
	}
	return nil
}

// packImages makes the images' disk anew if an image came since. A running
// node may have the old one open, so it is replaced and not written over.
func (l *Lab) packImages(ctx context.Context) error {
	packed, err := os.Stat(l.imagesDisk())
	if err == nil {
		folder, err := os.Stat(l.path("images"))
		if err != nil {
			return fmt.Errorf("looking at the images: %w", err)
		}
		if folder.ModTime().Before(packed.ModTime()) {
			return nil
		}
	}
	draft := l.imagesDisk() + ".draft"
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("packing the images: %w", err)
	}
	if err := rootfs.Disk(ctx, l.path("images"), draft); err != nil {
		return err
	}
	if err := os.Rename(draft, l.imagesDisk()); err != nil {
		return fmt.Errorf("packing the images: %w", err)
	}
	return nil
}

// Load imports an image, a tar as docker save or an OCI layout's tool writes
// it, into nodes: all that run, if none is named. A node that is started later
// has it too, so a name given for a file is kept and the next file of that
// name takes its place.
func (l *Lab) Load(ctx context.Context, tarFile string, nodes ...string) error {
	picked, err := l.pick(nodes)
	if err != nil {
		return err
	}
	if err := l.alone(ctx, func() error { return l.keepImage(tarFile) }); err != nil {
		return err
	}
	results := make([]error, len(picked))
	var group sync.WaitGroup
	for i, n := range picked {
		if _, running := l.recorded(nodeProcess(n.Name)); !running {
			if len(nodes) > 0 {
				results[i] = fmt.Errorf("loading %s into %s: the node is off", tarFile, n.Name)
			}
			continue
		}
		group.Go(func() { results[i] = l.importImage(ctx, tarFile, n.Name) })
	}
	group.Wait()
	return errors.Join(results...)
}

func (l *Lab) keepImage(tarFile string) error {
	in, err := os.Open(tarFile)
	if err != nil {
		return fmt.Errorf("loading an image: %w", err)
	}
	defer in.Close()
	kept := l.path("images", filepath.Base(tarFile))
	// Removed first, so that the folder's time changes.
	if err := os.Remove(kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keeping %s: %w", tarFile, err)
	}
	out, err := os.Create(kept)
	if err != nil {
		return fmt.Errorf("keeping %s: %w", tarFile, err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("keeping %s: %w", tarFile, err)
	}
	return nil
}

func (l *Lab) importImage(ctx context.Context, tarFile, name string) error {
	in, err := os.Open(tarFile)
	if err != nil {
		return fmt.Errorf("loading an image: %w", err)
	}
	defer in.Close()
	var output tailBuffer
	code, err := l.Exec(ctx, name, []string{"ctr", "-n", "k8s.io", "images", "import", "--local", "-"},
		wire.Streams{Stdin: in, Stdout: &output, Stderr: &output})
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("loading %s into %s: %s", tarFile, name, output.String())
	}
	return nil
}

// tailBuffer keeps the end of what is written: the reason why a command
// failed.
type tailBuffer struct {
	mu   sync.Mutex
	tail []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	const keep = 500
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tail = append(t.tail, p...)
	t.tail = t.tail[max(0, len(t.tail)-keep):]
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.tail)
}
