//go:build envtest

package crd

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rule is a rule of the API, and objects on both sides of it. An object is
// the minimal one of the kind with a merge patch. An entry "A => B" is about
// changing an object from A to B.
type rule struct {
	// at is where the schema has the rule, with [] for any element of a list.
	at string
	// message is what a user is told, or its end.
	message string
	accepts []string
	refuses []string
}

// rules are those that are written in CEL.
func rules() []rule {
	return slices.Concat(virtualServerRules(), workloadRules(), policyRules(), healthCheckRules(),
		directorPoolRules(), directorRules(), realServerNodeRules())
}

// TestRules asks a real API server on which side of each rule an object is.
func TestRules(t *testing.T) {
	for _, rule := range slices.Concat(rules(), bounds()) {
		t.Run(rule.at+"/"+rule.message, func(t *testing.T) {
			if len(rule.accepts) == 0 || len(rule.refuses) == 0 {
				t.Fatal("a rule needs an object on each side of it")
			}
			for _, change := range rule.accepts {
				if err := attempt(t, rule.at, change); err != nil {
					t.Errorf("%s: refused, want accepted: %v", change, err)
				}
			}
			for _, change := range rule.refuses {
				if err := attempt(t, rule.at, change); !refusedBy(rule, err) {
					t.Errorf("%s: got %v, want refused at %s: %s", change, err, rule.at, rule.message)
				}
			}
		})
	}
}

// TestEveryRuleIsTested compares the table above with the CRDs.
func TestEveryRuleIsTested(t *testing.T) {
	tested := map[string]bool{}
	for _, rule := range rules() {
		tested[rule.at+": "+rule.message] = true
	}
	declared := map[string]bool{}
	for kind, schema := range schemas(t) {
		walk(kind, schema, func(path string, schema apiextensionsv1.JSONSchemaProps) {
			for _, rule := range schema.XValidations {
				declared[path+": "+rule.Message] = true
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if !tested[name] {
			t.Errorf("not tested: %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tested)) {
		if !declared[name] {
			t.Errorf("no rule of the API: %s", name)
		}
	}
}

// attempt makes or changes an object of the kind that a path begins with. Only
// the object that a change starts from is stored.
func attempt(t *testing.T, at, change string) error {
	t.Helper()
	kind, _, _ := strings.Cut(at, ".")
	before, after, isUpdate := strings.Cut(change, "=>")
	if !isUpdate {
		return server.Client.Create(t.Context(), object(t, kind, change), client.DryRunAll)
	}

	stored := object(t, kind, before)
	if err := server.Client.Create(t.Context(), stored); err != nil {
		t.Fatalf("making the object to change: %v", err)
	}
	defer func() {
		if err := server.Client.Delete(t.Context(), stored); err != nil {
			t.Errorf("deleting it: %v", err)
		}
	}()
	changed := object(t, kind, after)
	changed.SetResourceVersion(stored.GetResourceVersion())
	return server.Client.Update(t.Context(), changed, client.DryRunAll)
}

// refusedBy tells whether an error is the API server's, of that rule and at
// its place.
func refusedBy(rule rule, err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	_, field, _ := strings.Cut(rule.at, ".")
	for _, cause := range status.Status().Details.Causes {
		place := regexp.MustCompile(`\[[^]]*\]`).ReplaceAllString(cause.Field, "[]")
		place = strings.TrimSuffix(place, "<nil>") // the API server's name of the object itself
		if place == field && strings.Contains(cause.Message, rule.message) {
			return true
		}
	}
	return false
}

// patches writes one merge patch for each value.
func patches(format string, values ...string) []string {
	var made []string
	for _, value := range values {
		made = append(made, fmt.Sprintf(format, value))
	}
	return made
}

// TestAddressesMayBeWrittenInAnotherOrder shows that a set is compared as one.
func TestAddressesMayBeWrittenInAnotherOrder(t *testing.T) {
	err := attempt(t, "VirtualServer.spec",
		`{spec: {addresses: [192.168.11.200, 192.168.11.201]}} => {spec: {addresses: [192.168.11.201, 192.168.11.200]}}`)
	if err != nil {
		t.Error(err)
	}
}

// TestUnknownFieldsAreRefused shows that what is not served yet is not
// accepted in silence, by clients that ask for strict validation as kubectl
// does.
func TestUnknownFieldsAreRefused(t *testing.T) {
	for _, patch := range []string{
		`{spec: {sorryServer: {address: 192.168.11.150, port: 8080}}}`,
		`{spec: {podSelector: {matchFields: []}}}`,
		`{spec: {ports: [{port: 80, targetPort: 8080}]}}`,
		`{spec: {realServers: [{address: 192.168.11.135, upperThreshold: 1}]}}`,
		`{spec: {healthChecks: [{type: TCP, http: {}}]}}`,
	} {
		made := object(t, "VirtualServer", patch)
		strict := client.WithFieldValidation(server.Client, "Strict")
		if err := strict.Create(t.Context(), made, client.DryRunAll); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "unknown field") {
			t.Errorf("%s: got %v, want an unknown field", patch, err)
		}
	}
}
