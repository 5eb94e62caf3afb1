package assemble

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// epoch is the time of every file and of the image itself: the same programs
// make the same image, down to its digest.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

// Image makes an image of one layer that holds the programs, given by their
// paths, and nothing else. It starts /director as root.
func Image(programs map[string][]byte, architecture string) (v1.Image, error) {
	content, err := archive(programs)
	if err != nil {
		return nil, fmt.Errorf("packing the programs: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
		// A registry compresses what it is given; the lab's emulated nodes take
		// minutes to decompress it.
	}, tarball.WithCompressionLevel(gzip.NoCompression))
	if err != nil {
		return nil, fmt.Errorf("making the layer: %w", err)
	}
	image, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "hack/image", Created: v1.Time{Time: epoch()}},
	})
	if err != nil {
		return nil, fmt.Errorf("adding the layer: %w", err)
	}
	image, err = configure(image, architecture)
	if err != nil {
		return nil, fmt.Errorf("setting the configuration: %w", err)
	}
	return image, nil
}

// configure sets what a runtime is told of the image. What it says of the
// layers stays.
func configure(image v1.Image, architecture string) (v1.Image, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS = "linux"
	config.Architecture = architecture
	config.Created = v1.Time{Time: epoch()}
	config.Config = v1.Config{User: "0", Entrypoint: []string{"/director"}}
	return mutate.ConfigFile(image, config)
}

// archive packs programs, in the order of their names.
func archive(programs map[string][]byte) ([]byte, error) {
	var packed bytes.Buffer
	writer := tar.NewWriter(&packed)
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		header := &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     strings.TrimPrefix(name, "/"),
			Size:     int64(len(programs[name])),
			Mode:     0o755,
			ModTime:  epoch(),
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := writer.Write(programs[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
