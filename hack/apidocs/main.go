// Command apidocs writes the reference of the API as Markdown from the
// generated CustomResourceDefinitions and the constants of conditions:
//
//	go run ./hack/apidocs -o docs/api.md
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	crds := flag.String("crds", "config/crd", "the folder of the CustomResourceDefinitions")
	conditions := flag.String("conditions", "api/v1alpha1/conditions.go", "the Go file of the conditions and reasons")
	out := flag.String("o", "docs/api.md", "the file to write")
	flag.Parse()
	if err := run(*crds, *conditions, *out); err != nil {
		fmt.Fprintln(os.Stderr, "apidocs:", err)
		os.Exit(1)
	}
}

func run(crds, conditions, out string) error {
	reference, err := reference(crds, conditions)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, []byte(reference), 0o644); err != nil {
		return fmt.Errorf("writing the reference: %w", err)
	}
	return nil
}

// reference reads what there is to tell, and tells it.
func reference(crds, conditions string) (string, error) {
	definitions, err := read(crds)
	if err != nil {
		return "", err
	}
	groups, err := readConstants(conditions)
	if err != nil {
		return "", err
	}
	return render(definitions, groups), nil
}

// read parses the CustomResourceDefinitions of a folder, in the order of their
// file names.
func read(folder string) ([]apiextensionsv1.CustomResourceDefinition, error) {
	files, err := filepath.Glob(filepath.Join(folder, "lvs-operator.io_*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", folder, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no CustomResourceDefinition", folder)
	}
	var definitions []apiextensionsv1.CustomResourceDefinition
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a definition: %w", err)
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &definition); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", file, err)
		}
		definitions = append(definitions, definition)
	}
	return definitions, nil
}
