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
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

const (
	// podVIP and podVIP6 are served by the pods that scenarios share.
	podVIP, podVIP6 = "192.168.11.220", "fd00:11::220"
	// replicas is how many of them there are.
	replicas = 6
	farm     = "farm"
)

// pods runs what takes pods as real servers, on one Deployment whose pods are on
// the directors' segment.
func pods(t *testing.T, s *suite) {
	s.create(t, servedByPods("pods", farm, podVIP, podVIP6))
	s.deploy(t, podFarm(farm, 1))
	// Starting all at once keeps an emulated node from all else for a minute.
	for number := int32(1); number <= replicas; number++ {
		s.scale(t, number)
		s.awaitPods(t, "pods", number)
	}
	for _, scenario := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"pods answer over IPv4 and IPv6, and not by way of the director", servesPods},
		{"endpoints of a Service are real servers", servesService},
		{"a second VIP on serving pods disturbs the first in nothing", addsVIP},
		{"a gate on a pod that nobody selects is open", opensGate},
		{"a routed pod of the director's own node is served, and one behind a gateway is named", namesGateway},
		{"a pod is given back as it was found", givesPodBack},
		{"a rolling restart loses nothing", rollsPods},
		{"a pod that is killed costs its own connections and no others", killsPod},
		{"pods scale to none and back", scalesPods},
		{"the power of the pods' node is cut", cutsPodsPower},
	} {
		if !t.Run(scenario.name, func(t *testing.T) { scenario.run(t, s) }) {
			s.explain(t)
			s.explainPods(t)
		}
	}
}

// podFarm is a Deployment of the lab's responder on the worker, with the gate.
func podFarm(name string, number int32, changes ...func(*corev1.PodTemplateSpec)) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{corev1.LabelHostname: other},
			TerminationGracePeriodSeconds: new(int64(20)),
			ReadinessGates:                []corev1.PodReadinessGate{{ConditionType: v1alpha1.PodConditionRealServerReady}},
			Containers: []corev1.Container{{
				Name: "responder", Image: cluster.ResponderImage, ImagePullPolicy: corev1.PullIfNotPresent,
				// Until every director knows that the pod leaves.
				Args: []string{"--grace=5s"},
				// Often until it is there, and seldom then: each takes the node some of
				// its processors' time.
				StartupProbe:   probe(1, 60),
				ReadinessProbe: probe(10, 3),
			}},
		},
	}
	for _, change := range changes {
		change(&template)
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(number),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: template,
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxUnavailable: new(intstr.FromInt32(0)), MaxSurge: new(intstr.FromInt32(1)),
			}},
		},
	}
}

func probe(seconds, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(80)}},
		PeriodSeconds: seconds, TimeoutSeconds: 5, FailureThreshold: failures,
	}
}

// deploy creates a Deployment, and deletes it at the end of the test.
func (s *suite) deploy(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	if err := s.api.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.api.Delete(context.Background(), d) })
}

// servedByPods is a VirtualServer of the pods of a Deployment.
func servedByPods(name, app string, vips ...string) *v1alpha1.VirtualServer {
	vs := web(name, vips[0], func(spec *v1alpha1.VirtualServerSpec) {
		spec.RealServers = nil
		spec.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		spec.Scheduler = v1alpha1.SchedulerRoundRobin
		spec.Drain = &v1alpha1.Drain{Timeout: new(duration(10 * time.Second))}
		spec.HealthChecks[0].Interval = duration(2 * time.Second)
	})
	for _, vip := range vips[1:] {
		vs.Spec.Addresses = append(vs.Spec.Addresses, v1alpha1.IPAddress(vip))
	}
	return vs
}

// awaitPods waits until so many pods get the connections of a VirtualServer, and
// no others are left.
func (s *suite) awaitPods(t *testing.T, name string, want int32) {
	t.Helper()
	await(t, 5*time.Minute, func() string {
		vs := s.get(t, name)
		counts := vs.Status.RealServerCounts
		if counts != nil && counts.Ready == want && counts.Total == want {
			return ""
		}
		return fmt.Sprintf("want %d pods of %s to be ready: %+v, %+v", want, name, counts, vs.Status.RealServers)
	})
}

// ask asks a VIP so often, and wants that so many servers share the answers
// evenly.
func (s *suite) ask(t *testing.T, vip string, number, servers int) {
	t.Helper()
	sum := (&load.Asker{Address: vip, Network: "tcp", Dial: s.lab.Dial(cluster.Client)}).Ask(t.Context(), number)
	if sum.Failed > 0 || len(sum.PerServer) != servers {
		t.Errorf("%d requests to %s: %+v, want %d servers and none failed", number, vip, sum, servers)
	}
	for server, answers := range sum.PerServer {
		if answers != number/servers {
			t.Errorf("%s answered %d of %d requests to %s, want %d", server, answers, number, vip, number/servers)
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

// load runs something while a client opens 50 connections a second to a VIP, and
// a little longer, and returns what the client saw.
func (s *suite) load(t *testing.T, vip string, happens func()) load.Summary {
	t.Helper()
	stop := s.traffic(t, cluster.Client, "tcp", vip, 50)
	pause(t, 2*time.Second)
	happens()
	pause(t, 3*time.Second)
	sum := stop()
	t.Logf("%d requests, %d failed, outage %s, %v %v", sum.Requests, sum.Failed, sum.Outage, sum.PerServer, sum.Errors)
	if sum.Requests == 0 {
		t.Error("nothing was asked, so nothing is shown")
	}
	return sum
}

// gateOf is the gate's condition of a pod.
func gateOf(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == v1alpha1.PodConditionRealServerReady {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func opensGate(t *testing.T, s *suite) {
	s.deploy(t, podFarm("lonely", 1))
	pod := s.onePod(t, "lonely")
	if gate := gateOf(pod); gate == nil || gate.Reason != v1alpha1.ReasonNotSelected {
		t.Errorf("the gate of a pod that nobody selects is %+v, want reason %s", gate, v1alpha1.ReasonNotSelected)
	}
}

// onePod waits until the one pod of a Deployment is Ready.
func (s *suite) onePod(t *testing.T, app string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	await(t, 2*time.Minute, func() string {
		var pods corev1.PodList
		if err := s.api.List(t.Context(), &pods, client.InNamespace("default"), client.MatchingLabels{"app": app}); err != nil {
			return err.Error()
		}
		if len(pods.Items) != 1 {
			return fmt.Sprintf("%d pods of %s, want one", len(pods.Items), app)
		}
		pod = &pods.Items[0]
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return ""
			}
		}
		return fmt.Sprintf("the pod of %s is not Ready: %+v", app, pod.Status.Conditions)
	})
	return pod
}

// namesGateway has one pod on the director's own node, and one on another node
// that routes to its pods.
func namesGateway(t *testing.T, s *suite) {
	const vip = "192.168.11.223"
	for name, node := range map[string]string{"routed-own": lone, "routed-far": spare} {
		s.deploy(t, podFarm(name, 1, func(template *corev1.PodTemplateSpec) {
			template.Spec.NodeSelector[corev1.LabelHostname] = node
		}))
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

// inPod runs a command in the network namespace of a pod, from its node.
func (s *suite) inPod(t *testing.T, pod *corev1.Pod, command string) string {
	t.Helper()
	return s.run(t, pod.Spec.NodeName, "sh", "-c", "nsenter -t "+s.processOf(t, pod)+" -n sh -c '"+command+"'")
}

// processOf is the process id of a responder's pod on its node.
func (s *suite) processOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	const find = `for p in $(pidof responder); do nsenter -t $p -n ip -o -4 address show | grep -q " %s/" && echo $p; done; true`
	process := strings.TrimSpace(s.run(t, pod.Spec.NodeName, "sh", "-c", fmt.Sprintf(find, pod.Status.PodIP)))
	if process == "" || strings.ContainsAny(process, " \n") {
		t.Fatalf("the processes with address %s on %s are %q, want one", pod.Status.PodIP, pod.Spec.NodeName, process)
	}
	return process
}

// givesPodBack selects a pod by a label, and no more.
func givesPodBack(t *testing.T, s *suite) {
	const vip = "192.168.11.224"
	const found = `ip -o address show; cd /proc/sys/net; grep -H . ipv4/conf/*/arp_ignore ipv4/conf/*/arp_announce ipv4/conf/*/rp_filter ipv4/conf/*/accept_local`
	s.deploy(t, podFarm("guest", 1))
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

func (s *suite) patchPod(t *testing.T, pod *corev1.Pod, patch string) {
	t.Helper()
	if err := s.api.Patch(t.Context(), pod.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
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

func (s *suite) farmPods(t *testing.T) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := s.api.List(t.Context(), &list, client.InNamespace("default"), client.MatchingLabels{"app": farm}); err != nil {
		t.Fatal(err)
	}
	return list.Items
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

// scale sets how many pods there are.
func (s *suite) scale(t *testing.T, to int32) {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: farm}}
	if err := s.api.Patch(t.Context(), d, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, to))); err != nil {
		t.Fatal(err)
	}
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

// explainPods prints what helps to understand a failure with pods.
func (s *suite) explainPods(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	var nodes v1alpha1.RealServerNodeList
	if err := s.api.List(ctx, &nodes); err == nil {
		for _, node := range nodes.Items {
			t.Logf("RealServerNode %s: %+v", node.Name, node.Status)
		}
	}
	var pods corev1.PodList
	if err := s.api.List(ctx, &pods, client.InNamespace("default")); err == nil {
		for _, pod := range pods.Items {
			conditions := map[corev1.PodConditionType]corev1.ConditionStatus{}
			for _, c := range pod.Status.Conditions {
				conditions[c.Type] = c.Status
			}
			t.Logf("pod %s on %s, %s, being deleted: %t, %v", pod.Name, pod.Spec.NodeName, pod.Status.PodIP,
				!pod.DeletionTimestamp.IsZero(), conditions)
		}
	}
	var servers v1alpha1.VirtualServerList
	if err := s.api.List(ctx, &servers); err == nil {
		for _, vs := range servers.Items {
			t.Logf("VirtualServer %s: %s, %+v", vs.Name, meta.FindStatusCondition(vs.Status.Conditions, v1alpha1.ConditionReady).Reason, vs.Status.RealServers)
		}
	}
	out, err := s.lab.Output(ctx, other, "sh", "-c", "tail -n 40 $(ls -t /var/log/pods/*/realserver/*.log | head -1); ip -br address; uptime")
	t.Logf("%s: %s (%v)", other, out, err)
}
