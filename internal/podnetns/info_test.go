package podnetns

import (
	"path"
	"strings"
	"testing"
)

func TestOnlyPathsOfNetworkNamespacesAreTaken(t *testing.T) {
	tests := map[string]string{
		"/run/netns/cni-1":                       "/run/netns/cni-1",
		"/var/run/netns/cni-1":                   "/run/netns/cni-1",
		"/proc/17/ns/net":                        "/proc/17/ns/net",
		"":                                       "",
		"run/netns/x":                            "",
		"/run/netns":                             "",
		"/run/netns/":                            "",
		"/run/netns/.":                           "",
		"/run/netns/..":                          "",
		"/run/netns/a/b":                         "",
		"/run/netns//a":                          "",
		"/run/netns/../netns/a":                  "",
		"/run/netns/a\n":                         "",
		"/run/netns/" + strings.Repeat("a", 256): "",
		"/proc/self/ns/net":                      "",
		"/proc/0/ns/net":                         "",
		"/proc/01/ns/net":                        "",
		"/proc/12345678901/ns/net":               "",
		"/proc/17/ns/mnt":                        "",
		"/proc/17/root/ns/net":                   "",
		"/proc//ns/net":                          "",
	}
	for text, want := range tests {
		n, err := parsePath(text)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q was taken as %s", text, n)
		case want != "" && (err != nil || n.String() != want):
			t.Errorf("%q is %s, %v; want %s", text, n, err, want)
		}
	}
}

func TestASandboxWithTwoNetworkNamespacesIsRefused(t *testing.T) {
	const two = `{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/run/netns/a"},{"type":"network","path":"/run/netns/b"}]}}}`
	if n, own, err := decodeInfo(two); err == nil {
		t.Errorf("it is %s, %v", n, own)
	}
}

// What is decoded is a place for network namespaces, or none, whatever the text.
func FuzzDecodeInfo(f *testing.F) {
	f.Add(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/var/run/netns/cni-1"}]}}}`)
	f.Add(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/proc/17/ns/net"}]}}}`)
	f.Add(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/run/netns/../x"}]}}}`)
	f.Add(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"ipc"}]}}}`)
	f.Add(`{"runtimeSpec":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		n, own, err := decodeInfo(text)
		if err != nil || !own {
			if n != (netns{}) || err != nil && own {
				t.Fatalf("it is %v, %v with %v", n, own, err)
			}
			return
		}
		p := n.String()
		if path.Clean(p) != p || path.Dir(p) != "/run/netns" && (!strings.HasPrefix(p, "/proc/") || !strings.HasSuffix(p, "/ns/net")) {
			t.Fatalf("%q is a namespace", p)
		}
	})
}
