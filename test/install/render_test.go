//go:build install

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// namespace is the one that config/default makes and the chart is rendered for.
const namespace = "lvs-operator-system"

// objects are rendered objects by kind and name. The namespace is part of what
// is compared, not of the key: no two of ours have one name.
type objects map[string]*unstructured.Unstructured

// kustomize renders a base.
func kustomize(t *testing.T, base string) objects {
	t.Helper()
	text, err := run(t, "KUBECTL", "kustomize", filepath.Join(root, base))
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

// chart renders the chart as release lvs-operator, CRDs and hooks left out.
func chart(t *testing.T, arguments ...string) objects {
	t.Helper()
	text, err := template(t, append([]string{"--no-hooks"}, arguments...)...)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

// hooks renders what the chart has only during an uninstallation.
func hooks(t *testing.T, arguments ...string) objects {
	t.Helper()
	text, err := template(t, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	all := decode(t, text)
	for key := range chart(t, arguments...) {
		delete(all, key)
	}
	return all
}

func template(t *testing.T, arguments ...string) ([]byte, error) {
	t.Helper()
	path := filepath.Join(root, "charts/lvs-operator")
	return run(t, "HELM", append([]string{"template", "lvs-operator", path, "--namespace", namespace}, arguments...)...)
}

// run calls the program that a variable names. The error holds what the
// program has said.
func run(t *testing.T, variable string, arguments ...string) ([]byte, error) {
	t.Helper()
	program := os.Getenv(variable)
	if program == "" {
		t.Fatalf("%s is not set: it names the program to run; make test-install sets it", variable)
	}
	var stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Stderr = &stderr
	text, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w: %s", command.Args, err, stderr.String())
	}
	return text, nil
}

func decode(t *testing.T, text []byte) objects {
	t.Helper()
	found := objects{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if len(object.Object) == 0 {
			continue
		}
		key := object.GetKind() + "/" + object.GetName()
		if found[key] != nil {
			t.Fatalf("%s is there twice", key)
		}
		found[key] = object
	}
}

// typed reads one of the objects as a type of Kubernetes or ours, and fails
// if the type lacks one of its fields.
func typed[T any](t *testing.T, rendered objects, key string) T {
	t.Helper()
	var into T
	object := rendered[key]
	if object == nil {
		t.Fatalf("there is no %s", key)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, &into, true); err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return into
}
