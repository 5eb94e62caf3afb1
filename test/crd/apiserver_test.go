//go:build envtest

package crd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// server is the API server that all tests of this package share: each uses
// object names of its own, or dry runs.
var server struct {
	config *rest.Config
	client client.Client
}

func TestMain(m *testing.M) {
	code, err := withServer(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withServer runs the tests against an API server that has our CRDs.
func withServer(run func() int) (code int, err error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return 1, fmt.Errorf("KUBEBUILDER_ASSETS is not set: these tests need a folder with etcd, kube-apiserver and kubectl; make test-crd provides it")
	}
	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join(root, "config/crd")},
		ErrorIfCRDPathMissing: true,
	}
	if server.config, err = environment.Start(); err != nil {
		return 1, fmt.Errorf("starting the API server: %w", err)
	}
	defer func() {
		if stopErr := environment.Stop(); err == nil && stopErr != nil {
			err = fmt.Errorf("stopping the API server: %w", stopErr)
		}
	}()

	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return 1, fmt.Errorf("making the scheme: %w", err)
	}
	if server.client, err = client.New(server.config, client.Options{Scheme: scheme}); err != nil {
		return 1, fmt.Errorf("making the client: %w", err)
	}
	return run(), nil
}

// create makes an object and has it deleted at the end of the test.
func create(ctx context.Context, t *testing.T, object client.Object) {
	t.Helper()
	if err := server.client.Create(ctx, object); err != nil {
		t.Fatalf("creating %s: %v", object.GetName(), err)
	}
	t.Cleanup(func() {
		if err := server.client.Delete(context.WithoutCancel(ctx), object); err != nil {
			t.Errorf("deleting %s: %v", object.GetName(), err)
		}
	})
}
