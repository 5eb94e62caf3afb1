package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	controller "github.com/lvs-operator/lvs-operator/controllers/realserver"
	"github.com/lvs-operator/lvs-operator/internal/kubeconfig"
	"github.com/lvs-operator/lvs-operator/internal/plan"
	"github.com/lvs-operator/lvs-operator/internal/realserver/pods"
)

// managerPause is the time between the end of a manager and the start of the next.
const managerPause = 5 * time.Second

// keeper is what works in the pods' network namespaces.
type keeper interface {
	Want(pods []pods.Pod)
	Reports() ([]pods.Report, error)
}

// cluster joins an agent with the API server.
type cluster struct {
	options options
	config  *rest.Config
	scheme  *runtime.Scheme
	agent   keeper
	changed *news
	log     *slog.Logger
	// handedOver says that the agent was told what is wanted.
	handedOver atomic.Bool
}

func newCluster(o options, agent keeper, changed *news, log *slog.Logger) (*cluster, error) {
	restConfig, err := kubeconfig.Load(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	restConfig.QPS, restConfig.Burst = 20, 50
	c := &cluster{options: o, config: restConfig, scheme: runtime.NewScheme(), agent: agent, changed: changed, log: log}
	if err := errors.Join(clientgoscheme.AddToScheme(c.scheme), v1alpha1.AddToScheme(c.scheme)); err != nil {
		return nil, fmt.Errorf("setting up the types of the API: %w", err)
	}
	return c, nil
}

// run keeps a manager running until ctx ends. One that fails is made anew: the
// agent goes on with what it was told last.
func (c *cluster) run(ctx context.Context) {
	for {
		if err := c.manage(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("The controller stopped; starting it again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(managerPause):
		}
	}
}

// manage runs the controller until ctx ends or it fails.
func (c *cluster) manage(ctx context.Context) error {
	skipNames := true
	mgr, err := manager.New(c.config, manager.Options{
		Scheme:  c.scheme,
		Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{
			// The controller waits for its caches as long as it takes.
			CacheSyncTimeout:   1000 * time.Hour,
			SkipNameValidation: &skipNames,
		},
		Cache:                   cache.Options{ByObject: controller.CacheOptions(c.options.node)},
		GracefulShutdownTimeout: new(time.Second),
	})
	if err != nil {
		return fmt.Errorf("making a manager: %w", err)
	}
	events := make(chan event.GenericEvent, 1)
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		c.changed.forward(ctx, events)
		return nil
	})); err != nil {
		return fmt.Errorf("adding the events of the agent: %w", err)
	}
	reconciler := &controller.Controller{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Node: c.options.node,
		Agent: adapter{c.agent}, Prepare: plan.Preparations,
		Reserved: reserved(c.config.Host, c.options.apiServer),
		Changed:  events, Events: mgr.GetEventRecorder("lvs-realserver"), Now: time.Now,
		HandedOver: func() { c.handedOver.Store(true) },
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("adding the controller: %w", err)
	}
	return mgr.Start(ctx)
}

// reserved are the addresses of the API server, as far as they are known.
func reserved(hosts ...string) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for _, host := range hosts {
		if u, err := url.Parse(host); err == nil && u.Hostname() != "" {
			host = u.Hostname()
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			all[addr.Unmap()] = "the API server's address"
		}
	}
	return all
}

// alive answers if the agent can be asked. The API server has no part in it.
func (c *cluster) alive() error {
	_, _ = c.agent.Reports()
	return nil
}

// ready says what is missing until pods are prepared.
func (c *cluster) ready() error {
	if !c.handedOver.Load() {
		return errors.New("it is not known yet which pods are to have VIPs")
	}
	_, err := c.agent.Reports()
	return err
}

// adapter is the agent as its controller sees it.
type adapter struct{ agent keeper }

// Want implements controller.Agent.
func (a adapter) Want(wanted []controller.Pod) {
	all := make([]pods.Pod, len(wanted))
	for i, pod := range wanted {
		all[i] = pods.Pod{UID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, HostNetwork: pod.HostNetwork}
		for _, vip := range pod.VIPs {
			all[i].VIPs = append(all[i].VIPs, pods.VIP{Addr: vip.Addr, Linger: vip.Linger})
		}
	}
	a.agent.Want(all)
}

// Reports implements controller.Agent.
func (a adapter) Reports() ([]controller.Report, error) {
	reports, err := a.agent.Reports()
	all := make([]controller.Report, len(reports))
	for i, report := range reports {
		all[i] = controller.Report{
			UID: types.UID(report.UID), Namespace: report.Namespace, Name: report.Name,
			Sandbox: report.Sandbox, PodAddresses: report.PodAddresses, VIPs: report.VIPs, Problem: report.Problem,
		}
	}
	return all, err
}
