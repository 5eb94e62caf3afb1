package podnetns_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/lvs-operator/lvs-operator/internal/podnetns"
)

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func list(t *testing.T, c *podnetns.Client, wanted func(string, string) bool) []podnetns.Sandbox {
	t.Helper()
	got, err := c.Sandboxes(t.Context(), wanted)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBothRuntimesNameTheNetworkNamespace(t *testing.T) {
	s := serve(t)
	s.sandboxes = []*cri.PodSandboxStatusResponse{
		sandbox("8f0c", "a", 1, containerd("/var/run/netns/cni-1f2e"), "10.0.1.7", "fd00:1::7"),
		sandbox("77aa", "b", 2, crio("/var/run/netns/6c1f-22"), "10.0.1.8"),
		inHost(sandbox("90bb", "c", 3, ofHost)),
		sandbox("90bc", "d", 3, ofHost, "192.0.2.1"),
		sandbox("90bd", "e", 3, containerd("/proc/1914/ns/net"), "10.0.1.9"),
	}
	c := s.client(t, func(o *podnetns.Options) { o.NetNS, o.Proc = "/host/netns", "/host/proc" })
	sandboxOf := func(id, uid string, second int64) podnetns.Sandbox {
		return podnetns.Sandbox{
			ID: id, PodUID: uid, Namespace: "default", Name: "pod-" + uid, Created: time.Unix(second, 0), Ready: true,
		}
	}
	want := []podnetns.Sandbox{
		sandboxOf("8f0c", "a", 1), sandboxOf("77aa", "b", 2), sandboxOf("90bb", "c", 3), sandboxOf("90bc", "d", 3), sandboxOf("90bd", "e", 3),
	}
	want[0].NetNS, want[0].Addresses = "/host/netns/cni-1f2e", addrs("10.0.1.7", "fd00:1::7")
	want[1].NetNS, want[1].Addresses = "/host/netns/6c1f-22", addrs("10.0.1.8")
	want[2].HostNetwork = true
	want[3].HostNetwork, want[3].Addresses = true, addrs("192.0.2.1")
	want[4].NetNS, want[4].Addresses = "/host/proc/1914/ns/net", addrs("10.0.1.9")
	if diff := cmp.Diff(want, list(t, c, everyone), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("sandboxes (-want +got):\n%s", diff)
	}
}

func TestASandboxThatCantBeEnteredHurtsNoOther(t *testing.T) {
	tests := map[string]struct {
		bad  *cri.PodSandboxStatusResponse
		want string
	}{
		"no info":               {sandbox("bad", "a", 1, "", "10.0.1.7"), "reading the sandbox's info"},
		"no configuration":      {sandbox("bad", "a", 1, `{"pid":7}`, "10.0.1.7"), "no runtimeSpec"},
		"a foreign path":        {sandbox("bad", "a", 1, crio("/etc/passwd"), "10.0.1.7"), `"/etc/passwd" is at no place`},
		"a path that leads out": {sandbox("bad", "a", 1, crio("/run/netns/../../etc/x"), "10.0.1.7"), "at no place"},
		"a process, without the host's /proc": {
			sandbox("bad", "a", 1, crio("/proc/1/ns/net"), "10.0.1.7"), "/proc only",
		},
		"no address":  {sandbox("bad", "a", 1, crio("/run/netns/x")), "no address yet"},
		"bad address": {sandbox("bad", "a", 1, crio("/run/netns/x"), "10.0.1"), `"10.0.1" is none`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.sandboxes = []*cri.PodSandboxStatusResponse{tc.bad, sandbox("good", "b", 1, crio("/run/netns/y"), "10.0.1.8")}
			got := list(t, s.client(t), everyone)
			if got[0].Err == nil || !strings.Contains(got[0].Err.Error(), tc.want) || !strings.Contains(got[0].Err.Error(), s.socket) {
				t.Errorf("its error is %v, want %q and the socket", got[0].Err, tc.want)
			}
			if got[0].NetNS != "" || got[0].HostNetwork {
				t.Errorf("it has a network all the same: %+v", got[0])
			}
			if got[1].Err != nil || got[1].NetNS != "/run/netns/y" {
				t.Errorf("the other one is %+v", got[1])
			}
		})
	}
}

func TestOnlySandboxesOfWantedPodsAreAskedForAndEachOnce(t *testing.T) {
	s := serve(t)
	gone := sandbox("gone", "d", 1, crio("/run/netns/z"), "10.0.1.9")
	gone.Status.State = cri.PodSandboxState_SANDBOX_NOTREADY
	s.sandboxes = []*cri.PodSandboxStatusResponse{
		sandbox("s1", "a", 1, crio("/run/netns/x"), "10.0.1.7"), sandbox("s2", "b", 1, crio("/run/netns/y"), "10.0.1.8"),
		sandbox("s3", "c", 1, crio("/run/netns/v"), "10.0.1.6"), gone,
	}
	c := s.client(t)
	wanted := func(uid, id string) bool { return uid == "a" || id == "s3" || id == "gone" }
	for range 3 {
		got := list(t, c, wanted)
		if len(got) != 4 || got[0].NetNS == "" || got[1].NetNS != "" || got[2].NetNS == "" || got[3].Ready {
			t.Errorf("sandboxes are %+v", got)
		}
	}
	s.with(func() {
		if diff := cmp.Diff(map[string]int{"s1": 1, "s3": 1}, s.asked); diff != "" {
			t.Errorf("asked for (-want +got):\n%s", diff)
		}
		s.sandboxes = s.sandboxes[1:]
	})
	// What is gone is forgotten: its ID might come back.
	list(t, c, wanted)
	s.with(func() {
		s.sandboxes = append(s.sandboxes, sandbox("s1", "a", 2, crio("/run/netns/w"), "10.0.1.7"))
	})
	if got := list(t, c, wanted); got[0].NetNS != "/run/netns/w" {
		t.Errorf("sandbox is %+v", got[0])
	}
}

func TestTheNewestReadySandboxOfAPodCounts(t *testing.T) {
	s := serve(t)
	dead := sandbox("s3", "a", 9, crio("/run/netns/z"), "10.0.1.9")
	dead.Status.State = cri.PodSandboxState_SANDBOX_NOTREADY
	s.sandboxes = []*cri.PodSandboxStatusResponse{
		sandbox("s1", "a", 1, crio("/run/netns/x"), "10.0.1.7"), dead,
		sandbox("s2", "a", 5, crio("/run/netns/y"), "10.0.1.8"), sandbox("s0", "b", 1, crio("/run/netns/v"), "10.0.1.3"),
	}
	newest := podnetns.Newest(list(t, s.client(t), everyone))
	if newest["a"].ID != "s2" || newest["b"].ID != "s0" || len(newest) != 2 {
		t.Errorf("Newest() = %+v", newest)
	}
}

func TestSandboxesWithNamesThatAreNoFilesAreLeftOut(t *testing.T) {
	s := serve(t)
	for _, id := range []string{"", "..", "a/b", "../../etc", "a\x00b", strings.Repeat("a", 300)} {
		s.sandboxes = append(s.sandboxes, sandbox(id, "a", 1, crio("/run/netns/x"), "10.0.1.7"))
	}
	if got := list(t, s.client(t), everyone); len(got) > 0 {
		t.Errorf("Sandboxes() = %+v", got)
	}
}

func TestASandboxThatHangsIsNotAskedForEachTime(t *testing.T) {
	s := serve(t)
	s.sandboxes = []*cri.PodSandboxStatusResponse{
		sandbox("s1", "a", 1, crio("/run/netns/x"), "10.0.1.7"), sandbox("s2", "b", 1, crio("/run/netns/y"), "10.0.1.8"),
	}
	s.hanging["s1"] = true
	c := s.client(t, func(o *podnetns.Options) { o.Timeout = 300 * time.Millisecond })
	// The other one may need several tries on a busy machine.
	var got []podnetns.Sandbox
	for {
		if got = list(t, c, everyone); got[1].Err == nil {
			break
		}
	}
	if got[0].Err == nil || !strings.Contains(got[0].Err.Error(), "DeadlineExceeded") {
		t.Errorf("the error is %v", got[0].Err)
	}
	var asked int
	s.with(func() { asked = s.asked["s1"] })
	for range 5 {
		list(t, c, everyone)
	}
	s.with(func() {
		if s.asked["s1"] > asked+1 {
			t.Errorf("it was asked for %d more times at once", s.asked["s1"]-asked)
		}
	})
}

func TestAnErrorSaysWhatWasDoneAndWhere(t *testing.T) {
	c, err := podnetns.New(podnetns.Options{Socket: "/nowhere/cri.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // it has no connection
	_, err = c.Sandboxes(t.Context(), everyone)
	for _, part := range []string{"listing the pod sandboxes", "at /nowhere/cri.sock", "no such file"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error is %v, want %q in it", err, part)
		}
	}
	if _, err := podnetns.New(podnetns.Options{Socket: "cri.sock"}); err == nil {
		t.Error("a socket without a folder was taken")
	}
}

func TestTheClientConnectsAgain(t *testing.T) {
	s := serve(t)
	s.sandboxes = []*cri.PodSandboxStatusResponse{sandbox("s1", "a", 1, crio("/run/netns/x"), "10.0.1.7")}
	c := s.client(t)
	list(t, c, everyone)
	s.grpc.Stop()
	if _, err := c.Sandboxes(t.Context(), everyone); err == nil {
		t.Fatal("a runtime that is gone has answered")
	}
	s.listen(t)
	deadline := time.After(time.Minute)
	for {
		got, err := c.Sandboxes(t.Context(), everyone)
		if err == nil {
			if len(got) != 1 || got[0].NetNS == "" {
				t.Errorf("Sandboxes() = %+v", got)
			}
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestChangesAreTold(t *testing.T) {
	s := serve(t)
	changes := s.client(t).Changes(t.Context())
	for range 3 {
		s.events <- &cri.ContainerEventResponse{ContainerId: "s1"}
		<-changes
	}
	// A stream that ends is begun again.
	<-s.watched
	s.events <- nil
	<-s.watched
	<-changes
	s.events <- &cri.ContainerEventResponse{ContainerId: "s1"}
	<-changes
}

func TestChangesOfARuntimeWithoutEventsAreNone(t *testing.T) {
	s := serve(t)
	s.noEvents = true
	changes := s.client(t).Changes(t.Context())
	<-s.watched
	<-s.watched
	select {
	case <-changes:
		t.Error("a change was told")
	default:
	}
}

func TestEventsAreNotTakenFromTheKubelet(t *testing.T) {
	for version, want := range map[string]bool{"1.7.27": false, "v1.6.0": false, "v2.0.0": true, "2.1.4": true} {
		t.Run(version, func(t *testing.T) {
			s := serve(t)
			s.version = version
			s.client(t).Changes(t.Context())
			select {
			case <-s.watched:
				if !want {
					t.Error("it asked for events")
				}
			case <-time.After(time.Second):
				if want {
					<-s.watched
				}
			}
		})
	}
}
