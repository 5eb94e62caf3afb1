package guest

import (
	"bytes"
	"os"
	"path/filepath"
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

func TestArchiveReportsTheFirstError(t *testing.T) {
	archive := NewArchive(new(bytes.Buffer))
	archive.File("/does/not/exist", "/x")
	archive.Bytes(nil, "/y", 0o644)
	if err := archive.Close(); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("Close() = %v, want the missing file", err)
	}
}
