package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	directorcontroller "github.com/lvs-operator/lvs-operator/controllers/director"
	"github.com/lvs-operator/lvs-operator/controllers/virtualserver"
	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/director"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kubeconfig"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// cluster joins a director with the API server.
type cluster struct {
	options  options
	config   *rest.Config
	scheme   *runtime.Scheme
	log      *slog.Logger
	director *director.Director
	// live asks the API server at each call.
	live client.Client
	// apiServer are addresses of the API server, as far as they are known.
	apiServer []netip.Addr
	// changed wakes the status writers, siteChanged the planner.
	changed     *news
	siteChanged chan struct{}
	// planner is that of the manager that runs, or ran last.
	planner atomic.Pointer[virtualserver.Planner]
}

func newCluster(o options, k *kernel.Client, log *slog.Logger) (*cluster, error) {
	restConfig, err := kubeconfig.Load(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	// A takeover reports every VIP at once; the API server's own fairness bounds
	// what that costs others.
	restConfig.QPS, restConfig.Burst = 50, 100
	c := &cluster{
		options: o, config: restConfig, scheme: runtime.NewScheme(), log: log,
		changed:     newNews(),
		siteChanged: make(chan struct{}, 1),
	}
	if err := clientgoscheme.AddToScheme(c.scheme); err != nil {
		return nil, fmt.Errorf("setting up the types of Kubernetes: %w", err)
	}
	if err := v1alpha1.AddToScheme(c.scheme); err != nil {
		return nil, fmt.Errorf("setting up the types of lvs-operator: %w", err)
	}
	if c.live, err = client.New(restConfig, client.Options{Scheme: c.scheme}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	leases, err := election.NewLeases(restConfig, o.namespace, director.LeaseDuration)
	if err != nil {
		return nil, fmt.Errorf("making a client for Leases: %w", err)
	}
	c.apiServer = addressesOf(restConfig.Host, o.apiServer)
	c.director = director.New(director.Config{
		Node:        o.node,
		Instance:    o.podUID,
		Namespace:   o.namespace,
		Kernel:      k,
		Neighbors:   func(link string) announce.Neighbors { return neighbors{k, link} },
		Leases:      leases,
		StateDir:    o.stateDir,
		Wanted:      c.wanted,
		Changed:     c.changed.add,
		SiteChanged: c.noteSite,
		Gossip:      func(cfg gossip.Config) (director.Gossiper, error) { return gossip.New(cfg) },
		IPVSTakenOK: o.ipvsTakenOK,
		Metrics:     director.NewMetrics(metrics.Registry),
		Log:         log,
	})
	return c, nil
}

// addressesOf returns the addresses in a URL and a host, where they are any.
func addressesOf(hosts ...string) []netip.Addr {
	var addrs []netip.Addr
	for _, host := range hosts {
		if u, err := url.Parse(host); err == nil && u.Hostname() != "" {
			host = u.Hostname()
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// run keeps a manager running until ctx ends. A manager that fails, because the
// API server was away for too long or anything else, is made anew: that must
// never end the process.
func (c *cluster) run(ctx context.Context) {
	for {
		if err := c.manage(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("The controllers stopped; starting them again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}

// manage runs the controllers until ctx ends or they fail.
func (c *cluster) manage(ctx context.Context) error {
	skipNames := true
	mgr, err := manager.New(c.config, manager.Options{
		Scheme:  c.scheme,
		Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{
			// Controllers wait for their caches as long as it takes.
			CacheSyncTimeout:   1000 * time.Hour,
			SkipNameValidation: &skipNames,
		},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}:             {Namespaces: map[string]cache.Config{c.options.namespace: {}}, Transform: slimPod},
				&corev1.Node{}:            {Transform: slimNode},
				&v1alpha1.VirtualServer{}: {Transform: keep},
				&v1alpha1.Director{}:      {Transform: keep},
				&v1alpha1.DirectorPool{}:  {Transform: cache.TransformStripManagedFields()},
				&corev1.Namespace{}:       {Transform: cache.TransformStripManagedFields()},
				&corev1.Secret{}:          directorcontroller.KeysCache(c.options.namespace),
			},
		},
		GracefulShutdownTimeout: new(time.Second),
	})
	if err != nil {
		return fmt.Errorf("making a manager: %w", err)
	}
	if err := c.setup(mgr); err != nil {
		return err
	}
	c.noteSite()
	return mgr.Start(ctx)
}

// keep leaves an object as it is: whoever applies its status compares with the
// managed fields too.
func keep(object any) (any, error) { return object, nil }

// slimPod keeps of a pod what tells whether a director's process is there. Pods
// of workloads are in a cache of their own (virtualserver.Workloads).
func slimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	slim := &corev1.Pod{ObjectMeta: pod.ObjectMeta}
	slim.ManagedFields = nil
	slim.Spec.NodeName = pod.Spec.NodeName
	slim.Status.Conditions = pod.Status.Conditions
	return slim, nil
}

// slimNode keeps of a node its labels and annotations (v1alpha1.AnnotationState is
// one), addresses, taints and readiness.
func slimNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	slim := &corev1.Node{ObjectMeta: node.ObjectMeta}
	slim.ManagedFields = nil
	slim.Spec.Unschedulable, slim.Spec.Taints = node.Spec.Unschedulable, node.Spec.Taints
	slim.Status.Addresses, slim.Status.Conditions = node.Status.Addresses, node.Status.Conditions
	return slim, nil
}

// setup adds the controllers to a manager.
func (c *cluster) setup(mgr ctrl.Manager) error {
	sites := make(chan event.TypedGenericEvent[netstate.Key], 1)
	servers := make(chan event.TypedGenericEvent[netstate.Key], 64)
	own := make(chan event.TypedGenericEvent[netstate.Key], 1)
	terms := make(chan event.TypedGenericEvent[netstate.Key], 1)
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		c.forward(ctx, sites, servers, own, terms)
		return nil
	})); err != nil {
		return fmt.Errorf("adding the events of the director: %w", err)
	}
	workloads, err := virtualserver.NewWorkloads(mgr)
	if err != nil {
		return err
	}
	planner := &virtualserver.Planner{
		Reader: mgr.GetClient(), Live: c.live, Director: programmer{c}, Workloads: workloads, SiteChanged: sites,
	}
	recorder := mgr.GetEventRecorder("lvs-director")
	setups := []interface{ SetupWithManager(manager.Manager) error }{
		&directorcontroller.Membership{
			Reader: mgr.GetClient(), Node: c.options.node, Member: member{c}, Installation: c.installation(mgr.GetClient()), Now: time.Now,
		},
		&directorcontroller.Peers{
			Reader: mgr.GetClient(), Node: c.options.node, Director: member{c},
		},
		&directorcontroller.GossipKeys{
			Client: mgr.GetClient(), Namespace: c.options.namespace, Director: c.director, Events: recorder,
		},
		&directorcontroller.Reporter{
			Client: mgr.GetClient(), Node: c.options.node, Director: member{c}, Changed: own, Events: recorder, Now: time.Now,
		},
		&directorcontroller.Alive{
			Client: mgr.GetClient(), Node: c.options.node, Director: programmer{c}, Changed: terms, Now: time.Now,
		},
		planner,
		&virtualserver.Reporter{
			Client: mgr.GetClient(), Director: programmer{c}, Changed: servers, Workloads: workloads, Events: recorder, Now: time.Now,
		},
	}
	for _, s := range setups {
		if err := s.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("adding a controller: %w", err)
		}
	}
	c.planner.Store(planner)
	return nil
}

// installation is the one that this director belongs to.
func (c *cluster) installation(reader client.Reader) directorcontroller.Installation {
	return directorcontroller.Installation{Reader: reader, Namespace: c.options.namespace, PodUID: types.UID(c.options.podUID)}
}

// wanted asks which keys are to be served.
func (c *cluster) wanted(ctx context.Context) (map[netstate.Key]struct{}, error) {
	planner := c.planner.Load()
	if planner == nil {
		return nil, errors.New("nothing has been planned yet")
	}
	return planner.Confirm(ctx)
}

// forward hands the director's news to the controllers.
func (c *cluster) forward(ctx context.Context, sites, servers, own, terms chan<- event.TypedGenericEvent[netstate.Key]) {
	var before []director.Role
	tell := func(to chan<- event.TypedGenericEvent[netstate.Key], key netstate.Key) {
		select {
		case <-ctx.Done():
		case to <- event.TypedGenericEvent[netstate.Key]{Object: key}:
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.siteChanged:
			tell(sites, netstate.Key{})
		case <-c.changed.wake:
			key, any := c.changed.take()
			if !any {
				continue
			}
			if key == (netstate.Key{}) {
				tell(own, key)
			} else {
				tell(servers, key)
			}
			if roles := c.director.Roles(); !slices.Equal(roles, before) {
				// What only the active director reports is to be looked at anew.
				before = roles
				tell(servers, netstate.Key{})
				tell(terms, netstate.Key{})
			}
		}
	}
}

func (c *cluster) noteSite() {
	select {
	case c.siteChanged <- struct{}{}:
	default:
	}
}
