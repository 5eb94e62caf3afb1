package crd

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// minimal is the least that each kind needs.
func minimal(kind string) string {
	return map[string]string{
		"VirtualServer": `
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualServer
metadata: {name: web, namespace: default}
spec:
  addresses: [192.168.11.200]
  ports: [{port: 80}]
  realServers: [{address: 192.168.11.135}]
`,
		"DirectorPool": `
apiVersion: lvs-operator.io/v1alpha1
kind: DirectorPool
metadata: {name: default}
spec:
  nodeSelector: {}
`,
		"RealServerNode": `
apiVersion: lvs-operator.io/v1alpha1
kind: RealServerNode
metadata: {name: node-a}
spec: {nodeName: node-a}
`,
		"Director": `
apiVersion: lvs-operator.io/v1alpha1
kind: Director
metadata: {name: node-a}
spec: {nodeName: node-a, directorPoolName: default}
`,
	}[kind]
}

// object returns the minimal object of a kind, changed by a JSON merge patch
// that is written as YAML. It stays unstructured: what users write does not go
// through our types.
func object(t *testing.T, kind, patch string) *unstructured.Unstructured {
	t.Helper()
	base := parse(t, minimal(kind))
	return &unstructured.Unstructured{Object: merge(base, parse(t, patch))}
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	content := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &content); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return content
}

// merge applies a JSON merge patch (RFC 7396).
func merge(base, patch map[string]any) map[string]any {
	for key, value := range patch {
		below, isMap := value.(map[string]any)
		old, wasMap := base[key].(map[string]any)
		switch {
		case value == nil:
			delete(base, key)
		case isMap && wasMap:
			base[key] = merge(old, below)
		default:
			base[key] = value
		}
	}
	return base
}
