package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReferenceIsUpToDate keeps docs/api.md in step with the API.
func TestReferenceIsUpToDate(t *testing.T) {
	want, err := reference("../../config/crd", "../../api/v1alpha1/conditions.go")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/api.md is old: run make generate (-want +got):\n%s", diff)
	}
}

// TestReferenceTells looks for one of each thing that a reader needs.
func TestReferenceTells(t *testing.T) {
	text, err := reference("../../config/crd", "../../api/v1alpha1/conditions.go")
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"a default":                  "| `spec.healthChecks[].interval` | string, default `2s` |",
		"bounds":                     "| `spec.ports[].port` | integer, 1-65535, **required** |",
		"choices":                    "| `spec.guard` | `Enabled` `Disabled`, default `Enabled` |",
		"a list":                     "| `spec.addresses` | list of string, 1-16, **required** |",
		"a rule of a list's element": "*Must be an IPv4 or IPv6 address",
		"a rule of a kind":           "Rule: a Director must be named as its node.",
		"a type of Kubernetes":       "| `spec.nodeSelector` | LabelSelector, **required** |",
		"a condition":                "| `Programmed` | says whether for every address",
		"a reason":                   "| `AddressInUse` | an older VirtualServer",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing: %s", what, want)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "| `") && strings.Count(line, "|")-strings.Count(line, `\|`) > 4 {
			t.Errorf("too many columns: %s", line)
		}
	}
}
