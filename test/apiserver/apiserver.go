//go:build envtest

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	apiruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// startPatience is long: a machine may have much else to do.
const startPatience = 3 * time.Minute

// Server is an API server of its own, with an empty store.
type Server struct {
	// Config and Client are an administrator's. Scheme has Kubernetes' types and ours.
	Config *rest.Config
	Scheme *apiruntime.Scheme
	Client client.Client

	environment *envtest.Environment
}

// Main runs the tests of a package, which share a server, and ends the process. It
// is for TestMain; use is called before the tests.
func Main(m *testing.M, use func(*Server)) {
	code, err := run(m, use)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M, use func(*Server)) (code int, err error) {
	s, err := start()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, s.environment.Stop()) }()
	use(s)
	return m.Run(), nil
}

// New starts a server that ends with the test.
func New(t *testing.T) *Server {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.environment.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Run runs a manager until the test ends.
func Run(t *testing.T, mgr manager.Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func start() (s *Server, err error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return nil, errors.New("KUBEBUILDER_ASSETS is not set: these tests need a folder with etcd, kube-apiserver and kubectl; make test-api provides it")
	}
	_, here, _, _ := runtime.Caller(0)
	s = &Server{Scheme: apiruntime.NewScheme(), environment: &envtest.Environment{
		CRDDirectoryPaths:        []string{filepath.Join(filepath.Dir(here), "../../config/crd")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startPatience,
	}}
	if err := errors.Join(clientgoscheme.AddToScheme(s.Scheme), v1alpha1.AddToScheme(s.Scheme)); err != nil {
		return nil, fmt.Errorf("making the scheme: %w", err)
	}
	if s.Config, err = s.environment.Start(); err != nil {
		return nil, fmt.Errorf("starting the API server: %w", err)
	}
	if s.Client, err = client.New(s.Config, client.Options{Scheme: s.Scheme}); err != nil {
		return nil, errors.Join(fmt.Errorf("making the client: %w", err), s.environment.Stop())
	}
	return s, nil
}
