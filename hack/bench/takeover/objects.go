package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
)

const (
	operatorNamespace = "lvs-operator-system"
	// apiLimit bounds the wait for anything of the API server's.
	apiLimit = 2 * time.Minute
	// listening is the pool's delay of preemption.
	listening = 2 * time.Second
	apiPoll   = 200 * time.Millisecond
)

// objects are the API server's. There are no kubelets and no controllers, so the
// nodes and the directors' pods are written by hand, once: no event of the
// benchmark is one that they would have noticed in time.
type objects struct {
	client client.Client
}

// newObjects makes what all rounds share.
func newObjects(ctx context.Context, kubeconfig, crds string) (*objects, error) {
	log.SetLogger(logr.Discard())
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the lab's kubeconfig: %w", err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), clientgoscheme.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("setting up the API's types: %w", err)
	}
	o := &objects{}
	if o.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if err := o.define(ctx, crds); err != nil {
		return nil, err
	}
	shared := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}},
		// Which the admission of pods wants.
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "default"}},
	}
	for _, host := range plan.Hosts() {
		if host.Director() {
			shared = append(shared, nodeOf(host), podOf(host))
		}
	}
	for _, object := range append(shared, pool()) {
		if err := o.create(ctx, object); err != nil {
			return nil, err
		}
	}
	return o, o.ready(ctx)
}

// define creates the CRDs.
func (o *objects) define(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "lvs-operator.io_*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no CRDs in %s: %w", dir, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a CRD: %w", err)
		}
		var crd unstructured.Unstructured
		if err := yaml.Unmarshal(text, &crd.Object); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		if err := o.create(ctx, &crd); err != nil {
			return err
		}
	}
	return nil
}

// create creates an object that may be there already. What a new CRD defines is
// known a little later.
func (o *objects) create(ctx context.Context, object client.Object) error {
	what := fmt.Sprintf("creating %T %s", object, object.GetName())
	return await(ctx, what, func(ctx context.Context) error {
		return client.IgnoreAlreadyExists(o.client.Create(ctx, object))
	})
}

// ready says of nodes and pods what kubelets would.
func (o *objects) ready(ctx context.Context) error {
	for _, host := range plan.Hosts() {
		if !host.Director() {
			continue
		}
		node, pod := nodeOf(host), podOf(host)
		for _, object := range []client.Object{node, pod} {
			if err := o.client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return fmt.Errorf("reading %s: %w", object.GetName(), err)
			}
		}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Bench"}}
		address, _, _ := strings.Cut(host.Management, "/")
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		for _, object := range []client.Object{node, pod} {
			if err := o.client.Status().Update(ctx, object); err != nil {
				return fmt.Errorf("writing the status of %s: %w", object.GetName(), err)
			}
		}
		node.Spec.Taints = nil
		if err := o.client.Update(ctx, node); err != nil {
			return fmt.Errorf("taking the taint off %s: %w", node.Name, err)
		}
	}
	return nil
}

func nodeOf(host plan.Host) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: host.Name, Labels: map[string]string{cluster.DirectorLabel: "true"}}}
}

func podOf(host plan.Host) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: operatorNamespace, Name: host.Name,
			Labels: map[string]string{"app.kubernetes.io/component": "director"},
		},
		Spec: corev1.PodSpec{
			NodeName: host.Name, AutomountServiceAccountToken: new(false),
			Containers: []corev1.Container{{Name: "director", Image: "director"}},
		},
	}
}

// pool has the API's defaults, but for the delay of preemption: that is also how
// long a director has to have listened to the other's connections, and here it has
// from before the first of them on. Nobody preempts.
func pool() *v1alpha1.DirectorPool {
	return &v1alpha1.DirectorPool{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec: v1alpha1.DirectorPoolSpec{
			NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{cluster.DirectorLabel: "true"}},
			Interface:    &v1alpha1.Interface{Name: "eth0"},
			Election:     v1alpha1.Election{Preemption: v1alpha1.Preemption{Delay: &metav1.Duration{Duration: listening}}},
			Allow: []v1alpha1.AllowRule{{
				Addresses: []v1alpha1.AddressRange{plan.VIP}, RealServers: []v1alpha1.AddressRange{"192.168.11.0/24"},
			}},
		},
	}
}

// virtualServer is the classic set-up's, with the same check as keepalived.conf. The
// variant is its scheduler, with those flags behind hyphens that ipvsadm knows: mh-port.
func virtualServer(variant string) *v1alpha1.VirtualServer {
	scheduler, flag, _ := strings.Cut(variant, "-")
	vs := &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "web"},
		Spec: v1alpha1.VirtualServerSpec{
			Addresses:        []v1alpha1.IPAddress{plan.VIP},
			Ports:            []v1alpha1.Port{{Name: "http", Port: 80, Protocol: "TCP"}},
			Scheduler:        v1alpha1.Scheduler(scheduler),
			ForwardingMethod: "DR",
			HealthChecks: []v1alpha1.HealthCheck{{
				Type: "TCP", Interval: metav1.Duration{Duration: 6 * time.Second}, Timeout: metav1.Duration{Duration: 10 * time.Second},
				FailureThreshold: 2, RetryInterval: metav1.Duration{Duration: 3 * time.Second}, SuccessThreshold: 1,
			}},
		},
	}
	if flag != "" {
		vs.Spec.SchedulerFlags = []v1alpha1.SchedulerFlag{v1alpha1.SchedulerFlag(strings.ToUpper(flag[:1]) + flag[1:])}
	}
	for _, host := range plan.Hosts() {
		if host.Weight > 0 {
			address, _, _ := strings.Cut(host.Segment, "/")
			vs.Spec.RealServers = append(vs.Spec.RealServers, v1alpha1.RealServer{
				Address: v1alpha1.IPAddress(address), Weight: new(int32(host.Weight)),
			})
		}
	}
	return vs
}

// reset forgets what an earlier round left, while no director runs.
func (o *objects) reset(ctx context.Context, variant string) error {
	for _, kind := range []client.Object{&coordinationv1.Lease{}, &v1alpha1.Director{}, &v1alpha1.VirtualServer{}} {
		var where []client.DeleteAllOfOption
		switch kind.(type) {
		case *coordinationv1.Lease:
			where = append(where, client.InNamespace(operatorNamespace))
		case *v1alpha1.VirtualServer:
			where = append(where, client.InNamespace(metav1.NamespaceDefault))
		}
		if err := o.client.DeleteAllOf(ctx, kind, where...); err != nil {
			return fmt.Errorf("forgetting the last round: %w", err)
		}
	}
	return o.create(ctx, virtualServer(variant))
}

// awaitPair waits until one director holds the Lease, both could and would know all
// connections, and no kernel answers for want of another director.
func (o *objects) awaitPair(ctx context.Context) error {
	return await(ctx, "waiting for a pair of directors", func(ctx context.Context) error {
		var lease coordinationv1.Lease
		if err := o.client.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: "default-0"}, &lease); err != nil {
			return err
		}
		if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
			return errors.New("nobody holds the Lease")
		}
		var directors v1alpha1.DirectorList
		if err := o.client.List(ctx, &directors); err != nil {
			return err
		}
		candidates := 0
		for _, director := range directors.Items {
			if meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionCandidate) {
				candidates++
			}
			if meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionKernelAnswers) {
				return fmt.Errorf("the kernel of %s answers", director.Name)
			}
			if !meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionConnectionsSynced) {
				return fmt.Errorf("%s does not know all connections", director.Name)
			}
		}
		if candidates < 2 {
			return fmt.Errorf("%d candidates, want 2", candidates)
		}
		return nil
	})
}

// await polls until there is no error any more, and returns the last one if the
// time is up.
func await(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	tick := time.NewTicker(apiPoll)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}
