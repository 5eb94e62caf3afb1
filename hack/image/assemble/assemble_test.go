package assemble

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// standIns writes a module with tiny programs at the places of the real ones.
func standIns(t *testing.T) Source {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.com/standin\n\ngo 1.26\n")
	for _, pkg := range Packages() {
		write(filepath.Join(pkg, "main.go"), "package main\n\nfunc main() { println(\""+pkg+"\") }\n")
	}
	return Source{Dir: dir, Packages: Packages(), Architecture: runtime.GOARCH}
}

func build(t *testing.T, source Source) v1.Image {
	t.Helper()
	programs, err := Programs(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	image, err := Image(programs, source.Architecture)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestImageIsTheDockerfiles compares the image with the final stage of the
// Dockerfile: files, user and entrypoint.
func TestImageIsTheDockerfiles(t *testing.T) {
	image := build(t, standIns(t))
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	got := final{Files: map[string]string{}, User: config.Config.User, Entrypoint: config.Config.Entrypoint}
	for name := range unpack(t, image) {
		got.Files["/"+name] = "/out/" + name
	}
	if diff := cmp.Diff(finalStage(t), got); diff != "" {
		t.Errorf("the images differ (-Dockerfile +hack/image):\n%s", diff)
	}
}

// TestDockerfileBuildsTheSameWay compares the go commands.
func TestDockerfileBuildsTheSameWay(t *testing.T) {
	var command string
	for _, instruction := range stages(t)[0].instructions {
		if instruction.keyword == "RUN" && strings.Contains(instruction.rest, "go build") {
			command = strings.Join(strings.Fields(instruction.rest), " ")
		}
	}
	want := "CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go " +
		strings.Join(arguments("/out/", strings.Join(Packages(), " ")), " ")
	want = strings.Replace(want, "-s -w", `"-s -w"`, 1)
	if command != want {
		t.Errorf("the Dockerfile runs\n%s\nwant\n%s", command, want)
	}
}

// TestImageIsReproducible builds twice and compares digests.
func TestImageIsReproducible(t *testing.T) {
	first, err := build(t, standIns(t)).Digest()
	if err != nil {
		t.Fatal(err)
	}
	second, err := build(t, standIns(t)).Digest()
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Errorf("built twice, got %s and %s", first, second)
	}
}

// TestProgramsAreStatic looks for what would need a loader or libraries, which
// the image does not have.
func TestProgramsAreStatic(t *testing.T) {
	image := build(t, standIns(t))
	programs := unpack(t, image)
	if len(programs) != len(Packages()) {
		t.Errorf("got the files %q", slices.Sorted(maps.Keys(programs)))
	}
	for name, content := range programs {
		file, err := elf.NewFile(strings.NewReader(content))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, segment := range file.Progs {
			if segment.Type == elf.PT_INTERP {
				t.Errorf("%s asks for a loader", name)
			}
		}
	}
}

// TestBuildErrorsHaveTheCompilersWords shows that a failing build says why.
func TestBuildErrorsHaveTheCompilersWords(t *testing.T) {
	source := standIns(t)
	source.Packages = []string{"./cmd/none"}
	if _, err := Programs(t.Context(), source); err == nil || !strings.Contains(err.Error(), "cmd/none") {
		t.Errorf("got %v, want go's complaint about cmd/none", err)
	}
}

// unpack reads all files of an image, and looks at their modes.
func unpack(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	files := map[string]string{}
	content := mutate.Extract(image)
	t.Cleanup(func() {
		if err := content.Close(); err != nil {
			t.Error(err)
		}
	})
	reader := tar.NewReader(content)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		if header.Mode != 0o755 || header.Uid != 0 || header.ModTime.Unix() != 0 {
			t.Errorf("%s: mode %o, owner %d, time %s", header.Name, header.Mode, header.Uid, header.ModTime)
		}
		files[header.Name] = string(text)
	}
}
