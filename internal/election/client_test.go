package election

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestNewLeasesHasConnectionsOfItsOwn talks to an HTTP server and sees how.
func TestNewLeasesHasConnectionsOfItsOwn(t *testing.T) {
	var protocols, remotes, queries []string
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocols, remotes = append(protocols, r.Proto), append(remotes, r.RemoteAddr)
		queries = append(queries, r.Method+" "+r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"pool-0"}}`))
	}))
	backend.EnableHTTP2 = true
	backend.StartTLS()
	defer backend.Close()
	config := &rest.Config{Host: backend.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	for range 2 {
		leases, err := NewLeases(config, "system", duration)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leases.Get(t.Context(), "pool-0", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	path := "GET /apis/coordination.k8s.io/v1/namespaces/system/leases/pool-0"
	if diff := cmp.Diff([]string{path, path}, queries); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"HTTP/1.1", "HTTP/1.1"}, protocols); diff != "" {
		t.Errorf("protocols (-want +got):\n%s", diff)
	}
	if remotes[0] == remotes[1] {
		t.Error("two clients share a connection")
	}
	if config.Dial != nil || config.QPS != 0 {
		t.Error("the caller's configuration was changed")
	}
}
