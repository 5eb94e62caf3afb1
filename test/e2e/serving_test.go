//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

func forwardsOneToTwo(t *testing.T, s *suite) {
	s.serve(t, web("ratio", "192.168.11.201"))
	s.serve(t, web("ratio-ipv6", "fd00:11::201", func(spec *v1alpha1.VirtualServerSpec) {
		spec.RealServers[0].Address, spec.RealServers[1].Address = "fd00:11::135", "fd00:11::138"
	}))
	for _, address := range []string{"192.168.11.201:80", "[fd00:11::201]:80"} {
		client := &load.Asker{Address: address, Network: "tcp", Dial: s.lab.Dial(cluster.Client)}
		sum := client.Ask(t.Context(), 60)
		if sum.Failed > 0 || sum.PerServer[cluster.RS1] != 20 || sum.PerServer[cluster.RS2] != 40 {
			t.Errorf("60 requests to %s one after the other: %+v, want 20 of rs1, 40 of rs2 and none failed", address, sum)
		}
	}
}

func shows(t *testing.T, s *suite) {
	s.serve(t, web("shown", "192.168.11.202"))
	var pods corev1.PodList
	if err := s.api.List(t.Context(), &pods, client.InNamespace(deploy.Namespace), deploy.DirectorPods()); err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 1 || pods.Items[0].Status.Phase != corev1.PodRunning || pods.Items[0].Spec.NodeName != lone {
		t.Errorf("pods = %d, first %s on %s; want one, Running on %s", len(pods.Items),
			pods.Items[0].Status.Phase, pods.Items[0].Spec.NodeName, lone)
	}
	display := s.get(t, "shown").Status.Display
	if want := (v1alpha1.VirtualServerDisplay{
		Addresses: "192.168.11.202", Ports: "80/TCP", RealServers: "2/2", Directors: lone,
	}); display == nil || *display != want {
		t.Errorf("display = %+v, want %+v", display, want)
	}
	// Another scenario asks for a scheduler that is not there, for a while.
	await(t, time.Minute, func() string {
		var director v1alpha1.Director
		if err := s.api.Get(t.Context(), types.NamespacedName{Name: lone}, &director); err != nil {
			return err.Error()
		}
		for _, kind := range []string{
			v1alpha1.ConditionReady, v1alpha1.ConditionCandidate, v1alpha1.ConditionAPIReachable, v1alpha1.ConditionIPVSAvailable,
			v1alpha1.ConditionAlive,
		} {
			if !meta.IsStatusConditionTrue(director.Status.Conditions, kind) {
				return fmt.Sprintf("condition %s of the Director is not True: %+v", kind, director.Status.Conditions)
			}
		}
		return ""
	})
	await(t, time.Minute, func() string {
		metrics := s.metrics(lone)
		for _, name := range []string{`lvs_director_active{group="0"} 1`, "lvs_director_kernel_operations_total", "lvs_director_vips"} {
			if !strings.Contains(metrics, name) {
				return "/metrics has no " + name
			}
		}
		return ""
	})
}

func answersOwnNode(t *testing.T, s *suite) {
	s.serve(t, web("own", "192.168.11.203"))
	const get = `printf "GET / HTTP/1.0\r\n\r\n" | %s nc -w 10 192.168.11.203 80`
	if got := s.run(t, lone, "sh", "-c", fmt.Sprintf(get, "")); !strings.Contains(got, "\nrs") {
		t.Errorf("a process of the director's node got %q, want a real server's name", got)
	}
	pod := s.responderPod(t, "own-client", lone)
	// With direct routing real servers answer the pod itself, so they need a way
	// to it: through its node.
	network := netip.PrefixFrom(netip.MustParseAddr(pod.Status.PodIP), 24).Masked().String()
	for _, host := range []string{cluster.RS1, cluster.RS2} {
		s.run(t, host, "ip", "route", "replace", network, "via", "192.168.11.21")
	}
	// The pod's network namespace is entered from its node, since the pod holds
	// nothing but its own program.
	got := s.run(t, lone, "sh", "-c", fmt.Sprintf(get, `nsenter -t "$(pidof responder)" -n`))
	if !strings.Contains(got, "\nrs") {
		t.Errorf("a pod of the director's node got %q, want a real server's name", got)
	}
}

// leavesServicesAlone asks a pod of another node by its Service's ClusterIP, from
// the director's node and from one that is none.
func leavesServicesAlone(t *testing.T, s *suite) {
	pod := s.responderPod(t, "behind-service", other)
	pod.Labels = map[string]string{"app": pod.Name}
	if err := s.api.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		Spec:       corev1.ServiceSpec{Selector: pod.Labels, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if err := s.api.Create(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.api.Delete(context.Background(), service) })
	for _, node := range []string{lone, spare} {
		await(t, time.Minute, func() string {
			out, err := s.lab.Output(t.Context(), node, "sh", "-c", `printf "GET / HTTP/1.0\r\n\r\n" | nc -w 10 `+service.Spec.ClusterIP+" 80")
			if strings.Contains(out, pod.Name) {
				return ""
			}
			return fmt.Sprintf("%s got %q of the Service (%v)", node, out, err)
		})
	}
}

// responderPod runs the lab's responder on a node and waits until it is ready.
func (s *suite) responderPod(t *testing.T, name, node string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers: []corev1.Container{{
				Name: "responder", Image: "lvs-lab.local/responder:1", ImagePullPolicy: corev1.PullIfNotPresent,
			}},
		},
	}
	if err := s.api.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.api.Delete(context.Background(), pod) })
	await(t, 2*time.Minute, func() string {
		if err := s.api.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
			return err.Error()
		}
		if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" {
			return "the pod is " + string(pod.Status.Phase)
		}
		return ""
	})
	return pod
}

func namesConflict(t *testing.T, s *suite) {
	s.serve(t, web("older", "192.168.11.204"))
	// Age has a resolution of one second.
	pause(t, 1100*time.Millisecond)
	s.create(t, web("newer", "192.168.11.204"))
	message := s.awaitCondition(t, "newer", v1alpha1.ConditionAccepted, v1alpha1.ReasonConflict)
	if !strings.Contains(message, "default/older") {
		t.Errorf("message = %q, want it to name default/older", message)
	}
	if !meta.IsStatusConditionTrue(s.get(t, "older").Status.Conditions, v1alpha1.ConditionReady) {
		t.Error("the older one is not Ready any more")
	}
}

func refusesAddresses(t *testing.T, s *suite) {
	for name, tc := range map[string]struct{ vip, reason string }{
		"outside": {"192.168.11.99", v1alpha1.ReasonAddressNotAllowed},
		"another": {"10.99.0.1", v1alpha1.ReasonAddressNotAllowed},
	} {
		s.create(t, web("refused-"+name, tc.vip))
		s.awaitCondition(t, "refused-"+name, v1alpha1.ConditionAccepted, tc.reason)
	}
	// With everything allowed, what a VIP must never be is refused nevertheless.
	s.allow(t, "0.0.0.0/0")
	for name, vip := range map[string]string{
		"node": "192.168.11.21", "node-address": "10.99.0.31", "gateway": "10.99.0.1",
	} {
		s.create(t, web("reserved-"+name, vip))
		s.awaitCondition(t, "reserved-"+name, v1alpha1.ConditionAccepted, v1alpha1.ReasonAddressReserved)
	}
}

// allow adds a range to the pool, until the test ends.
func (s *suite) allow(t *testing.T, addresses v1alpha1.AddressRange) {
	t.Helper()
	change := func(ctx context.Context, edit func(*v1alpha1.AllowRule)) {
		var pool v1alpha1.DirectorPool
		if err := s.api.Get(ctx, types.NamespacedName{Name: "default"}, &pool); err != nil {
			t.Fatal(err)
		}
		patch := client.MergeFrom(pool.DeepCopy())
		edit(&pool.Spec.Allow[0])
		if err := s.api.Patch(ctx, &pool, patch); err != nil {
			t.Fatal(err)
		}
	}
	change(t.Context(), func(rule *v1alpha1.AllowRule) { rule.Addresses = append(rule.Addresses, addresses) })
	t.Cleanup(func() {
		change(context.Background(), func(rule *v1alpha1.AllowRule) { rule.Addresses = rule.Addresses[:len(rule.Addresses)-1] })
	})
}

func saysSchedulerMissing(t *testing.T, s *suite) {
	// Debian's 6.1 kernel has every scheduler but this one.
	s.create(t, web("twos", "192.168.11.205", func(spec *v1alpha1.VirtualServerSpec) { spec.Scheduler = v1alpha1.SchedulerPowerOfTwoChoices }))
	message := s.awaitCondition(t, "twos", v1alpha1.ConditionProgrammed, v1alpha1.ReasonSchedulerUnavailable)
	if !strings.Contains(message, "ip_vs_twos") {
		t.Errorf("message = %q, want it to name the module", message)
	}
	s.serve(t, web("beside-twos", "192.168.11.206"))
}

func repairsDrift(t *testing.T, s *suite) {
	const vip = "192.168.11.207"
	s.serve(t, web("drift", vip))
	s.run(t, lone, "ipvsadm", "-A", "-t", "192.168.11.250:80", "-s", "rr")
	t.Cleanup(func() { _, _ = s.lab.Output(context.Background(), lone, "ipvsadm", "-D", "-t", "192.168.11.250:80") })
	s.run(t, lone, "ipvsadm", "-d", "-t", vip+":80", "-r", rs1+":80")
	await(t, 90*time.Second, func() string {
		table := s.run(t, lone, "ipvsadm", "-Ln", "-t", vip+":80")
		if strings.Contains(table, rs1) {
			return ""
		}
		return "rs1 is not back:\n" + table
	})
	s.run(t, lone, "ipvsadm", "-D", "-t", vip+":80")
	await(t, 90*time.Second, func() string {
		if strings.Contains(s.run(t, lone, "ipvsadm", "-Ln"), vip+":80") {
			return ""
		}
		return "the service is not back"
	})
	if !strings.Contains(s.run(t, lone, "ipvsadm", "-Ln"), "192.168.11.250:80") {
		t.Error("a service of somebody else is gone")
	}
}

func guardsHostPorts(t *testing.T, s *suite) {
	const vip = "192.168.11.208"
	s.serve(t, web("guarded", vip))
	dial := s.lab.Dial(cluster.Client)
	reach := func(address string) error {
		ctx, done := context.WithTimeout(t.Context(), 3*time.Second)
		defer done()
		conn, err := dial(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	// The kubelet listens on every address of the node, so on VIPs too.
	if err := reach("192.168.11.21:10250"); err != nil {
		t.Errorf("the node's own port is not reachable, so nothing is shown: %v", err)
	}
	if err := reach(net.JoinHostPort(vip, "10250")); err == nil {
		t.Error("a port of the node is reachable through the VIP")
	}
	s.run(t, cluster.Client, "busybox", "ping", "-c", "1", "-W", "5", vip)
}

func drains(t *testing.T, s *suite) {
	const vip = "192.168.11.209"
	s.serve(t, web("drained", vip))
	// A connection to each server, kept open.
	dial := s.lab.Dial(cluster.Client)
	for range 3 {
		conn, err := dial(t.Context(), "tcp", vip+":80")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	vs := s.get(t, "drained")
	patch := client.MergeFrom(vs.DeepCopy())
	vs.Spec.RealServers = vs.Spec.RealServers[1:]
	if err := s.api.Patch(t.Context(), vs, patch); err != nil {
		t.Fatal(err)
	}
	weight := func() string {
		for line := range strings.Lines(s.run(t, lone, "ipvsadm", "-Ln", "-t", vip+":80")) {
			if fields := strings.Fields(line); len(fields) > 3 && strings.HasPrefix(fields[1], rs1) {
				return fields[3]
			}
		}
		return "absent"
	}
	await(t, time.Minute, func() string {
		if w := weight(); w != "0" {
			return "rs1's weight is " + w + ", want 0 while its connection lasts"
		}
		return ""
	})
	await(t, 90*time.Second, func() string {
		if w := weight(); w != "absent" {
			return "rs1 is still there with weight " + w
		}
		return ""
	})
}

func keepsRealServer(t *testing.T, s *suite) {
	const vip = "192.168.11.210"
	// Router is no real server otherwise, so what is found there is nobody's.
	host := cluster.Far
	before := s.loState(t, host)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.runRealServer(ctx, host, "run", "--vip", vip, "--check-interval", "1s") }()
	t.Cleanup(func() { cancel() })
	shown := func() bool { return strings.Contains(s.run(t, host, "ip", "address", "show", "dev", "lo"), vip+"/32") }
	await(t, 20*time.Second, func() string {
		if shown() {
			return ""
		}
		return "the VIP is not on lo"
	})
	s.run(t, host, "ip", "address", "del", vip+"/32", "dev", "lo")
	await(t, 20*time.Second, func() string {
		if shown() {
			return ""
		}
		return "the VIP that somebody deleted is not back"
	})
	// A kill -9 leaves all as it is, and stop puts it back.
	cancel()
	if err := <-ended; err == nil {
		t.Error("realserver ended before it was killed")
	}
	if !shown() {
		t.Error("the VIP went with the killed process")
	}
	if err := s.runRealServer(t.Context(), host, "stop"); err != nil {
		t.Fatal(err)
	}
	if after := s.loState(t, host); after != before {
		t.Errorf("lo and its sysctls are\n%s\nwant them as before:\n%s", after, before)
	}
}

func (s *suite) runRealServer(ctx context.Context, host string, args ...string) error {
	_, err := s.deployment.RealServer(ctx, host, args...)
	return err
}

// loState is what realserver changes on a host.
func (s *suite) loState(t *testing.T, host string) string {
	t.Helper()
	return s.run(t, host, "sh", "-c", "ip -o -4 address show dev lo; cd /proc/sys/net/ipv4/conf; "+
		"cat lo/arp_ignore lo/arp_announce all/arp_ignore all/arp_announce")
}
