package guest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func writeArchive(t *testing.T) []byte {
	t.Helper()
	source := t.TempDir()
	if err := os.MkdirAll(filepath.Join(source, "kept", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept/deep/a.ko", "kept/b.txt"} {
		if err := os.WriteFile(filepath.Join(source, name), []byte("odd"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	archive := NewArchive(&out)
	archive.Bytes([]byte("#!/bin/sh\n"), "/sbin/init", 0o755)
	archive.Link("../bin/busybox", "/sbin/modprobe")
	archive.Tree(source, "/lib", func(path string, dir bool) bool { return dir || strings.HasSuffix(path, ".ko") })
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchiveEntriesAreAligned(t *testing.T) {
	archive := writeArchive(t)
	if len(archive)%4 != 0 {
		t.Errorf("%d bytes, want a multiple of 4: another archive may follow", len(archive))
	}
	for at := 0; ; {
		index := bytes.Index(archive[at:], []byte("070701"))
		if index < 0 {
			return
		}
		if (at+index)%4 != 0 {
			t.Errorf("header at %d, want a multiple of 4", at+index)
		}
		at += index + 1
	}
}

func TestArchiveIsReadByCpio(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("no cpio on this machine")
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-idv", "--quiet")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(writeArchive(t))
	listing, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v: %s", err, listing)
	}
	want := []string{"sbin", "sbin/init", "sbin/modprobe", "lib", "lib/kept", "lib/kept/deep", "lib/kept/deep/a.ko"}
	if have := strings.Fields(string(listing)); !slices.Equal(have, want) {
		t.Errorf("entries %q, want %q", have, want)
	}
	info, err := os.Stat(filepath.Join(dir, "sbin", "init"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("init: %v %v, want mode 0755", info, err)
	}
	if target, err := os.Readlink(filepath.Join(dir, "sbin", "modprobe")); target != "../bin/busybox" {
		t.Errorf("link to %q (%v), want ../bin/busybox", target, err)
	}
	if content, err := os.ReadFile(filepath.Join(dir, "lib", "kept", "deep", "a.ko")); string(content) != "odd" {
		t.Errorf("content %q (%v), want odd", content, err)
	}
}

func TestArchiveReportsTheFirstError(t *testing.T) {
	archive := NewArchive(new(bytes.Buffer))
	archive.File("/does/not/exist", "/x")
	archive.Bytes(nil, "/y", 0o644)
	if err := archive.Close(); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("Close() = %v, want the missing file", err)
	}
}
