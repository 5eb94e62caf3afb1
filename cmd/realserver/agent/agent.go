// Package agent is the command realserver agent: on a node of a cluster it makes
// the pods that VirtualServers select real servers. The commands for hosts outside
// a cluster know nothing of it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/lvs-operator/lvs-operator/internal/listen"
	"github.com/lvs-operator/lvs-operator/internal/podnetns"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

const usage = `realserver agent makes the pods of this node that VirtualServers select real
servers for direct routing: in the network namespace of each, VIPs are on lo, and
sysctls keep the pod from answering ARP for them. It runs as a DaemonSet. When it
ends it leaves everything in place; the next one takes over.

Usage:
  realserver agent [flags]

Exit status: 0 done; 1 failure; 2 misuse.

Flags:
`

// Run runs the command and returns its exit status. Args are those after the word
// agent.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, os.Getenv)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, usage, o.flags.FlagUsages())
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "realserver agent: %v\n", err)
		return 2
	}
	if err := serve(ctx, o, stderr); err != nil {
		fmt.Fprintf(stderr, "realserver agent: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
	return 0
}

// serve runs the agent until ctx ends.
func serve(ctx context.Context, o options, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: o.logLevel}))
	slog.SetDefault(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetLogger(logr.FromSlogHandler(log.Handler()))

	path, err := socket(o.criSocket, usualSockets())
	if err != nil {
		return err
	}
	lock, err := realserver.StateDir(o.stateDir).Lock(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }()
	runtime, err := podnetns.New(podnetns.Options{Socket: path})
	if err != nil {
		return err
	}
	defer func() { _ = runtime.Close() }()
	changed := newNews()
	agent := pods.New(pods.Options{
		Runtime: runtime, OpenHost: pods.OpenKernel(o.sysctls), StateDir: o.stateDir, Changed: changed.tell, Log: log,
	})
	cluster, err := newCluster(o, agent, changed, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { agent.Run(ctx); return nil })
	group.Go(func() error { cluster.run(ctx); return nil })
	group.Go(func() error {
		return listen.Serve(ctx, o.metrics, promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	})
	group.Go(func() error { return listen.Serve(ctx, o.health, listen.Health(cluster.alive, cluster.ready)) })
	return group.Wait()
}
