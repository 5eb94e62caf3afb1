package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/director"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
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
		return listen(ctx, o.metrics, promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	})
	group.Go(func() error { return listen(ctx, o.health, healthHandler(cluster.director)) })
	if err := group.Wait(); err != nil {
		return err
	}
	return leaveForGood(context.WithoutCancel(ctx), cluster.director, cluster.live, o.node, log)
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

// listen serves HTTP until ctx ends. An address that cannot be listened on ends
// the program: a director whose health nobody can ask would be killed for it
// later, and then again and again.
func listen(ctx context.Context, address string, handler http.Handler) error {
	address, err := listenAddress(address)
	if err != nil || address == "" {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", address, err)
	}
	return nil
}

// healthHandler answers the kubelet's probes. Neither asks the API server: a
// director must not be restarted because that is away.
func healthHandler(d *director.Director) http.Handler {
	mux := http.NewServeMux()
	answer := func(check func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux.HandleFunc("GET /healthz", answer(d.Alive))
	mux.HandleFunc("GET /readyz", answer(d.Ready))
	return mux
}
