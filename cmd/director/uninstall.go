package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/controllers/uninstall"
	"github.com/lvs-operator/lvs-operator/internal/kubeconfig"
)

// uninstallAll has all directors and agents leave.
func uninstallAll(ctx context.Context, o options, stdout io.Writer) error {
	ctrl.SetLogger(logr.Discard())
	config, err := kubeconfig.Load(o.kubeconfig)
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("setting up the types: %w", err)
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	return uninstall.Run(ctx, uninstall.Options{
		Client: api, DaemonSet: types.NamespacedName{Namespace: o.namespace, Name: o.daemonSet}, Timeout: o.timeout, Progress: stdout,
	})
}
