package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

const (
	vip = "192.168.11.200"
	// rate is how many connections the client opens a second.
	rate = 50
	// forwardingTime is how long the client is watched while all is well;
	// settled is how long before and after a change.
	forwardingTime = 9 * time.Second
	settled        = 2 * time.Second
	// patience bounds the wait for anything that is to happen.
	patience = 4 * time.Minute
)

// servers are the real servers' hosts and addresses.
var servers = map[string]string{cluster.RS1: "192.168.11.135", cluster.RS2: "192.168.11.138"}

// step is a line of out/demo.json.
type step struct {
	Step            string         `json:"step"`
	Requests        int            `json:"requests"`
	Failed          int            `json:"failed"`
	PerServer       map[string]int `json:"perServer"`
	OutageMs        int64          `json:"outageMs"`
	TakenOutAfterMs *int64         `json:"takenOutAfterMs,omitempty"`
	PutBackAfterMs  *int64         `json:"putBackAfterMs,omitempty"`
}

// stage is the classic set-up, ready to be played.
type stage struct {
	deployment *deploy.Deployment
	api        client.Client
	out        io.Writer
	recorder   *load.Recorder
	// served is the VirtualServer.
	served types.NamespacedName
}

// newStage installs the operator and the classic set-up and waits until it
// serves.
func newStage(ctx context.Context, d *deploy.Deployment, out io.Writer) (*stage, error) {
	s := &stage{deployment: d, out: out}
	log.SetLogger(logr.Discard())
	config, err := clientcmd.BuildConfigFromFlags("", d.Lab.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reading the lab's kubeconfig: %w", err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), clientgoscheme.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("setting up the API's types: %w", err)
	}
	if s.api, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	for host := range servers {
		if _, err := d.RealServer(ctx, host, "run", "--once", "--vip", vip); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(out, "Each web server has %s on lo:0 and keeps silent about it (realserver run).\n", vip)
	began := time.Now()
	if err := d.Install(ctx, preferFirst()...); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "helm install: both directors are ready after %s.\n", time.Since(began).Round(time.Second))
	if err := s.apply(ctx); err != nil {
		return nil, err
	}
	if err := s.awaitHolder(ctx, master); err != nil {
		return nil, err
	}
	return s, s.deployFarm(ctx)
}

// apply creates the classic VirtualServer and waits until it is Ready.
func (s *stage) apply(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(s.deployment.Root, "config", "samples", "classic.yaml"))
	if err != nil {
		return fmt.Errorf("reading the sample: %w", err)
	}
	var vs v1alpha1.VirtualServer
	if err := yaml.UnmarshalStrict(text, &vs); err != nil {
		return fmt.Errorf("reading the sample: %w", err)
	}
	vs.Namespace = "default"
	s.served = client.ObjectKeyFromObject(&vs)
	if err := s.api.Create(ctx, &vs); client.IgnoreAlreadyExists(err) != nil {
		return fmt.Errorf("applying the sample: %w", err)
	}
	began := time.Now()
	err = await(ctx, "the VirtualServer to be Ready", func() (bool, error) {
		var now v1alpha1.VirtualServer
		if err := s.api.Get(ctx, types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}, &now); err != nil {
			return false, err
		}
		ready := meta.IsStatusConditionTrue(now.Status.Conditions, v1alpha1.ConditionReady)
		return ready && now.Status.RealServerCounts != nil && now.Status.RealServerCounts.Ready == 2, nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "config/samples/classic.yaml: both servers in service after %s.\n\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// play goes through the steps while a client opens connections.
func (s *stage) play(ctx context.Context) ([]step, error) {
	loading, end := context.WithCancel(ctx)
	recorder, wait := load.Start(loading, load.Options{
		Address: vip + ":80", Network: "tcp", Rate: rate, Dial: s.deployment.Lab.Dial(cluster.Client),
	})
	defer wait()
	defer end()
	s.recorder = recorder
	fmt.Fprintf(s.out, "A client opens %d connections a second to %s.\n", rate, vip)
	fmt.Fprintf(s.out, "%-16s %9s %7s %6s %6s %10s  %s\n", "STEP", "REQUESTS", "FAILED", "RS1", "RS2", "OUTAGE", "")
	var steps []step
	for _, play := range []func(context.Context) (step, error){
		s.forwarding, s.failure, s.recovery, s.servePods, s.restartPods, s.stopDirector, s.failDirector, s.returnDirector,
	} {
		done, err := play(ctx)
		if err != nil {
			return steps, err
		}
		steps = append(steps, done)
		fmt.Fprintf(s.out, "%-16s %9d %7d %6d %6d %7d ms  %s\n", done.Step, done.Requests, done.Failed,
			done.PerServer[cluster.RS1], done.PerServer[cluster.RS2], done.OutageMs, remark(done))
	}
	return steps, nil
}

func remark(s step) string {
	switch {
	case s.TakenOutAfterMs != nil:
		return fmt.Sprintf("rs1 was stopped, and taken out after %.1f s", float64(*s.TakenOutAfterMs)/1000)
	case s.PutBackAfterMs != nil:
		return fmt.Sprintf("rs1 was started, and put back after %.1f s", float64(*s.PutBackAfterMs)/1000)
	case s.Step == podsServe:
		return fmt.Sprintf("the second VIP: %d pods answer", len(s.PerServer))
	case s.Step == podsRestart:
		return fmt.Sprintf("the Deployment was restarted: %d pods answered", len(s.PerServer))
	case s.Step == directorStop:
		return "the pod of the active director was deleted, and took the VIP back when it was there again"
	case s.Step == directorFailure:
		return "the power of its node was cut"
	case s.Step == comeback:
		return "the node booted, and took the VIP back"
	default:
		return "wrr with weights 1 and 2; answers go straight to the client"
	}
}

// forwarding watches the client while all is well.
func (s *stage) forwarding(ctx context.Context) (step, error) {
	from := time.Now()
	if err := pause(ctx, forwardingTime); err != nil {
		return step{}, err
	}
	return s.summary(ctx, "forwarding", from)
}

// failure stops a web server and waits until the director has taken it out.
func (s *stage) failure(ctx context.Context) (step, error) {
	from := time.Now()
	if err := s.deployment.Lab.Stop(ctx, cluster.RS1); err != nil {
		return step{}, err
	}
	stopped := time.Now()
	if err := s.awaitDestination(ctx, servers[cluster.RS1], false); err != nil {
		return step{}, err
	}
	after := time.Since(stopped)
	if err := pause(ctx, settled); err != nil {
		return step{}, err
	}
	done, err := s.summary(ctx, "failure", from)
	done.TakenOutAfterMs = milliseconds(after)
	return done, err
}

// recovery starts it again and waits until it is back.
func (s *stage) recovery(ctx context.Context) (step, error) {
	from := time.Now()
	if err := s.deployment.Lab.Start(ctx, cluster.RS1); err != nil {
		return step{}, err
	}
	started := time.Now()
	if err := s.awaitDestination(ctx, servers[cluster.RS1], true); err != nil {
		return step{}, err
	}
	after := time.Since(started)
	if err := pause(ctx, settled); err != nil {
		return step{}, err
	}
	done, err := s.summary(ctx, "recovery", from)
	done.PutBackAfterMs = milliseconds(after)
	return done, err
}

// summary tells what the client saw since from, when all of its requests have
// their results.
func (s *stage) summary(ctx context.Context, name string, from time.Time) (step, error) {
	to := time.Now()
	if err := pause(ctx, load.Timeout+100*time.Millisecond); err != nil {
		return step{}, err
	}
	return stepOf(name, load.Summarize(s.recorder.Results(from, to))), nil
}

func stepOf(name string, sum load.Summary) step {
	return step{
		Step: name, Requests: sum.Requests, Failed: sum.Failed,
		PerServer: sum.PerServer, OutageMs: sum.Outage.Milliseconds(),
	}
}

// awaitDestination waits until the director's kernel has, or no longer has, a
// real server. It asks the kernel, not the operator.
func (s *stage) awaitDestination(ctx context.Context, addr string, present bool) error {
	return await(ctx, fmt.Sprintf("%s in the director's kernel to be %t", addr, present), func() (bool, error) {
		table, err := s.deployment.Lab.Output(ctx, "director1", "cat", "/proc/net/ip_vs")
		if err != nil {
			return false, err
		}
		return strings.Contains(table, hexAddr(addr)) == present, nil
	})
}

// hexAddr is an IPv4 address and port 80 as /proc/net/ip_vs has them.
func hexAddr(addr string) string {
	var a, b, c, d int
	if _, err := fmt.Sscanf(addr, "%d.%d.%d.%d", &a, &b, &c, &d); err != nil {
		return addr
	}
	return fmt.Sprintf("%02X%02X%02X%02X:0050", a, b, c, d)
}

// lookAround tells how to see what is there.
func (s *stage) lookAround(kubeconfig string) {
	fmt.Fprintf(s.out, "\nTo look around (with KEEP=1):\n"+
		"  export KUBECONFIG=%s\n"+
		"  kubectl get vs,directors\n"+
		"  go run ./hack/lab exec client -- curl -s http://%s/\n"+
		"  go run ./hack/lab exec director1 -- cat /proc/net/ip_vs\n"+
		"  go run ./hack/lab down\n", kubeconfig, vip)
}

// await polls until done says so or patience is over.
func await(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		ok, err := done()
		if err == nil && ok {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), last))
		case <-ticker.C:
		}
	}
}

// pause lets the client go on for a while.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
