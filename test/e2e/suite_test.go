//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

const (
	labName = "e2e"
	// lone is the director that serves, spare the node that joins later, other a
	// node that never is a director.
	lone, spare, other = "director1", "director2", "worker1"
	rs1, rs2           = "192.168.11.135", "192.168.11.138"
)

// suite is the lab and what is installed in it.
type suite struct {
	lab        *cluster.Lab
	deployment *deploy.Deployment
	api        client.WithWatch
	// found is how the nodes were before anything was installed.
	found map[string]string
}

var (
	keep   = flag.Bool("keep", false, "leave the lab up at the end")
	rounds = flag.Int("rounds", 1, "how often to run all scenarios")
	all    = flag.Bool("all", false, "run the scenarios too that are left to make e2e-all, for the time that they take")
	// Directors' pods are routed. Where pods are on a bridge each packet passes the
	// node's iptables, which an emulated node has little time for.
	podNetwork = flag.String("pods", string(cluster.PodsMacvlan), "how the worker's pods are connected: macvlan or bridge")
)

// TestE2E runs all scenarios on one lab.
func TestE2E(t *testing.T) {
	s := newSuite(t)
	for range *rounds {
		s.round(t)
	}
	if !t.Run("an uninstallation leaves every node as it was found", func(t *testing.T) { uninstalls(t, s) }) {
		s.explain(t)
	}
}

// round runs the scenarios that disturb nobody at the same time, each on a VIP of
// its own; those that disturb the director follow, one after the other.
func (s *suite) round(t *testing.T) {
	t.Run("undisturbed", func(t *testing.T) {
		s.parallel(t, map[string]func(*testing.T, *suite){
			"forwards 1 to 2 and loses nothing":                         forwardsOneToTwo,
			"the DaemonSet's pods run and columns say what is":          shows,
			"answers processes and pods of the director's own node":     answersOwnNode,
			"leaves Services to kube-proxy":                             leavesServicesAlone,
			"names the older VirtualServer in a conflict":               namesConflict,
			"refuses addresses that are not to be had":                  refusesAddresses,
			"says that a scheduler is missing, and serves the others":   saysSchedulerMissing,
			"puts back what somebody deletes, and leaves others' alone": repairsDrift,
			"lets nobody reach the node's ports through a VIP":          guardsHostPorts,
			"drains a server that leaves":                               drains,
			"takes a server out that fails and puts it back":            checksHealth,
			"keeps a VIP on the real server while realserver runs":      keepsRealServer,
		})
	})
	for _, scenario := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"kill -9 of the director loses nothing", survivesKill},
		{"the director's pod gone for 90 s loses nothing, and what was deleted meanwhile goes", survivesPodGone},
		{"API server stopped and the director killed: nothing is lost", survivesWithoutAPI},
		{"a second director says that it has no IPVS, and then is warm and silent", warmAndSilent},
		{"a node that leaves the pool is as it was found", leavesClean},
		{"pods", pods},
		{"two directors", pair},
		{"several groups", groups},
	} {
		if !t.Run(scenario.name, func(t *testing.T) { scenario.run(t, s) }) {
			s.explain(t)
		}
	}
}

func newSuite(t *testing.T) *suite {
	ctx := t.Context()
	watchEnd(t)
	nodes := cluster.Defaults(labName)
	nodes.Pods = []cluster.PodNetwork{cluster.PodNetwork(*podNetwork)}
	lab, err := cluster.Up(ctx, nodes, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := takeDown(); err != nil {
			t.Error(err)
		}
	})
	s := &suite{lab: lab}
	log.SetLogger(logr.Discard())
	config, err := clientcmd.BuildConfigFromFlags("", lab.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	if s.api, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	s.setSpare(t, nil)
	if s.deployment, err = deploy.New(ctx, lab, os.Stdout); err != nil {
		t.Fatal(err)
	}
	s.found = s.nodeStates(t)
	if err := s.deployment.Install(ctx); err != nil {
		s.explain(t)
		t.Fatal(err)
	}
	return s
}

// watchEnd takes the lab down too if the run is interrupted or takes too long:
// no cleanup of a test is run then.
func watchEnd(t *testing.T) {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	tooLong := make(<-chan time.Time)
	if deadline, limited := t.Deadline(); limited {
		tooLong = time.After(time.Until(deadline) - time.Minute)
	}
	finished := make(chan struct{})
	// Stop ends the context too, so it comes last.
	t.Cleanup(func() { close(finished); stop() })
	go func() {
		why := "interrupted"
		select {
		case <-finished:
			return
		case <-interrupted.Done():
		case <-tooLong:
			why = "the run takes longer than -timeout allows"
		}
		select {
		case <-finished: // the cleanup came first, and does it
			return
		default:
		}
		fmt.Fprintln(os.Stderr, "e2e:", why)
		if err := takeDown(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
		os.Exit(1)
	}()
}

func takeDown() error {
	if *keep {
		return nil
	}
	return cluster.Down(context.Background(), labName)
}

func (s *suite) parallel(t *testing.T, scenarios map[string]func(*testing.T, *suite)) {
	for name, run := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, s)
		})
	}
}

// setSpare makes the spare node a director's or, with nil, not.
func (s *suite) setSpare(t *testing.T, value *string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, cluster.DirectorLabel)
	if value != nil {
		patch = fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, cluster.DirectorLabel, *value)
	}
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: spare}}
	// Cleanups call it, for which the test's own context has ended.
	if err := s.api.Patch(context.Background(), object, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

// await polls until done returns nothing; what it returns last is why not yet. It
// does so once a second: a program that a node starts takes its one, emulated CPU
// from the director that is looked at.
func await(t *testing.T, within time.Duration, done func() string) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		why := done()
		if why == "" {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("after %s: %s", within, why)
		case <-t.Context().Done():
			t.Fatalf("interrupted: %s", why)
		case <-ticker.C:
		}
	}
}

// pause lets traffic flow for a while: what a test asserts is that nothing
// happens in it.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal("interrupted")
	}
}

// serve creates a VirtualServer and gives its VIP to both real servers. Both
// are taken away at the end of the test.
func (s *suite) serve(t *testing.T, vs *v1alpha1.VirtualServer) {
	t.Helper()
	for _, host := range []string{cluster.RS1, cluster.RS2} {
		s.loopback(t, host, string(vs.Spec.Addresses[0]))
	}
	s.create(t, vs)
	s.awaitReady(t, vs.Name)
}

// create creates a VirtualServer, and deletes it at the end of the test.
func (s *suite) create(t *testing.T, vs *v1alpha1.VirtualServer) {
	t.Helper()
	if err := s.api.Create(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.api.Delete(context.Background(), vs); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// loopback puts a VIP on a real server as its administrator would do by hand,
// beside those that other tests put there.
func (s *suite) loopback(t *testing.T, host, vip string) {
	t.Helper()
	for _, sysctl := range []string{"lo/arp_ignore=1", "all/arp_ignore=1", "lo/arp_announce=2", "all/arp_announce=2"} {
		name, value, _ := strings.Cut(sysctl, "=")
		s.run(t, host, "sh", "-c", "echo "+value+" > /proc/sys/net/ipv4/conf/"+name)
	}
	address := netip.MustParseAddr(vip)
	s.run(t, host, "ip", "address", "replace", netip.PrefixFrom(address, address.BitLen()).String(), "dev", "lo")
}

func (s *suite) awaitReady(t *testing.T, name string) {
	t.Helper()
	await(t, time.Minute, func() string {
		vs := s.get(t, name)
		if meta.IsStatusConditionTrue(vs.Status.Conditions, v1alpha1.ConditionReady) &&
			vs.Status.RealServerCounts.Ready == vs.Status.RealServerCounts.Total {
			return ""
		}
		return fmt.Sprintf("VirtualServer %s is not Ready: %+v", name, vs.Status)
	})
}

func (s *suite) get(t *testing.T, name string) *v1alpha1.VirtualServer {
	t.Helper()
	var vs v1alpha1.VirtualServer
	if err := s.api.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: name}, &vs); err != nil {
		t.Fatal(err)
	}
	return &vs
}

// awaitCondition waits for a condition of a VirtualServer and returns its
// message.
func (s *suite) awaitCondition(t *testing.T, name, kind, reason string) string {
	t.Helper()
	message := ""
	await(t, time.Minute, func() string {
		condition := meta.FindStatusCondition(s.get(t, name).Status.Conditions, kind)
		if condition != nil && condition.Reason == reason {
			message = condition.Message
			return ""
		}
		return fmt.Sprintf("condition %s of %s is %+v, want reason %s", kind, name, condition, reason)
	})
	return message
}

// run runs a command on a node or host and returns what it wrote.
func (s *suite) run(t *testing.T, where string, args ...string) string {
	t.Helper()
	out, err := s.lab.Output(t.Context(), where, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// traffic sends requests from a host until the test, or the returned function,
// ends it.
func (s *suite) traffic(t *testing.T, host, network, vip string, rate int) (stop func() load.Summary) {
	t.Helper()
	return s.trafficOf(t, host, load.Options{Address: vip + ":80", Network: network, Rate: rate})
}

// trafficOf is traffic with options of one's own.
func (s *suite) trafficOf(t *testing.T, host string, options load.Options) (stop func() load.Summary) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	begin := time.Now()
	options.Dial = s.lab.Dial(host)
	recorder, wait := load.Start(ctx, options)
	stopped := false
	stop = func() load.Summary {
		if !stopped {
			stopped = true
			cancel()
			wait()
		}
		return load.Summarize(recorder.Results(begin, time.Now()))
	}
	t.Cleanup(func() { stop() })
	return stop
}

// explain prints what helps to understand a failure.
func (s *suite) explain(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for _, node := range []string{lone, spare} {
		for _, command := range []string{
			"tail -n 60 $(ls -t /var/log/pods/*/director/*.log | head -1)",
			"ipvsadm -Ln; ip -br address; nft list table inet lvs-operator",
		} {
			out, err := s.lab.Output(ctx, node, "sh", "-c", command)
			t.Logf("%s: %s\n%s (%v)", node, command, out, err)
		}
	}
}

// web is the classic VirtualServer on a VIP, with a faster check.
func web(name, vip string, changes ...func(*v1alpha1.VirtualServerSpec)) *v1alpha1.VirtualServer {
	vs := &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: v1alpha1.VirtualServerSpec{
			Addresses: []v1alpha1.IPAddress{v1alpha1.IPAddress(vip)},
			Ports:     []v1alpha1.Port{{Name: "http", Port: 80, Protocol: v1alpha1.ProtocolTCP}},
			Scheduler: v1alpha1.SchedulerWeightedRoundRobin,
			RealServers: []v1alpha1.RealServer{
				{Address: rs1, Weight: new(int32(1))},
				{Address: rs2, Weight: new(int32(2))},
			},
			HealthChecks: []v1alpha1.HealthCheck{{
				Name: "default", Type: v1alpha1.HealthCheckTCP,
				Interval: duration(time.Second), Timeout: duration(3 * time.Second), RetryInterval: duration(time.Second),
				FailureThreshold: 3, SuccessThreshold: 1, InitialState: v1alpha1.InitialStateDown,
			}},
		},
	}
	for _, change := range changes {
		change(&vs.Spec)
	}
	return vs
}

func duration(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

func withUDP(spec *v1alpha1.VirtualServerSpec) {
	spec.Ports = append(spec.Ports, v1alpha1.Port{Name: "udp", Port: 80, Protocol: v1alpha1.ProtocolUDP})
}
