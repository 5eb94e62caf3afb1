//go:build envtest

package crd

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// TestSamplesApply shows that what users copy is accepted, to the last field.
func TestSamplesApply(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "config/samples/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	applied := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		applied += apply(t, file, string(text))
	}
	if applied < 8 {
		t.Errorf("only %d objects were found in config/samples", applied)
	}
}

// TestDocumentsApply does the same with every YAML block of the documentation
// that holds an object of ours.
func TestDocumentsApply(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^[ \t]*```ya?ml[^\n]*\n(.*?)^[ \t]*```")
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range blocks.FindAllStringSubmatch(string(text), -1) {
			apply(t, fmt.Sprintf("%s, block %d", file, i+1), block[1])
		}
	}
}

// documents lists README.md and all of docs/.
func documents(t *testing.T) []string {
	t.Helper()
	found := []string{}
	for _, top := range []string{"README.md", "docs"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".md") {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// apply sends every object of ours in a YAML text through a dry run that
// refuses unknown fields, and returns how many there were.
func apply(t *testing.T, where, text string) int {
	t.Helper()
	applied := 0
	for _, document := range regexp.MustCompile(`(?m)^---.*$`).Split(text, -1) {
		if !strings.Contains(document, "lvs-operator.io/v1alpha1") {
			continue
		}
		var content map[string]any
		if err := yaml.UnmarshalStrict([]byte(document), &content); err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		made := &unstructured.Unstructured{Object: content}
		if !strings.HasPrefix(made.GetAPIVersion(), "lvs-operator.io/") {
			continue
		}
		if made.GetKind() == "VirtualServer" {
			made.SetNamespace("default")
		}
		strict := client.WithFieldValidation(server.Client, "Strict")
		if err := strict.Create(t.Context(), made, client.DryRunAll); err != nil {
			t.Errorf("%s: %s %s: %v", where, made.GetKind(), made.GetName(), err)
		}
		applied++
	}
	return applied
}
