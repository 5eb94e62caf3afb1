package podnetns_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/lvs-operator/lvs-operator/internal/podnetns"
)

// server is a container runtime that answers what it is told to.
type server struct {
	cri.UnimplementedRuntimeServiceServer
	socket string
	grpc   *grpc.Server

	mu        sync.Mutex
	name      string
	version   string
	sandboxes []*cri.PodSandboxStatusResponse
	asked     map[string]int
	hanging   map[string]bool                  // sandboxes that are not answered for
	events    chan *cri.ContainerEventResponse // nil ends the stream
	watched   chan struct{}
	noEvents  bool
}

// serve starts a runtime.
func serve(t *testing.T) *server {
	t.Helper()
	s := &server{
		socket: filepath.Join(t.TempDir(), "cri.sock"), name: "containerd", version: "v2.1.4",
		asked: map[string]int{}, hanging: map[string]bool{},
		events: make(chan *cri.ContainerEventResponse), watched: make(chan struct{}, 100),
	}
	s.listen(t)
	t.Cleanup(func() { s.grpc.Stop() })
	return s
}

func (s *server) listen(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	s.grpc = grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s.grpc, s)
	go func() { _ = s.grpc.Serve(listener) }()
}

func (s *server) client(t *testing.T, change ...func(*podnetns.Options)) *podnetns.Client {
	t.Helper()
	opts := podnetns.Options{Socket: s.socket, Timeout: 30 * time.Second}
	for _, c := range change {
		c(&opts)
	}
	client, err := podnetns.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (s *server) with(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &cri.VersionResponse{RuntimeName: s.name, RuntimeVersion: s.version}, nil
}

func (s *server) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &cri.ListPodSandboxResponse{}
	for _, each := range s.sandboxes {
		answer.Items = append(answer.Items, &cri.PodSandbox{
			Id: each.Status.Id, Metadata: each.Status.Metadata, State: each.Status.State, CreatedAt: each.Status.CreatedAt,
		})
	}
	return answer, nil
}

func (s *server) PodSandboxStatus(ctx context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	s.mu.Lock()
	s.asked[r.PodSandboxId]++
	hanging := s.hanging[r.PodSandboxId]
	var found *cri.PodSandboxStatusResponse
	for _, each := range s.sandboxes {
		if each.Status.Id == r.PodSandboxId {
			found = &cri.PodSandboxStatusResponse{Status: each.Status}
			if r.Verbose {
				found.Info = each.Info
			}
		}
	}
	s.mu.Unlock()
	if hanging {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "an error occurred when try to find sandbox: not found")
	}
	return found, nil
}

func (s *server) GetContainerEvents(_ *cri.GetEventsRequest, stream grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	s.watched <- struct{}{}
	s.mu.Lock()
	none := s.noEvents
	s.mu.Unlock()
	if none {
		return nil // as CRI-O does where pod events are off
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case event := <-s.events:
			if event == nil {
				return nil
			}
			if err := stream.Send(event); err != nil {
				return err
			}
		}
	}
}

// sandbox is one that is ready, of a pod, made at a second.
func sandbox(id, uid string, created int64, info string, ips ...string) *cri.PodSandboxStatusResponse {
	network := &cri.PodSandboxNetworkStatus{}
	for i, ip := range ips {
		if i == 0 {
			network.Ip = ip
		} else {
			network.AdditionalIps = append(network.AdditionalIps, &cri.PodIP{Ip: ip})
		}
	}
	return &cri.PodSandboxStatusResponse{
		Status: &cri.PodSandboxStatus{
			Id: id, State: cri.PodSandboxState_SANDBOX_READY, CreatedAt: created * int64(time.Second), Network: network,
			Metadata: &cri.PodSandboxMetadata{Name: "pod-" + uid, Namespace: "default", Uid: uid},
			Linux:    &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: &cri.NamespaceOption{}}},
		},
		Info: map[string]string{"info": info},
	}
}

func inHost(s *cri.PodSandboxStatusResponse) *cri.PodSandboxStatusResponse {
	s.Status.Linux.Namespaces.Options.Network = cri.NamespaceMode_NODE
	return s
}

// containerd is an info as containerd 2 gives it, shortened.
func containerd(netns string) string {
	return fmt.Sprintf(`{"pid":1914,"processStatus":"running","netNamespaceClosed":false,"image":"registry.k8s.io/pause:3.10",
"snapshotKey":"8f0c","snapshotter":"overlayfs","runtimeHandler":"","runtimeType":"io.containerd.runc.v2",
"runtimeOptions":{"systemd_cgroup":true},
"config":{"metadata":{"name":"web-0","uid":"a","namespace":"default"},"hostname":"web-0","dns_config":{"servers":["10.96.0.10"]},
"linux":{"cgroup_parent":"/kubepods.slice","security_context":{"namespace_options":{"pid":1}}}},
"runtimeSpec":{"ociVersion":"1.2.1","process":{"user":{"uid":65535,"gid":65535},"args":["/pause"],"cwd":"/"},
"root":{"path":"rootfs","readonly":true},"hostname":"web-0",
"linux":{"resources":{"cpu":{"shares":2}},"cgroupsPath":"kubepods.slice:cri-containerd:8f0c",
"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network","path":%q}],
"maskedPaths":["/proc/acpi"]}},
"cniResult":{"Interfaces":{"eth0":{"IPConfigs":[{"IP":"10.0.1.7","Gateway":"10.0.1.1"}]}}},"metadata":{"ID":"8f0c"}}`, netns)
}

// crio is an info as CRI-O gives it, shortened.
func crio(netns string) string {
	return fmt.Sprintf(`{"image":"registry.k8s.io/pause:3.10","pid":2211,
"runtimeSpec":{"ociVersion":"1.0.2-dev","process":{"user":{"uid":0,"gid":0},"args":["/pause"],"cwd":"/"},
"root":{"path":"/var/lib/containers/storage/overlay/5d/merged","readonly":true},"hostname":"web-1",
"annotations":{"io.kubernetes.cri-o.ContainerType":"sandbox"},
"linux":{"cgroupsPath":"kubepods.slice:crio:77aa","namespaces":[{"type":"pid"},{"type":"network","path":%q},
{"type":"ipc","path":"/var/run/ipcns/6c1f"},{"type":"uts","path":"/var/run/utsns/6c1f"},{"type":"mount"}]}}}`, netns)
}

// ofHost is the info of a sandbox without a network namespace.
const ofHost = `{"pid":77,"runtimeSpec":{"linux":{"namespaces":[{"type":"ipc"},{"type":"mount"}]}}}`

func everyone(string, string) bool { return true }
