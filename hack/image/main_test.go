package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestFileCanBeLoaded builds an image as a user does, and reads the file by
// the image's name, as container runtimes do.
func TestFileCanBeLoaded(t *testing.T) {
	module, out := t.TempDir(), filepath.Join(t.TempDir(), "new", "image.tar")
	for file, text := range map[string]string{
		"go.mod":          "module example.com/standin\n\ngo 1.26\n",
		"standin/main.go": "package main\n\nfunc main() {}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(module, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(module, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	var said bytes.Buffer
	arguments := []string{"-C", module, "-packages", "./standin", "-o", out, "-arch", "arm64", "-tag", "example.local/standin:1"}
	if err := run(t.Context(), arguments, &said); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("example.local/standin:1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"linux", "arm64"}, []string{config.OS, config.Architecture}); diff != "" {
		t.Errorf("platform differs (-want +got):\n%s", diff)
	}
	if !strings.Contains(said.String(), out) || !strings.Contains(said.String(), "sha256:") {
		t.Errorf("it said %q, want the file and the digest", said.String())
	}
}

func TestMistakesAreNamed(t *testing.T) {
	cases := map[string]struct {
		arguments []string
		want      string
	}{
		"a flag that does not exist": {[]string{"-x"}, "-x"},
		"an argument":                {[]string{"image.tar"}, "image.tar"},
		"a tag that is none":         {[]string{"-tag", "A B"}, "tag"},
		"a program that is not there": {
			[]string{"-C", t.TempDir(), "-packages", "./cmd/none", "-o", filepath.Join(t.TempDir(), "x.tar")}, "cmd/none",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), tc.arguments, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error about %s", err, tc.want)
			}
		})
	}
}
