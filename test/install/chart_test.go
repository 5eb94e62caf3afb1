//go:build install

package install

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// TestChartAndKustomizeInstallTheSame compares the two ways of installation,
// object by object.
func TestChartAndKustomizeInstallTheSame(t *testing.T) {
	want := kustomize(t, "config/default")
	// A chart is installed into a namespace that exists.
	delete(want, "Namespace/"+namespace)
	wantSame(t, want, chart(t))
}

// TestChartAndKustomizeUninstallTheSame compares the chart's hooks with the base
// that is applied by hand.
func TestChartAndKustomizeUninstallTheSame(t *testing.T) {
	got := hooks(t)
	for key, object := range got {
		annotations := object.GetAnnotations()
		if annotations["helm.sh/hook"] != "pre-delete" || annotations["helm.sh/hook-delete-policy"] != "before-hook-creation,hook-succeeded" {
			t.Errorf("%s has annotations %v", key, annotations)
		}
		if early := annotations["helm.sh/hook-weight"] == "-1"; early == (object.GetKind() == "Job") {
			t.Errorf("%s comes with the Job, want its rights before it", key)
		}
		object.SetAnnotations(nil)
	}
	wantSame(t, kustomize(t, "config/uninstall"), got)
}

// wantSame wants objects of a chart to be those of kustomize.
func wantSame(t *testing.T, want, got objects) {
	t.Helper()
	for _, object := range got {
		dropHelmLabels(object.Object)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Fatalf("the objects differ (-kustomize +chart):\n%s", diff)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if diff := cmp.Diff(want[key].Object, got[key].Object); diff != "" {
			t.Errorf("%s differs (-kustomize +chart):\n%s", key, diff)
		}
	}
}

// dropHelmLabels removes the labels that only a chart has. Pods carry none of
// them, or every new version of the chart would restart the directors.
func dropHelmLabels(object map[string]any) {
	metadata := object["metadata"].(map[string]any)
	labels, _ := metadata["labels"].(map[string]any)
	for _, name := range []string{
		"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart",
	} {
		delete(labels, name)
	}
	if len(labels) == 0 {
		delete(metadata, "labels")
	}
}

// TestTemplateIsDeterministic keeps GitOps tools from seeing a change at each
// look.
func TestTemplateIsDeterministic(t *testing.T) {
	arguments := []string{"--include-crds", "--set", "apiServer.host=192.168.11.10", "--set-json", `pool.allow=[{"addresses":["192.168.11.200"]}]`}
	first, err := template(t, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	second, err := template(t, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the chart rendered twice is not the same")
	}
}

func TestLint(t *testing.T) {
	if _, err := run(t, "HELM", "lint", "--strict", root+"/charts/lvs-operator"); err != nil {
		t.Error(err)
	}
}

// TestOldKubernetesIsRefused pins the floor: CEL's address functions and what
// the rules use besides are stable from there on.
func TestOldKubernetesIsRefused(t *testing.T) {
	if _, err := template(t, "--kube-version", "1.33.0"); err != nil {
		t.Errorf("1.33.0: %v", err)
	}
	if _, err := template(t, "--kube-version", "1.32.9"); err == nil || !strings.Contains(err.Error(), "kubeVersion") {
		t.Errorf("1.32.9: got %v, want a word on kubeVersion", err)
	}
}

func TestValuesAreChecked(t *testing.T) {
	cases := map[string]struct{ values, want string }{
		"a value that does not exist":          {`imagee={}`, "imagee"},
		"a value of a part that does not":      {`director.replicas=2`, "replicas"},
		"a port that is none":                  {`director.metricsPort=70000`, "metricsPort"},
		"a port as text":                       {`director.healthPort="7958"`, "healthPort"},
		"a pull policy that does not exist":    {`image.pullPolicy="Sometimes"`, "pullPolicy"},
		"no image":                             {`image.repository=""`, "repository"},
		"no memory limit":                      {`director.resources.limits={"memory":null}`, "memory"},
		"a CPU limit":                          {`director.resources.limits.cpu="1"`, "limits"},
		"a log level that does not exist":      {`director.logLevel="loud"`, "logLevel"},
		"an agent's socket that is no path":    {`realServer.criSocket="containerd.sock"`, "criSocket"},
		"an agent's value that does not exist": {`realServer.interface="eth0"`, "interface"},
		"an agent without a memory limit":      {`realServer.resources.limits={"memory":null}`, "memory"},
		"a node label that is no text":         {`director.nodeSelector={"a":true}`, "nodeSelector"},
		"a pod label that the selector needs":  {`director.podLabels={"app.kubernetes.io/name":"x"}`, "podLabels"},
		"an effect that does not exist":        {`director.tolerations=[{"effect":"Never"}]`, "tolerations"},
		"an API server with a scheme":          {`apiServer.host="https://192.168.11.10"`, "apiServer"},
		"a timeout without a unit":             {`uninstall.timeout="300"`, "uninstall"},
		"a pool name with a dot":               {`pool.name="a.b"`, "pool"},
		"a priority that is none":              {`pool.election={"priorities":[{"nodeSelector":{},"priority":"high"}]}`, "priority"},
		"a gossip port that is privileged":     {`pool.gossip={"port":80}`, "port"},
		"a single rule instead of a list":      {`pool.allow={"addresses":["192.168.11.200"]}`, "allow"},
		"an address to allow that is a name":   {`pool.allow=[{"addresses":["web"]}]`, "allow"},
		"a part of a rule that does not exist": {`pool.allow=[{"address":"192.168.11.200"}]`, "allow"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, "--set-json", tc.values)
			if err == nil {
				t.Fatalf("%s was accepted", tc.values)
			}
			if !strings.Contains(err.Error(), "schema") || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want the schema to name %s", tc.values, err, tc.want)
			}
		})
	}
}

// TestValuesArriveWhereTheyShould sets every value that a user may set.
func TestValuesArriveWhereTheyShould(t *testing.T) {
	got := chart(t,
		"--set", "image.repository=example/director,image.tag=v1,image.pullPolicy=Always",
		"--set-json", `imagePullSecrets=[{"name":"pull"}]`,
		"--set-json", `director.nodeSelector={"lvs-operator.io/director":null,"role":"edge"}`,
		"--set-json", `director.tolerations=[{"key":"edge","operator":"Exists"}]`,
		"--set", "director.metricsPort=1001,director.healthPort=1002,director.logLevel=debug,director.kubeProxyExcludesVIPs=true",
		"--set-json", `director.resources={"requests":{"cpu":"1"},"limits":{"memory":"1Gi"}}`,
		"--set-json", `director.podAnnotations={"a":"b"}`, "--set-json", `director.podLabels={"c":"d"}`,
		"--set", "apiServer.host=192.168.11.10,apiServer.port=8443",
	)
	pods := typed[appsv1.DaemonSet](t, got, "DaemonSet/lvs-operator-director").Spec.Template
	director := pods.Spec.Containers[0]

	want := map[string]string{
		"image":         "example/director:v1 Always",
		"pull secrets":  "[{pull}]",
		"node selector": "map[role:edge]",
		"tolerations":   "edge Exists",
		"ports":         "1001 1002",
		"memory":        "1Gi",
		"annotations":   "map[a:b]",
		"label":         "d",
		"API server":    "192.168.11.10:8443",
	}
	found := map[string]string{
		"image":         fmt.Sprint(director.Image, " ", director.ImagePullPolicy),
		"pull secrets":  fmt.Sprint(pods.Spec.ImagePullSecrets),
		"node selector": fmt.Sprint(pods.Spec.NodeSelector),
		"tolerations":   fmt.Sprint(pods.Spec.Tolerations[0].Key, " ", pods.Spec.Tolerations[0].Operator),
		"ports":         fmt.Sprint(director.Ports[0].ContainerPort, " ", director.Ports[1].ContainerPort),
		"memory":        director.Resources.Limits.Memory().String(),
		"annotations":   fmt.Sprint(pods.Annotations),
		"label":         pods.Labels["c"],
		"API server":    variable(director, "KUBERNETES_SERVICE_HOST") + ":" + variable(director, "KUBERNETES_SERVICE_PORT"),
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("values differ (-want +got):\n%s", diff)
	}
	for _, argument := range []string{
		"--metrics-bind-address=[$(HOST_IP)]:1001", "--health-bind-address=127.0.0.1:1002", "--log-level=debug", "--kube-proxy-excludes-vips",
	} {
		if !slices.Contains(director.Args, argument) {
			t.Errorf("arguments %q lack %s", director.Args, argument)
		}
	}
}

// TestValuesOfTheAgentArriveWhereTheyShould sets every value of it that a user may
// set.
func TestValuesOfTheAgentArriveWhereTheyShould(t *testing.T) {
	got := chart(t,
		"--set", "image.repository=example/director,image.tag=v1,image.pullPolicy=Always",
		"--set-json", `imagePullSecrets=[{"name":"pull"}]`,
		"--set-json", `realServer.nodeSelector={"kubernetes.io/os":null,"role":"web"}`,
		"--set-json", `realServer.tolerations=[{"key":"web","operator":"Exists"}]`,
		"--set", "realServer.metricsPort=1001,realServer.healthPort=1002,realServer.logLevel=debug",
		"--set", "realServer.criSocket=/run/k3s/containerd/containerd.sock",
		"--set-json", `realServer.resources={"requests":{"cpu":"1"},"limits":{"memory":"1Gi"}}`,
		"--set-json", `realServer.podAnnotations={"a":"b"}`, "--set-json", `realServer.podLabels={"c":"d"}`,
		"--set", "apiServer.host=192.168.11.10,apiServer.port=8443",
	)
	pods := typed[appsv1.DaemonSet](t, got, "DaemonSet/lvs-operator-realserver").Spec.Template
	agent := pods.Spec.Containers[0]
	want := map[string]string{
		"image":         "example/director:v1 Always",
		"pull secrets":  "[{pull}]",
		"node selector": "map[role:web]",
		"tolerations":   "web Exists",
		"ports":         "1001 1002",
		"memory":        "1Gi",
		"annotations":   "map[a:b]",
		"label":         "d",
		"API server":    "192.168.11.10:8443",
		"mounts": "[/host/proc/sys/net from /proc/sys/net (Directory) /run/k3s/containerd from /run/k3s/containerd (Directory), read-only " +
			"/run/lvs-operator/agent from /run/lvs-operator/agent (DirectoryOrCreate) " +
			"/run/netns from /run/netns (DirectoryOrCreate), read-only, HostToContainer]",
	}
	found := map[string]string{
		"image":         fmt.Sprint(agent.Image, " ", agent.ImagePullPolicy),
		"pull secrets":  fmt.Sprint(pods.Spec.ImagePullSecrets),
		"node selector": fmt.Sprint(pods.Spec.NodeSelector),
		"tolerations":   fmt.Sprint(pods.Spec.Tolerations[0].Key, " ", pods.Spec.Tolerations[0].Operator),
		"ports":         fmt.Sprint(agent.Ports[0].ContainerPort, " ", agent.Ports[1].ContainerPort),
		"memory":        agent.Resources.Limits.Memory().String(),
		"annotations":   fmt.Sprint(pods.Annotations),
		"label":         pods.Labels["c"],
		"API server":    variable(agent, "KUBERNETES_SERVICE_HOST") + ":" + variable(agent, "KUBERNETES_SERVICE_PORT"),
		"mounts":        fmt.Sprint(mounts(pods.Spec)),
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("values differ (-want +got):\n%s", diff)
	}
	for _, argument := range []string{
		"--metrics-bind-address=[$(HOST_IP)]:1001", "--health-bind-address=127.0.0.1:1002", "--log-level=debug",
		"--cri-socket=/run/k3s/containerd/containerd.sock",
	} {
		if !slices.Contains(agent.Args, argument) {
			t.Errorf("arguments %q lack %s", agent.Args, argument)
		}
	}
}

// TestAgentsCanBeLeftOut shows that nothing of them is there then.
func TestAgentsCanBeLeftOut(t *testing.T) {
	for key := range chart(t, "--set", "realServer.enabled=false") {
		if strings.HasSuffix(key, "realserver") {
			t.Errorf("there is %s", key)
		}
	}
}

func variable(container corev1.Container, name string) string {
	for _, variable := range container.Env {
		if variable.Name == name {
			return variable.Value
		}
	}
	return ""
}

// TestPoolNeedsAllow shows that a DirectorPool is made only by somebody who
// says what it may serve.
func TestPoolNeedsAllow(t *testing.T) {
	if got := chart(t)["DirectorPool/default"]; got != nil {
		t.Errorf("without pool.allow there is a pool: %v", got)
	}

	rendered := chart(t, "--set", "pool.interface=eth1",
		"--set-json", `pool.election={"leaseDuration":"5s","priorities":[{"nodeSelector":{"matchLabels":{"site":"a"}},"priority":100}],"preemption":{"policy":"Never"}}`,
		"--set-json", `pool.connectionSync={"mode":"Enabled","syncID":0,"interface":{"name":"eth2"},"port":9000,"group":"224.0.0.82"}`,
		"--set", "pool.gossip.port=7999,pool.gossip.probeInterval=200ms",
		"--set-json", `pool.allow=[{"addresses":["192.168.11.200"],"realServers":["192.168.11.0/24"],"namespaceSelector":{"matchLabels":{"a":"b"}}}]`)
	got := typed[v1alpha1.DirectorPool](t, rendered, "DirectorPool/default").Spec
	if got.NodeSelector.MatchLabels["lvs-operator.io/director"] != "true" || got.Interface == nil || got.Interface.Name != "eth1" {
		t.Errorf("got %+v, want the directors' nodes and eth1", got)
	}
	rule := got.Allow[0]
	if rule.Addresses[0] != "192.168.11.200" || rule.RealServers[0] != "192.168.11.0/24" || rule.NamespaceSelector.MatchLabels["a"] != "b" {
		t.Errorf("got %+v, want the values' rule", rule)
	}
	if got.Gossip.Port != 7999 || got.Gossip.ProbeInterval.Duration != 200*time.Millisecond {
		t.Errorf("got %+v, want the values' gossip", got.Gossip)
	}
	election := got.Election
	if election.LeaseDuration.Duration != 5*time.Second || election.Preemption.Policy != v1alpha1.PreemptNever ||
		len(election.Priorities) != 1 || *election.Priorities[0].Priority != 100 {
		t.Errorf("got %+v, want the values' election", election)
	}
	sync := got.ConnectionSync
	if sync.SyncID == nil || *sync.SyncID != 0 || sync.Interface == nil || sync.Interface.Name != "eth2" || sync.Port != 9000 || sync.Group != "224.0.0.82" {
		t.Errorf("got %+v, want the values' connectionSync", sync)
	}
}

// TestNamesFollowTheRelease keeps two releases apart.
func TestNamesFollowTheRelease(t *testing.T) {
	text, err := run(t, "HELM", "template", "edge", root+"/charts/lvs-operator", "--namespace", "other")
	if err != nil {
		t.Fatal(err)
	}
	for key, object := range decode(t, text) {
		if name := object.GetName(); !slices.Contains([]string{"edge-lvs-operator-director", "edge-lvs-operator-realserver", "edge-lvs-operator-uninstall"}, name) {
			t.Errorf("%s: want the name edge-lvs-operator-director, -realserver or -uninstall", key)
		}
		isGlobal := strings.HasPrefix(object.GetKind(), "Cluster") || object.GetKind() == "FlowSchema"
		if isGlobal != (object.GetNamespace() == "") {
			t.Errorf("%s is in namespace %q", key, object.GetNamespace())
		}
	}
}

// TestArgumentsAreFlags reads the programs' source: an argument that one of them
// does not know would keep every pod from starting.
func TestArgumentsAreFlags(t *testing.T) {
	rendered := chart(t, "--set", "director.kubeProxyExcludesVIPs=true,realServer.criSocket=/run/a/b.sock")
	for name, folder := range map[string]string{"director": "cmd/director", "realserver": "cmd/realserver/agent"} {
		var source strings.Builder
		for _, text := range contents(t, root+"/"+folder+"/*.go") {
			source.WriteString(text)
		}
		set := typed[appsv1.DaemonSet](t, rendered, "DaemonSet/lvs-operator-"+name)
		for _, argument := range set.Spec.Template.Spec.Containers[0].Args {
			flag, isFlag := strings.CutPrefix(argument, "--")
			flag, _, _ = strings.Cut(flag, "=")
			if isFlag && !strings.Contains(source.String(), fmt.Sprintf(", %q, ", flag)) {
				t.Errorf("%s has no flag for %s", folder, argument)
			}
		}
	}
}

// TestUninstallation shows what the Job may do and what it is told.
func TestUninstallation(t *testing.T) {
	got := hooks(t, "--set", "image.repository=example/director,image.tag=v1,image.pullPolicy=Always,uninstall.timeout=10m",
		"--set-json", `imagePullSecrets=[{"name":"pull"}]`, "--set-json", `director.tolerations=[{"key":"edge","operator":"Exists"}]`,
		"--set", "apiServer.host=192.168.11.10,apiServer.port=8443")
	pod := typed[batchv1.Job](t, got, "Job/lvs-operator-uninstall").Spec.Template.Spec
	job := pod.Containers[0]
	want := []string{"uninstall", "--namespace=$(NAMESPACE)", "--daemonset=lvs-operator-director", "--timeout=10m"}
	if diff := cmp.Diff(want, job.Args); diff != "" {
		t.Errorf("arguments differ (-want +got):\n%s", diff)
	}
	found := fmt.Sprint(job.Image, " ", job.ImagePullPolicy, " ", pod.ImagePullSecrets, " ", pod.Tolerations[0].Key, " ",
		variable(job, "KUBERNETES_SERVICE_HOST"), ":", variable(job, "KUBERNETES_SERVICE_PORT"))
	if want := "example/director:v1 Always [{pull}] edge 192.168.11.10:8443"; found != want {
		t.Errorf("the Job has %s, want %s", found, want)
	}
	yes, no := true, false
	wantContext := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	if diff := cmp.Diff(wantContext, job.SecurityContext); diff != "" || !*pod.SecurityContext.RunAsNonRoot || len(pod.Volumes) != 0 {
		t.Errorf("it may do more than talk to the API server (-want +got):\n%s", diff)
	}
	var source strings.Builder
	for _, text := range contents(t, root+"/cmd/director/*.go") {
		source.WriteString(text)
	}
	for _, argument := range job.Args[1:] {
		flag, _, _ := strings.Cut(strings.TrimPrefix(argument, "--"), "=")
		if !strings.Contains(source.String(), fmt.Sprintf(", %q, ", flag)) {
			t.Errorf("cmd/director has no flag for %s", argument)
		}
	}
}

// TestLeasesHavePriority shows that the FlowSchema is about the Leases of these
// very directors.
func TestLeasesHavePriority(t *testing.T) {
	schema := typed[flowcontrolv1.FlowSchema](t, kustomize(t, "config/default"), "FlowSchema/lvs-operator-director").Spec
	account := schema.Rules[0].Subjects[0].ServiceAccount
	if schema.PriorityLevelConfiguration.Name != "leader-election" || account.Name != "lvs-operator-director" || account.Namespace != namespace {
		t.Errorf("got %+v, want the directors of %s on leader-election", schema, namespace)
	}
	if got := schema.Rules[0].ResourceRules[0].Namespaces; len(got) != 1 || got[0] != namespace {
		t.Errorf("it is about Leases in %q, want %s", got, namespace)
	}
}
