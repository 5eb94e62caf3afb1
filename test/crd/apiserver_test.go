//go:build envtest

package crd

import (
	"context"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/test/apiserver"
)

// server is the API server that all tests of this package share: each uses
// object names of its own, or dry runs.
var server *apiserver.Server

func TestMain(m *testing.M) { apiserver.Main(m, func(s *apiserver.Server) { server = s }) }

// create makes an object and has it deleted at the end of the test.
func create(ctx context.Context, t *testing.T, object client.Object) {
	t.Helper()
	if err := server.Client.Create(ctx, object); err != nil {
		t.Fatalf("creating %s: %v", object.GetName(), err)
	}
	t.Cleanup(func() {
		if err := server.Client.Delete(context.WithoutCancel(ctx), object); err != nil {
			t.Errorf("deleting %s: %v", object.GetName(), err)
		}
	})
}
