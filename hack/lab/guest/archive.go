// Package guest boots virtual machines with files of our own.
package guest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Archive writes an initramfs: a cpio archive in the format that the kernel
// reads ("newc"). Folders that a file needs are made on the way. The first
// error is kept and returned by Close, so that calls need no checks.
type Archive struct {
	w     io.Writer
	inode uint32
	dirs  map[string]bool
	err   error
}

// File type bits of the archive's mode field.
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

// NewArchive returns an Archive that writes to w.
func NewArchive(w io.Writer) *Archive {
	return &Archive{w: w, dirs: map[string]bool{".": true, "/": true}}
}

// Dir adds a folder.
func (a *Archive) Dir(name string) {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	if a.dirs[name] {
		return
	}
	a.Dir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, typeDir|0o755, 0, bytes.NewReader(nil))
}

// Link adds a symbolic link.
func (a *Archive) Link(target, name string) {
	a.add(name, typeLink|0o777, int64(len(target)), strings.NewReader(target))
}

// Bytes adds a file with the given content.
func (a *Archive) Bytes(content []byte, name string, mode fs.FileMode) {
	a.add(name, typeFile|uint32(mode.Perm()), int64(len(content)), bytes.NewReader(content))
}

// File adds a copy of a file, with its mode.
func (a *Archive) File(from, name string) {
	if a.err != nil {
		return
	}
	file, err := os.Open(from)
	if err != nil {
		a.err = err
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.add(name, typeFile|uint32(info.Mode().Perm()), info.Size(), file)
}

// Tree adds what is under a folder; keep decides by the path in that folder,
// with slashes, and nil keeps all. A folder that isn't kept is not entered.
func (a *Archive) Tree(from, name string, keep func(path string, dir bool) bool) {
	if a.err != nil {
		return
	}
	a.err = filepath.WalkDir(from, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		within, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		within = filepath.ToSlash(within)
		if within != "." && keep != nil && !keep(within, entry.IsDir()) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		a.treeEntry(file, path.Join(name, within), entry)
		return a.err
	})
}

func (a *Archive) treeEntry(from, name string, entry fs.DirEntry) {
	switch {
	case entry.IsDir():
		a.Dir(name)
	case entry.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			a.err = err
			return
		}
		a.Link(target, name)
	case entry.Type().IsRegular():
		a.File(from, name)
	}
}

// Close ends the archive. The kernel takes another one behind it.
func (a *Archive) Close() error {
	a.inode = 0
	a.entry("TRAILER!!!", 0, 0, bytes.NewReader(nil))
	if a.err != nil {
		return fmt.Errorf("writing an initramfs: %w", a.err)
	}
	return nil
}

func (a *Archive) add(name string, mode uint32, size int64, content io.Reader) {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	a.Dir(path.Dir(name))
	a.entry(name, mode, size, content)
}

func (a *Archive) entry(name string, mode uint32, size int64, content io.Reader) {
	if a.err != nil {
		return
	}
	if size >= 1<<32 {
		a.err = fmt.Errorf("%s is too large", name)
		return
	}
	a.inode++
	header := "070701"
	for _, field := range []uint32{
		a.inode, mode, 0, 0, 1, 0, // inode, mode, uid, gid, links, time
		uint32(size), 0, 0, 0, 0, // size, device, device of a device node
		uint32(len(name) + 1), 0, // length of the name, checksum
	} {
		header += fmt.Sprintf("%08X", field)
	}
	header += name + "\x00"
	a.write(strings.NewReader(header+padding(int64(len(header)))), -1)
	a.write(content, size)
	a.write(strings.NewReader(padding(size)), -1)
}

// write copies from r; want is the number of bytes that the header announced,
// or -1: a file that grows or shrinks while it is read would spoil the rest.
func (a *Archive) write(r io.Reader, want int64) {
	if a.err != nil {
		return
	}
	count, err := io.Copy(a.w, r)
	if err == nil && want >= 0 && count != want {
		err = fmt.Errorf("a file changed while it was read: %d bytes instead of %d", count, want)
	}
	a.err = err
}

// padding fills up to the next multiple of four, as the format wants.
func padding(size int64) string { return "\x00\x00\x00"[:(4-size%4)%4] }
