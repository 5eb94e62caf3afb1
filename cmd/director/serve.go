package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/director"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/listen"
)

// serve runs the director until ctx ends.
func serve(ctx context.Context, o options, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: o.logLevel}))
	slog.SetDefault(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetLogger(logr.FromSlogHandler(log.Handler()))

	lock, err := checkpoint.Acquire(o.stateDir, o.podUID)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }()
	client, err := kernel.New(kernel.Options{Sysctls: o.sysctls, StateDir: o.stateDir})
	if err != nil {
		return fmt.Errorf("opening the kernel: %w", err)
	}
	defer func() { _ = client.Close() }()
	cluster, err := newCluster(o, client, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { cluster.director.Run(ctx); return nil })
	group.Go(func() error { cluster.run(ctx); return nil })
	group.Go(func() error {
		return listen.Serve(ctx, o.metrics, promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	})
	group.Go(func() error { return listen.Serve(ctx, o.health, healthHandler(cluster.director)) })
	if err := group.Wait(); err != nil {
		return err
	}
	return leaveForGood(context.WithoutCancel(ctx), cluster.director, cluster.live, o.node, cluster.installation(cluster.live), log)
}

// cleanup takes away what directors left on the node.
func cleanup(ctx context.Context, o options, stdout io.Writer) error {
	lock, err := checkpoint.Acquire(o.stateDir, "director cleanup")
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }()
	client, err := kernel.New(kernel.Options{Sysctls: o.sysctls, StateDir: o.stateDir})
	if err != nil {
		return fmt.Errorf("opening the kernel: %w", err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Restore(ctx); err != nil {
		return fmt.Errorf("cleaning the node up: %w", err)
	}
	if err := director.RemoveCheckpoints(o.stateDir); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "The node is as it was found.")
	return nil
}

// healthHandler answers the kubelet's probes. Neither asks the API server: a
// director must not be restarted because that is away.
func healthHandler(d *director.Director) http.Handler { return listen.Health(d.Alive, d.Ready) }
