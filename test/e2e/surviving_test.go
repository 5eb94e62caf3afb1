//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

func checksHealth(t *testing.T, s *suite) {
	const vip = "192.168.11.211"
	// A port of its own, so that no other test's servers fail with it.
	stop := map[string]func(){}
	for _, host := range []string{cluster.RS1, cluster.RS2} {
		stop[host] = s.respond(t, host, ":81")
	}
	s.serve(t, web("health", vip, func(spec *v1alpha1.VirtualServerSpec) { spec.HealthChecks[0].Port = 81 }))
	stop[cluster.RS1]()
	await(t, time.Minute, func() string {
		vs := s.get(t, "health")
		if vs.Status.RealServerCounts.Ready == 1 && vs.Status.RealServers[0].State == v1alpha1.ObservedDown &&
			vs.Status.RealServers[0].Address == rs1 {
			return ""
		}
		return fmt.Sprintf("rs1 is not shown as down: %+v", vs.Status.RealServers)
	})
	sum := (&load.Asker{Address: vip + ":80", Network: "tcp", Dial: s.lab.Dial(cluster.Client)}).Ask(t.Context(), 9)
	if sum.Failed > 0 || sum.PerServer[cluster.RS2] != 9 {
		t.Errorf("with rs1 out: %+v, want 9 answers of rs2", sum)
	}
	s.respond(t, cluster.RS1, ":81")
	s.awaitReady(t, "health")
}

// respond runs the lab's responder on a host and a port until the returned
// function is called or the test ends.
func (s *suite) respond(t *testing.T, host, port string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	program := filepath.Join(filepath.Dir(s.lab.Kubeconfig()), "bin", "responder")
	go func() {
		defer close(ended)
		// How it ends is the caller's doing.
		_, _ = s.lab.Exec(ctx, host, []string{program, "--name", host, "--tcp", port, "--udp", port}, wire.Streams{})
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// watched is traffic from both sides of the router, over TCP and UDP.
type watched map[string]func() load.Summary

// watch serves a VIP and sends traffic to it from the client on its network and
// from the host behind the router.
func (s *suite) watch(t *testing.T, name, vip string) watched {
	t.Helper()
	s.serve(t, web(name, vip, withUDP))
	w := watched{}
	for _, host := range []string{cluster.Client, cluster.Far} {
		for _, network := range []string{"tcp", "udp"} {
			w[host+" "+network] = s.traffic(t, host, network, vip, 15)
		}
	}
	pause(t, 3*time.Second)
	return w
}

// check ends the traffic and wants that none was lost and some was answered.
func (w watched) check(t *testing.T) {
	t.Helper()
	for name, stop := range w {
		sum := stop()
		t.Logf("%s: %d requests, %d failed, outage %s, %v %v", name, sum.Requests, sum.Failed, sum.Outage, sum.PerServer, sum.Errors)
		if sum.Failed > 0 || sum.Requests == 0 || len(sum.PerServer) != 2 {
			t.Errorf("%s: want answers of both servers and none lost", name)
		}
	}
}

// ready says whether the director on a node is.
func (s *suite) ready(t *testing.T, node string) bool {
	t.Helper()
	var pods corev1.PodList
	if err := s.api.List(t.Context(), &pods, client.InNamespace(deploy.Namespace), deploy.DirectorPods()); err != nil {
		return false
	}
	for _, pod := range pods.Items {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue &&
				pod.Spec.NodeName == node && pod.DeletionTimestamp.IsZero() {
				return true
			}
		}
	}
	return false
}

func (s *suite) awaitDirector(t *testing.T, node string) {
	t.Helper()
	await(t, 2*time.Minute, func() string {
		if s.ready(t, node) {
			return ""
		}
		return "no director is ready on " + node
	})
}

// announces says whether the director on a node does, by its own metrics.
func (s *suite) announces(node string) bool {
	return strings.Contains(s.metrics(node), `lvs_director_active{group="0"} 1`)
}

// metrics returns what a node's director serves as such, or nothing.
func (s *suite) metrics(node string) string {
	address := map[string]string{lone: "10.99.0.21", spare: "10.99.0.22"}[node]
	out, err := s.lab.Output(context.Background(), node, "sh", "-c",
		`printf "GET /metrics HTTP/1.0\r\n\r\n" | nc -w 10 `+address+` 7957`)
	if err != nil {
		return ""
	}
	return out
}

// directorProcess returns the director's process id on a node, or nothing.
func (s *suite) directorProcess(node string) string {
	out, err := s.lab.Output(context.Background(), node, "pidof", "director")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

func survivesKill(t *testing.T, s *suite) {
	before := s.directorProcess(lone)
	w := s.watch(t, "kill", "192.168.11.212")
	s.run(t, lone, "sh", "-c", "kill -9 "+before)
	await(t, 2*time.Minute, func() string {
		if now := s.directorProcess(lone); now != "" && now != before {
			return ""
		}
		return "the director has not been started again"
	})
	s.awaitDirector(t, lone)
	pause(t, 5*time.Second)
	w.check(t)
}

func survivesPodGone(t *testing.T, s *suite) {
	const forgotten = "192.168.11.215"
	deleted := web("forgotten", forgotten)
	s.serve(t, deleted)
	w := s.watch(t, "gone", "192.168.11.213")
	bringBack := s.withoutDirectors(t)
	if err := s.api.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	pause(t, 90*time.Second)
	if s.directorProcess(lone) != "" {
		t.Fatal("a director ran in the meantime, so nothing is shown")
	}
	if !strings.Contains(s.run(t, lone, "ipvsadm", "-Ln"), forgotten) {
		t.Error("the service is gone without a director")
	}
	bringBack()
	s.awaitDirector(t, lone)
	await(t, 3*time.Minute, func() string {
		if strings.Contains(s.run(t, lone, "ipvsadm", "-Ln"), forgotten) ||
			strings.Contains(s.run(t, lone, "ip", "-o", "address"), forgotten) {
			return "the VIP that was deleted meanwhile is still there"
		}
		return ""
	})
	w.check(t)
}

// withoutDirectors deletes the DaemonSet, and nothing else, until the returned
// function is called or the test ends.
func (s *suite) withoutDirectors(t *testing.T) (bringBack func()) {
	t.Helper()
	var ds appsv1.DaemonSet
	if err := s.api.Get(t.Context(), types.NamespacedName{Namespace: deploy.Namespace, Name: deploy.DaemonSet}, &ds); err != nil {
		t.Fatal(err)
	}
	if err := s.api.Delete(t.Context(), &ds); err != nil {
		t.Fatal(err)
	}
	again := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ds.Namespace, Name: ds.Name, Labels: ds.Labels, Annotations: ds.Annotations},
		Spec:       ds.Spec,
	}
	bringBack = sync.OnceFunc(func() {
		if err := s.api.Create(context.Background(), again); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(bringBack)
	await(t, time.Minute, func() string {
		if s.directorProcess(lone) == "" {
			return ""
		}
		return "the director is still running"
	})
	return bringBack
}

func survivesWithoutAPI(t *testing.T, s *suite) {
	w := s.watch(t, "no-api", "192.168.11.214")
	if err := s.lab.StopAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	startAPI := sync.OnceFunc(func() {
		if err := s.lab.StartAPI(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(startAPI)
	// A director that starts without the API goes on from its checkpoint.
	before := s.directorProcess(lone)
	s.run(t, lone, "sh", "-c", "kill -9 "+before)
	await(t, 2*time.Minute, func() string {
		if now := s.directorProcess(lone); now == "" || now == before {
			return "the director has not been started again"
		}
		if !s.announces(lone) {
			return "the director that started without the API is not active"
		}
		return ""
	})
	// With its kubelet ended nobody starts it again.
	startKubelet := s.killForGood(t, lone)
	pause(t, 90*time.Second)
	if s.directorProcess(lone) != "" {
		t.Fatal("a director ran in the meantime, so nothing is shown")
	}
	startAPI()
	await(t, 2*time.Minute, func() string {
		if err := s.api.List(t.Context(), &v1alpha1.DirectorList{}); err != nil {
			return err.Error()
		}
		return ""
	})
	startKubelet()
	await(t, 2*time.Minute, func() string {
		if s.directorProcess(lone) == "" {
			return "the kubelet has not started the director"
		}
		return ""
	})
	s.awaitDirector(t, lone)
	w.check(t)
}

// killForGood kills a node's director, which nobody starts again before the
// returned function is called or the test ends: its kubelet is ended too.
func (s *suite) killForGood(t *testing.T, node string) (startKubelet func()) {
	t.Helper()
	startKubelet = s.stopKubelet(t, node)
	t.Cleanup(startKubelet)
	s.run(t, node, "sh", "-c", `ctr -n k8s.io task kill -s SIGKILL $(ctr -n k8s.io task ls | awk '$2 == '$(pidof director)' {print $1}')`)
	await(t, 30*time.Second, func() string {
		if s.directorProcess(node) == "" {
			return ""
		}
		return "the director is still running"
	})
	return startKubelet
}

// withoutIPVS makes a node's kernel one that has no IPVS until the returned
// function is called or the test ends.
func (s *suite) withoutIPVS(t *testing.T, node string) (bringBack func()) {
	t.Helper()
	loader := strings.TrimSpace(s.run(t, node, "cat", "/proc/sys/kernel/modprobe"))
	s.run(t, node, "sh", "-c", "echo /bin/false > /proc/sys/kernel/modprobe; "+
		"for module in $(awk '/^ip_vs_/ {print $1}' /proc/modules) ip_vs; do rmmod $module; done; ! grep ip_vs /proc/modules")
	bringBack = sync.OnceFunc(func() {
		if _, err := s.lab.Output(context.Background(), node, "sh", "-c", "echo "+loader+" > /proc/sys/kernel/modprobe"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(bringBack)
	return bringBack
}

// saysIPVSMissing wants a director without IPVS to stay up and say why it does
// not take part, until bringBack was called.
func (s *suite) saysIPVSMissing(t *testing.T, node string, bringBack func()) {
	t.Helper()
	await(t, 2*time.Minute, func() string {
		var director v1alpha1.Director
		if err := s.api.Get(t.Context(), types.NamespacedName{Name: node}, &director); err != nil {
			return err.Error()
		}
		condition := meta.FindStatusCondition(director.Status.Conditions, v1alpha1.ConditionIPVSAvailable)
		if condition != nil && condition.Status == metav1.ConditionFalse && condition.Reason == v1alpha1.ReasonIPVSUnavailable {
			return ""
		}
		return fmt.Sprintf("condition IPVSAvailable is %+v", condition)
	})
	await(t, time.Minute, func() string { return s.noEvent(t, node, v1alpha1.ReasonIPVSUnavailable) })
	if s.ready(t, node) {
		t.Error("the pod is ready, although its director cannot serve")
	}
	before := s.directorProcess(node)
	bringBack()
	s.awaitDirector(t, node)
	if now := s.directorProcess(node); before == "" || now != before {
		t.Errorf("the director's process was %q and is %q, want that it stayed up", before, now)
	}
}

func warmAndSilent(t *testing.T, s *suite) {
	const vip = "192.168.11.216"
	s.serve(t, web("warm", vip))
	bringBack := s.withoutIPVS(t, spare)
	s.setSpare(t, new("true"))
	t.Cleanup(func() { s.setSpare(t, nil) })
	s.saysIPVSMissing(t, spare, bringBack)
	await(t, time.Minute, func() string {
		if strings.Contains(s.run(t, spare, "ipvsadm", "-Ln"), vip+":80") &&
			strings.Contains(s.run(t, spare, "ip", "-o", "address", "show", "dev", "dummy-lvs"), vip) {
			return ""
		}
		return "the second director is not warm"
	})
	// Alone no more: the kernel of the first must not answer for the VIP.
	await(t, time.Minute, func() string {
		if strings.Contains(s.run(t, lone, "ip", "-o", "address", "show", "dev", "eth0"), vip) {
			return "the VIP is still on the first director's interface"
		}
		return ""
	})
	var director v1alpha1.Director
	if err := s.api.Get(t.Context(), types.NamespacedName{Name: spare}, &director); err != nil {
		t.Fatal(err)
	}
	if len(director.Status.Groups) != 0 || !meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("the second director is %+v, want it Ready and active for nothing", director.Status)
	}
	// Only one machine answers for the VIP.
	answers := s.run(t, cluster.Client, "sh", "-c", "ip neigh flush dev eth0; busybox ping -c 1 -W 3 "+vip+" >/dev/null; ip neigh show "+vip)
	if !strings.Contains(answers, "52:54:00:11:00:15") {
		t.Errorf("the client knows %q, want the first director's MAC", answers)
	}
}

func leavesClean(t *testing.T, s *suite) {
	found := func() string {
		return s.run(t, spare, "sh", "-c", "ip -o address show | grep -v 'cali\\|veth' | awk '{print $2, $4}'; "+
			"ipvsadm -Sn; nft list tables | grep lvs; cd /proc/sys/net/ipv4; "+
			"cat conf/eth0/arp_ignore conf/eth0/arp_announce conf/eth0/accept_local conf/eth0/rp_filter; true")
	}
	s.setSpare(t, nil)
	await(t, time.Minute, func() string {
		if s.directorProcess(spare) != "" {
			return "the director still runs on the node that is none any more"
		}
		return ""
	})
	before := found()
	s.setSpare(t, new("true"))
	s.awaitDirector(t, spare)
	await(t, time.Minute, func() string {
		if found() == before {
			return "the node is as before, although it is a director"
		}
		return ""
	})
	s.setSpare(t, nil)
	await(t, time.Minute, func() string {
		if after := found(); after != before {
			return "the node is\n" + after + "\nand was\n" + before
		}
		return ""
	})
}

// stopKubelet ends a node's kubelet and keeps it from being started again,
// until the returned function is called.
func (s *suite) stopKubelet(t *testing.T, node string) (start func()) {
	t.Helper()
	if err := s.lab.StopKubelet(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := s.lab.StartKubelet(context.Background(), node); err != nil {
			t.Error(err)
		}
	})
}
