package cluster

import (
	"fmt"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/node"
	"github.com/lvs-operator/lvs-operator/hack/lab/rootfs"
)

// pauseImage holds pods' namespaces; ResponderImage is a real server as a pod.
const (
	pauseImage = "lvs-lab.local/pause:1"
	// ResponderImage is on every node; it answers HTTP and datagrams on port 80
	// with the pod's name, see hack/lab/responder.
	ResponderImage = "lvs-lab.local/responder:1"
)

// containerdSocket is containerd's default, which ctr and the agents of the
// project use too.
const containerdSocket = "/run/containerd/containerd.sock"

// behindPods is the niceness of what starts pods. Pods have a share of the
// processor as a group, whatever their own niceness: without this those that answer
// stand still for seconds while another one is started.
const behindPods = 10

// AdminKubeconfig is where a bare node has a kubeconfig with all rights.
const AdminKubeconfig = "/etc/kubernetes/admin.kubeconfig"

// boot is what the agent of a node does.
func (l *Lab) boot(n Node) node.Boot {
	if l.config.Bare {
		return node.Boot{Hostname: n.Name, Setup: l.setup(n)}
	}
	return node.Boot{
		Hostname: n.Name,
		Setup:    l.setup(n),
		Services: []node.Service{
			{
				Name:  "containerd",
				Args:  []string{"containerd"},
				Nice:  behindPods,
				Ready: containerdSocket,
				Then:  [][]string{{"sh", "-c", "for i in " + node.ImagesDir + "/*.tar; do ctr -n k8s.io images import --local $i || exit; done"}},
			},
			{Name: "kubelet", Args: kubeletArgs(n), Nice: behindPods},
			{Name: "kube-proxy", Args: []string{
				"kube-proxy", "--kubeconfig=/etc/kubernetes/kube-proxy.kubeconfig", "--proxy-mode=iptables",
				"--cluster-cidr=" + clusterCIDR, "--hostname-override=" + n.Name,
			}},
		},
	}
}

func kubeletArgs(n Node) []string {
	args := []string{
		"kubelet", "--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
		"--hostname-override=" + n.Name, "--node-ip=" + n.Management.Addr().String(),
		"--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki", "--housekeeping-interval=1m",
	}
	if n.Director {
		args = append(args, "--node-labels="+DirectorLabel+"=true")
	}
	return args
}

func (l *Lab) setup(n Node) [][]string {
	commands := []string{
		// kube-proxy sets its limits at once, and ends if it can't.
		"modprobe nf_conntrack",
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0",
	}
	if n.Pods.onSegment() {
		commands = append(commands, segmentPodSettings()...)
	}
	commands = append(commands, n.segmentLinks()...)
	commands = append(commands,
		"ip address add "+n.Segment.String()+" dev "+n.segmentLink(),
		"ip address add "+n.Segment6.String()+" dev "+n.segmentLink()+" nodad",
		"ip address add "+n.Management.String()+" dev "+managementCard,
		"ip link set "+managementCard+" up",
		"ip route add default via "+controlAddress,
		"ip route add "+farNetwork+" via "+routerAddress,
		"ip route add "+farNetwork6+" via "+routerAddress6)
	for _, other := range l.config.Nodes() {
		if other.Name != n.Name && other.Pods == PodsRouted {
			commands = append(commands, fmt.Sprintf("ip route add %s via %s", other.PodCIDR, other.Management.Addr()))
		}
	}
	var setup [][]string
	for _, command := range commands {
		setup = append(setup, strings.Fields(command))
	}
	return setup
}

// overlay is the node's own files.
func (l *Lab) overlay(n Node, creds *credentials) (map[string][]byte, error) {
	if l.config.Bare {
		return map[string][]byte{
			"/etc/hosts":    []byte("127.0.0.1 localhost\n::1 localhost\n"),
			AdminKubeconfig: creds.kubeconfig(adminUser),
		}, nil
	}
	network, err := cniConfig(n, l.config.Nodes())
	if err != nil {
		return nil, fmt.Errorf("writing the pod network of %s: %w", n.Name, err)
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for _, other := range l.config.Nodes() {
		hosts += other.Management.Addr().String() + " " + other.Name + "\n"
	}
	return map[string][]byte{
		"/etc/hostname":                         []byte(n.Name + "\n"),
		"/etc/hosts":                            []byte(hosts),
		"/etc/machine-id":                       fmt.Appendf(nil, "%032x\n", n.Number),
		"/etc/containerd/config.toml":           []byte(containerdConfig),
		"/etc/cni/net.d/10-lab.conflist":        network,
		"/etc/kubernetes/ca.crt":                creds.ca,
		"/etc/kubernetes/kubelet.yaml":          []byte(kubeletConfig),
		"/etc/kubernetes/kubelet.kubeconfig":    creds.kubeconfig(nodeUser(n.Name)),
		"/etc/kubernetes/kube-proxy.kubeconfig": creds.kubeconfig(proxyUser),
	}, nil
}

// containerdConfig has statistics of containers collected seldom: nobody asks for
// them, and once a second, as is the default, they cost an emulated processor a
// tenth of its time.
const containerdConfig = `version = 3
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  stats_collect_period = 3600
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "` + pauseImage + `"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  stats_collect_period = "1h"
  stats_retention_period = "2h"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "` + rootfs.BinDir + `/runc"
  SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["` + rootfs.CNIDir + `"]
  conf_dir = "/etc/cni/net.d"
`

// kubeletConfig has short periods for the node's status and lease, to match
// the controller manager's short patience.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failSwapOn: false
enforceNodeAllocatable: ["none"]
containerRuntimeEndpoint: unix://` + containerdSocket + `
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /etc/kubernetes/ca.crt}
authorization: {mode: Webhook}
makeIPTablesUtilChains: false
resolvConf: ""
clusterDNS: []
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "50Mi"}
imageGCHighThresholdPercent: 100
volumeStatsAggPeriod: -1s
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 12
`
