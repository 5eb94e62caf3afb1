// Package image writes container images for the lab: one static program on an
// empty root, as a tar that containerd imports.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
)

// Static describes an image.
type Static struct {
	// Reference is the image's name, such as registry.local/pause:1.
	Reference string
	// Program is a file of this machine; it becomes the entry point, under its
	// own base name in the root.
	Program string
}

// Write makes the tar, in the format of docker save.
func (s Static) Write(file string) error {
	layer, err := s.layer()
	if err != nil {
		return fmt.Errorf("making image %s: %w", s.Reference, err)
	}
	diff := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/" + path.Base(s.Program)}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(diff[:])}},
	})
	if err != nil {
		return fmt.Errorf("making image %s: %w", s.Reference, err)
	}
	sum := sha256.Sum256(config)
	configName := hex.EncodeToString(sum[:]) + ".json"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{s.Reference}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("making image %s: %w", s.Reference, err)
	}
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("making image %s: %w", s.Reference, err)
	}
	archive := tar.NewWriter(out)
	err = errors.Join(
		add(archive, "manifest.json", 0o644, manifest),
		add(archive, configName, 0o644, config),
		add(archive, "layer.tar", 0o644, layer),
		archive.Close(),
		out.Close(),
	)
	if err != nil {
		return fmt.Errorf("making image %s: %w", s.Reference, err)
	}
	return nil
}

func (s Static) layer() ([]byte, error) {
	program, err := os.ReadFile(s.Program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	if err := add(archive, path.Base(s.Program), 0o755, program); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}

func add(archive *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
