package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

const (
	adminUser     = "lab-admin"
	managerUser   = "system:kube-controller-manager"
	schedulerUser = "system:kube-scheduler"
	proxyUser     = "system:kube-proxy"
)

// user is one of those that the API server knows by a token.
type user struct{ name, group string }

func nodeUser(node string) string { return "system:node:" + node }

func (l *Lab) users() []user {
	users := []user{
		{adminUser, "system:masters"}, {managerUser, ""}, {schedulerUser, ""}, {proxyUser, ""},
	}
	for _, node := range l.config.Nodes() {
		users = append(users, user{nodeUser(node.Name), "system:nodes"})
	}
	return users
}

// startAPI starts the API server and what it needs, and does not wait until it
// is ready. kube is the folder of Kubernetes' programs.
func (l *Lab) startAPI(ctx context.Context, kube string) (*credentials, error) {
	creds := &credentials{tokens: map[string]string{}}
	for _, user := range l.users() {
		creds.tokens[user.name] = rand.Text()
	}
	ca, err := l.writePKI(creds.tokens)
	if err != nil {
		return nil, err
	}
	creds.ca = ca.pem
	for _, p := range l.apiPrograms(kube) {
		if err := l.launch(p); err != nil {
			return nil, err
		}
	}
	return creds, l.startForwarder(ctx, creds)
}

// startControllers starts what uses the API server. They end if they come up
// before it has made the roles that it starts with, so it has to be ready.
func (l *Lab) startControllers(kube string, creds *credentials) error {
	for _, user := range []string{managerUser, schedulerUser} {
		if err := writeFile(l.path("pki", user+".kubeconfig"), creds.kubeconfig(user)); err != nil {
			return err
		}
	}
	for _, p := range l.controllerPrograms(kube) {
		if err := l.launch(p); err != nil {
			return err
		}
	}
	return nil
}

// credentials are what nodes and people use the API server with.
type credentials struct {
	ca     []byte
	tokens map[string]string
}

func (c *credentials) kubeconfig(user string) []byte {
	return kubeconfig("https://"+net.JoinHostPort(controlAddress, apiPort), c.tokens[user], c.ca)
}

// startForwarder opens the API server's port on the machine's loopback and
// writes the kubeconfig that says which it is.
func (l *Lab) startForwarder(ctx context.Context, creds *credentials) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("opening a port for the API server: %w", err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return fmt.Errorf("opening a port for the API server: %w", err)
	}
	defer socket.Close()
	err = l.launch(program{
		name: "forwarder", host: Control, files: []*os.File{socket},
		args: []string{l.path("bin", "forwarder"), net.JoinHostPort(controlAddress, apiPort)},
	})
	if err != nil {
		return err
	}
	return writeFile(l.Kubeconfig(), kubeconfig("https://"+listener.Addr().String(), creds.tokens[adminUser], creds.ca))
}

func (l *Lab) apiPrograms(kube string) []program {
	pki := func(name string) string { return l.path("pki", name) }
	return []program{
		{name: "etcd", host: Control, args: []string{
			filepath.Join(kube, "etcd"), "--data-dir=" + l.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=default=http://127.0.0.1:2380",
		}},
		{name: apiServer, host: Control, args: []string{
			filepath.Join(kube, "kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
			"--bind-address=0.0.0.0", "--secure-port=" + apiPort, "--advertise-address=" + controlAddress,
			"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--client-ca-file=" + pki("ca.crt"), "--token-auth-file=" + pki("tokens.csv"),
			"--kubelet-client-certificate=" + pki("kubelet-client.crt"), "--kubelet-client-key=" + pki("kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-signing-key-file=" + pki("service-accounts.key"),
			"--service-account-key-file=" + pki("service-accounts.key"),
			"--service-cluster-ip-range=" + serviceCIDR, "--allow-privileged=true",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--cert-dir=" + l.path("pki", "serving-apiserver"),
		}},
	}
}

func (l *Lab) controllerPrograms(kube string) []program {
	client := func(user string) []string {
		config := l.path("pki", user+".kubeconfig")
		return []string{
			"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
			"--leader-elect=false", "--cert-dir=" + l.path("pki", "serving-"+user),
		}
	}
	return []program{
		{name: "kube-controller-manager", host: Control, args: append([]string{
			filepath.Join(kube, "kube-controller-manager"), "--use-service-account-credentials=true",
			"--service-account-private-key-file=" + l.path("pki", "service-accounts.key"),
			"--root-ca-file=" + l.path("pki", "ca.crt"),
			// A power cut is seen after this time, instead of 50 s.
			"--node-monitor-grace-period=16s", "--node-monitor-period=2s",
		}, client(managerUser)...)},
		{name: "kube-scheduler", host: Control, args: append(
			[]string{filepath.Join(kube, "kube-scheduler")}, client(schedulerUser)...)},
	}
}
