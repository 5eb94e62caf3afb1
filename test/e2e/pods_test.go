//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

const (
	// podVIP and podVIP6 are served by the pods that scenarios share.
	podVIP, podVIP6 = "192.168.11.220", "fd00:11::220"
	// replicas is how many of them there are.
	replicas = 6
	farm     = "farm"
	// podPatience is when a request to pods has failed. Their node starts pods
	// meanwhile, on an emulated processor that has no time to spare: answers are
	// late then, and none may be missing.
	podPatience = 10 * time.Second
)

// pods runs what takes pods as real servers, on one Deployment whose pods are on
// the directors' segment.
func pods(t *testing.T, s *suite) {
	before := s.nodeState(t, other)
	s.create(t, servedByPods("pods", farm, podVIP, podVIP6))
	s.deploy(t, podFarm(farm))
	// Starting all at once keeps an emulated node from all else for a minute.
	for number := int32(1); number <= replicas; number++ {
		s.scale(t, number)
		s.awaitPods(t, "pods", number)
	}
	t.Run("undisturbed", func(t *testing.T) {
		s.parallel(t, map[string]func(*testing.T, *suite){
			"pods answer over IPv4 and IPv6, and not by way of the director":                       servesPods,
			"endpoints of a Service are real servers":                                              servesService,
			"a gate on a pod that nobody selects is open":                                          opensGate,
			"a routed pod of the director's own node is served, and one behind a gateway is named": namesGateway,
			"a pod is given back as it was found":                                                  givesPodBack,
			"a new sandbox of the same pod is prepared":                                            followsSandbox,
		})
	})
	for _, scenario := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"a second VIP on serving pods disturbs the first in nothing", addsVIP},
		{"a rolling restart loses nothing", rollsPods},
		{"a pod that is killed costs its own connections and no others", killsPod},
		{"pods scale to none and back", scalesPods},
		{"a pod in its node's network is served, and the node is given back as it was found", servesHostNetwork},
		{"the power of the pods' node is cut", cutsPodsPower},
		{"what is deleted leaves nothing on the nodes", func(t *testing.T, s *suite) { leavesNothing(t, s, before) }},
	} {
		if !t.Run(scenario.name, func(t *testing.T) { scenario.run(t, s) }) {
			s.explain(t)
			s.explainPods(t)
		}
	}
}

func servesPods(t *testing.T, s *suite) {
	s.awaitPods(t, "pods", replicas)
	const counted = `nft add table inet e2e; ` +
		`nft add chain inet e2e in '{ type filter hook prerouting priority -400; }'; ` +
		`nft add rule inet e2e in ip daddr ` + podVIP + ` tcp dport 80 counter comment there; ` +
		`nft add rule inet e2e in ip saddr ` + podVIP + ` tcp sport 80 counter comment back; ` +
		`nft add rule inet e2e in ip6 daddr ` + podVIP6 + ` tcp dport 80 counter comment there6; ` +
		`nft add rule inet e2e in ip6 saddr ` + podVIP6 + ` tcp sport 80 counter comment back6`
	s.run(t, lone, "sh", "-c", counted)
	t.Cleanup(func() { _, _ = s.lab.Output(context.Background(), lone, "nft", "delete", "table", "inet", "e2e") })
	for _, vip := range []string{podVIP + ":80", "[" + podVIP6 + "]:80"} {
		s.ask(t, vip, 10*replicas, replicas)
	}
	rules := s.run(t, lone, "nft", "list", "table", "inet", "e2e")
	for comment, passed := range map[string]bool{"there": true, "back": false, "there6": true, "back6": false} {
		for line := range strings.Lines(rules) {
			if strings.Contains(line, fmt.Sprintf("comment %q", comment)) && strings.Contains(line, "packets 0 ") == passed {
				t.Errorf("packets of kind %s passed the director: %t, want %t:\n%s", comment, !passed, passed, line)
			}
		}
	}
	if shown := s.get(t, "pods").Status.RealServers; len(shown) == 0 || !strings.HasPrefix(shown[0].Pod, farm+"-") {
		t.Errorf("status.realServers is %+v, want the pods' names in it", shown)
	}
}

func servesService(t *testing.T, s *suite) {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "farm"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": farm}, Ports: []corev1.ServicePort{{Name: "web", Port: 8080, TargetPort: intstr.FromInt32(80)}},
		},
	}
	if err := s.api.Create(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.api.Delete(context.Background(), service) })
	vs := servedByPods("by-service", farm, "192.168.11.222")
	vs.Spec.PodSelector, vs.Spec.ServiceName = nil, service.Name
	vs.Spec.Ports[0].Name = "web"
	s.create(t, vs)
	s.awaitPods(t, vs.Name, replicas)
	s.ask(t, "192.168.11.222:80", 2*replicas, replicas)
}

func addsVIP(t *testing.T, s *suite) {
	sum := s.load(t, podVIP, func() {
		s.create(t, servedByPods("second", farm, "192.168.11.221"))
		s.awaitPods(t, "second", replicas)
		s.ask(t, "192.168.11.221:80", replicas, replicas)
	})
	if sum.Failed > 0 {
		t.Errorf("%d of %d requests to the first VIP failed, want none: %v", sum.Failed, sum.Requests, sum.Errors)
	}
}

func opensGate(t *testing.T, s *suite) {
	s.deploy(t, podFarm("lonely"))
	pod := s.onePod(t, "lonely")
	if gate := gateOf(pod); gate == nil || gate.Reason != v1alpha1.ReasonNotSelected {
		t.Errorf("the gate of a pod that nobody selects is %+v, want reason %s", gate, v1alpha1.ReasonNotSelected)
	}
}

// namesGateway has one pod on the director's own node, and one on another node
// that routes to its pods.
func namesGateway(t *testing.T, s *suite) {
	const vip = "192.168.11.223"
	for name, node := range map[string]string{"routed-own": lone, "routed-far": spare} {
		s.deploy(t, deploy.Farm(name, node, 1))
	}
	vs := servedByPods("routed", "", vip)
	vs.Spec.PodSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"routed-own", "routed-far"}},
	}}
	s.create(t, vs)
	own, far := s.onePod(t, "routed-own"), s.onePod(t, "routed-far")
	await(t, 2*time.Minute, func() string {
		found := map[string]v1alpha1.RealServerStatus{}
		for _, server := range s.get(t, vs.Name).Status.RealServers {
			found[server.Pod] = server
		}
		if found[own.Name].State != v1alpha1.ObservedUp {
			return fmt.Sprintf("the pod of the director's own node is not Up: %+v", found)
		}
		reason := found[far.Name].Reason
		if !strings.Contains(reason, v1alpha1.ReasonNotAdjacent) || !strings.Contains(reason, far.Status.PodIP) ||
			!strings.Contains(reason, "gateway 10.99.0.22") {
			return fmt.Sprintf("the pod behind a gateway is shown as %+v, want %s with its address and the gateway's", found[far.Name], v1alpha1.ReasonNotAdjacent)
		}
		return ""
	})
	s.ask(t, vip+":80", 4, 1)
}

// givesPodBack selects a pod by a label, and no more.
func givesPodBack(t *testing.T, s *suite) {
	const vip = "192.168.11.224"
	const found = `ip -o address show; cd /proc/sys/net; grep -H . ipv4/conf/*/arp_ignore ipv4/conf/*/arp_announce ipv4/conf/*/rp_filter ipv4/conf/*/accept_local`
	s.deploy(t, podFarm("guest"))
	pod := s.onePod(t, "guest")
	before := s.inPod(t, pod, found)
	vs := servedByPods("visited", "", vip)
	vs.Spec.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"visit": "yes"}}
	vs.Spec.Drain.Timeout = new(duration(0))
	s.create(t, vs)
	s.patchPod(t, pod, `{"metadata":{"labels":{"visit":"yes"}}}`)
	s.awaitPods(t, vs.Name, 1)
	s.ask(t, vip+":80", 2, 1)
	if during := s.inPod(t, pod, found); !strings.Contains(during, vip+"/32") || !strings.Contains(during, "lo:0") {
		t.Errorf("the pod's addresses and settings are\n%s\nwant %s on lo:0", during, vip)
	}
	s.patchPod(t, pod, `{"metadata":{"labels":{"visit":null}}}`)
	await(t, 3*time.Minute, func() string {
		if after := s.inPod(t, pod, found); after != before {
			return "the pod is\n" + after + "\nand was\n" + before
		}
		return ""
	})
}

func rollsPods(t *testing.T, s *suite) {
	s.awaitPods(t, "pods", replicas)
	sum := s.load(t, podVIP, func() {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: farm}}
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"restarted":%q}}}}}`, time.Now().Format(time.RFC3339))
		if err := s.api.Patch(t.Context(), d, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		await(t, 8*time.Minute, func() string {
			if err := s.api.Get(t.Context(), client.ObjectKeyFromObject(d), d); err != nil {
				return err.Error()
			}
			if st := d.Status; st.ObservedGeneration == d.Generation && st.UpdatedReplicas == replicas &&
				st.AvailableReplicas == replicas && st.Replicas == replicas {
				return ""
			}
			return fmt.Sprintf("the Deployment is %+v", d.Status)
		})
		s.awaitPods(t, "pods", replicas)
	})
	if sum.Failed > 0 {
		t.Errorf("%d of %d requests failed, want none: %v", sum.Failed, sum.Requests, sum.Errors)
	}
}

// killsPod kills one of the processes that answer. Its pod's connections are
// lost, those too that are sent to it until it is taken out.
func killsPod(t *testing.T, s *suite) {
	s.awaitPods(t, "pods", replicas)
	open, err := load.Hold(t.Context(), load.Options{Address: podVIP + ":80", Dial: s.lab.DialFrom(cluster.Client, nextPort())}, 3*replicas)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	victim := s.farmPods(t)[0]
	process := s.processOf(t, &victim)
	sum := s.load(t, podVIP, func() {
		s.run(t, other, "kill", "-9", process)
		await(t, 2*time.Minute, func() string {
			for _, server := range s.get(t, "pods").Status.RealServers {
				if server.Pod == victim.Name && server.State != v1alpha1.ObservedUp {
					return ""
				}
			}
			return "the pod that was killed is still Up"
		})
	})
	if lost := len(open.Ask(10 * time.Second)); lost > 3 {
		t.Errorf("%d of %d open connections are lost, want at most the 3 of the pod that was killed", lost, 3*replicas)
	}
	// One in six new connections, for as long as three checks take.
	if most := sum.Requests / replicas; sum.Failed > most {
		t.Errorf("%d of %d requests failed, want at most the %d of one pod", sum.Failed, sum.Requests, most)
	}
	s.awaitPods(t, "pods", replicas)
}

func scalesPods(t *testing.T, s *suite) {
	s.scale(t, 0)
	s.awaitCondition(t, "pods", v1alpha1.ConditionReady, v1alpha1.ReasonNoRealServers)
	s.scale(t, replicas)
	s.awaitPods(t, "pods", replicas)
	s.ask(t, podVIP+":80", 2*replicas, replicas)
}

// cutsPodsPower cuts the power of the worker: its pods say nothing any more, and
// the API still says that they are Ready.
func cutsPodsPower(t *testing.T, s *suite) {
	began := time.Now()
	if err := s.lab.Kill(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	destinations := func() int { return strings.Count(s.run(t, lone, "ipvsadm", "-Ln", "-t", podVIP+":80"), "Route") }
	// An interval of 2 s, then three tries with a timeout of 3 s.
	const bound = 11 * time.Second
	await(t, 3*bound, func() string {
		if n := destinations(); n > 0 {
			return fmt.Sprintf("%d pods of the dead node still get connections", n)
		}
		return ""
	})
	t.Logf("all were taken out after %s, the check's bound is %s", time.Since(began).Round(100*time.Millisecond), bound)
	s.awaitCondition(t, "pods", v1alpha1.ConditionReady, v1alpha1.ReasonAllRealServersDown)
	if err := s.lab.Start(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	s.awaitPods(t, "pods", replicas)
	s.ask(t, podVIP+":80", 2*replicas, replicas)
}

// nodeState is all on a node that the operator could have changed: addresses,
// IPVS, nftables, sysctls and its records. Interfaces of pods come and go.
func (s *suite) nodeState(t *testing.T, node string) string {
	t.Helper()
	return s.run(t, node, "sh", "-c", "ip -o address show | grep -v veth | awk '{print $2, $4}'; ipvsadm -Sn; nft list tables | grep lvs; "+
		"ls /run/lvs-operator/agent/pods 2>/dev/null; cd /proc/sys/net/ipv4/conf; "+
		"for i in all default lo eth0; do grep -H . $i/arp_ignore $i/arp_announce $i/rp_filter $i/accept_local; done; true")
}

// leavesNothing deletes all that the scenarios have shared.
func leavesNothing(t *testing.T, s *suite, before string) {
	for _, object := range []client.Object{
		&v1alpha1.VirtualServer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pods"}},
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: farm}},
	} {
		if err := s.api.Delete(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	await(t, 4*time.Minute, func() string {
		if after := s.nodeState(t, other); after != before {
			return "the pods' node is\n" + after + "\nand was\n" + before
		}
		return ""
	})
	// The director goes on serving others' VIPs.
	await(t, 2*time.Minute, func() string {
		left := s.run(t, lone, "sh", "-c", "(ip -o address show; ipvsadm -Sn; nft list table inet lvs-operator) | grep -e "+podVIP+" -e "+podVIP6+"; true")
		if left != "" {
			return "the director's node still has\n" + left
		}
		return ""
	})
}
