package crd

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// unbounded tells of schemas that are Kubernetes' own types, whose bounds are
// not ours to set.
func unbounded(path string) bool {
	if strings.HasSuffix(path, ".apiVersion") || strings.HasSuffix(path, ".kind") {
		return true
	}
	return strings.Contains(path, "odeSelector") || strings.Contains(path, "namespaceSelector") || strings.Contains(path, "podSelector.match")
}

// TestEverythingHasABound keeps the objects small and the rules cheap: the API
// server refuses a CRD whose rules could cost too much.
func TestEverythingHasABound(t *testing.T) {
	for kind, schema := range schemas(t) {
		walk(kind, schema, func(path string, schema apiextensionsv1.JSONSchemaProps) {
			switch {
			case unbounded(path):
			case schema.Type == "array" && schema.MaxItems == nil:
				t.Errorf("%s: a list without maxItems", path)
			case schema.Type == "array" && *schema.MaxItems > 256:
				t.Errorf("%s: maxItems %d, want at most 256", path, *schema.MaxItems)
			case schema.Type == "string" && schema.MaxLength == nil && len(schema.Enum) == 0 && schema.Format != "date-time":
				t.Errorf("%s: a string without maxLength or enum", path)
			case schema.Type == "integer" && schema.Minimum == nil && !strings.HasSuffix(path, "bservedGeneration"):
				t.Errorf("%s: a number without minimum", path)
			}
		})
	}
}

func TestEveryListSaysHowItMerges(t *testing.T) {
	for kind, schema := range schemas(t) {
		walk(kind, schema, func(path string, schema apiextensionsv1.JSONSchemaProps) {
			if schema.Type == "array" && schema.XListType == nil && !unbounded(path) {
				t.Errorf("%s: a list without listType", path)
			}
		})
	}
}

func TestEveryFieldIsDescribed(t *testing.T) {
	for kind, schema := range schemas(t) {
		walk(kind, schema, func(path string, schema apiextensionsv1.JSONSchemaProps) {
			if schema.Description == "" && !strings.HasSuffix(path, "[]") && !strings.HasSuffix(path, "{}") && !strings.HasSuffix(path, ".metadata") {
				t.Errorf("%s: a field without description", path)
			}
		})
	}
}

func TestEveryRuleHasAMessage(t *testing.T) {
	for kind, schema := range schemas(t) {
		walk(kind, schema, func(path string, schema apiextensionsv1.JSONSchemaProps) {
			for _, rule := range schema.XValidations {
				if rule.Message == "" {
					t.Errorf("%s: rule %q without message", path, rule.Rule)
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	type names struct {
		Plural, Scope string
		Short         []string
		HasStatus     bool
	}
	want := map[string]names{
		"VirtualServer":  {Plural: "virtualservers", Scope: "Namespaced", Short: []string{"vs"}, HasStatus: true},
		"DirectorPool":   {Plural: "directorpools", Scope: "Cluster", Short: []string{"dp"}},
		"Director":       {Plural: "directors", Scope: "Cluster", Short: []string{"dir"}, HasStatus: true},
		"RealServerNode": {Plural: "realservernodes", Scope: "Cluster", Short: []string{"rsn"}, HasStatus: true},
	}
	got := map[string]names{}
	for kind, crd := range definitions(t) {
		if crd.Spec.Group != "lvs-operator.io" {
			t.Errorf("%s is of group %s", kind, crd.Spec.Group)
		}
		if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != "v1alpha1" {
			t.Errorf("%s: want v1alpha1 and no other version", kind)
		}
		got[kind] = names{
			Plural: crd.Spec.Names.Plural, Scope: string(crd.Spec.Scope), Short: crd.Spec.Names.ShortNames,
			HasStatus: crd.Spec.Versions[0].Subresources != nil && crd.Spec.Versions[0].Subresources.Status != nil,
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names differ (-want +got):\n%s", diff)
	}
}

func TestColumns(t *testing.T) {
	want := map[string][]string{
		"VirtualServer":  {"VIP", "(Addresses)", "Ports", "Scheduler", "Method", "Real Servers", "Director", "Ready", "Age"},
		"DirectorPool":   {"Interface", "Guard", "Removal", "Age"},
		"RealServerNode": {"Pods", "Prepared", "Ready", "Age"},
		"Director":       {"Pool", "Active", "VIPs", "Ready", "Alive", "(Address)", "(Interface)", "(Kernel)", "Age"},
	}
	got := map[string][]string{}
	for kind, crd := range definitions(t) {
		for _, column := range crd.Spec.Versions[0].AdditionalPrinterColumns {
			name := column.Name
			if column.Priority > 0 {
				name = "(" + name + ")" // in wide output only
			}
			got[kind] = append(got[kind], name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns differ (-want +got):\n%s", diff)
	}
}
