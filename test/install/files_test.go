package install

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// root is the top of the repository, seen from this package.
const root = "../.."

// TestChartHasTheGeneratedCRDs compares the chart's copies with config/crd.
func TestChartHasTheGeneratedCRDs(t *testing.T) {
	want := contents(t, filepath.Join(root, "config/crd/lvs-operator.io_*.yaml"))
	if len(want) == 0 {
		t.Fatal("config/crd holds no CRD: run make generate")
	}
	got := contents(t, filepath.Join(root, "charts/lvs-operator/crds/*"))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("charts/lvs-operator/crds is not a copy of config/crd: run make generate (-want +got):\n%s", diff)
	}
}

// TestKustomizeNamesEveryCRD keeps a new kind from being left out.
func TestKustomizeNamesEveryCRD(t *testing.T) {
	var base struct {
		Resources []string `json:"resources"`
	}
	read(t, "config/crd/kustomization.yaml", &base)
	want := slices.Sorted(maps.Keys(contents(t, filepath.Join(root, "config/crd/lvs-operator.io_*.yaml"))))
	slices.Sort(base.Resources)
	if diff := cmp.Diff(want, base.Resources); diff != "" {
		t.Errorf("resources of config/crd differ (-want +got):\n%s", diff)
	}
}

// TestProject reads PROJECT and looks whether what it names exists.
func TestProject(t *testing.T) {
	var project struct {
		Domain, ProjectName, Repo, Version string
		Layout                             []string
		Resources                          []struct {
			API struct {
				CRDVersion string
				Namespaced bool
			}
			Controller                  bool
			Domain, Kind, Path, Version string
		}
	}
	read(t, "PROJECT", &project)
	if project.Version != "3" || len(project.Layout) != 1 || project.Layout[0] != "go.kubebuilder.io/v4" {
		t.Errorf("version %q and layout %q, want 3 and go.kubebuilder.io/v4", project.Version, project.Layout)
	}
	declared := map[string]bool{}
	for _, resource := range project.Resources {
		declared[resource.Kind] = resource.API.Namespaced
		if want := project.Repo + "/api/" + resource.Version; resource.Path != want {
			t.Errorf("%s is at %s, want %s", resource.Kind, resource.Path, want)
		}
	}
	installed := map[string]bool{}
	for name := range contents(t, filepath.Join(root, "config/crd/lvs-operator.io_*.yaml")) {
		var crd struct {
			Spec struct {
				Scope string
				Names struct{ Kind string }
			}
		}
		read(t, filepath.Join("config/crd", name), &crd)
		installed[crd.Spec.Names.Kind] = crd.Spec.Scope == "Namespaced"
	}
	if diff := cmp.Diff(installed, declared); diff != "" {
		t.Errorf("the kinds and whether they are namespaced differ (-CRDs +PROJECT):\n%s", diff)
	}
}

// contents reads files by their base names.
func contents(t *testing.T, pattern string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(path)] = string(text)
	}
	return found
}

// read parses a YAML file, given by its path from the top of the repository.
func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
