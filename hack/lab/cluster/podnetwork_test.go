package cluster

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mixed has a worker of each kind.
func mixed() Config {
	config := defaults()
	config.Directors, config.Workers, config.Pods = 1, 3, []PodNetwork{PodsBridge, PodsMacvlan}
	return config
}

func TestCNIConfig(t *testing.T) {
	ranges := [][]cniRange{
		{{Subnet: "192.168.11.0/24", Start: "192.168.11.140", End: "192.168.11.149", Gateway: "192.168.11.1"}},
		{{Subnet: "fd00:11::/64", Start: "fd00:11::140", End: "fd00:11::149", Gateway: "fd00:11::1"}},
	}
	ranges2 := [][]cniRange{
		{{Subnet: "192.168.11.0/24", Start: "192.168.11.150", End: "192.168.11.159", Gateway: "192.168.11.1"}},
		{{Subnet: "fd00:11::/64", Start: "fd00:11::150", End: "fd00:11::159", Gateway: "fd00:11::1"}},
	}
	routes := func(node string) []cniRoute {
		return []cniRoute{
			{"0.0.0.0/0", "192.168.11.1"},
			{"::/0", "fd00:11::1"},
			{"10.96.0.0/16", node},
			{"10.99.0.0/24", node},
			{"10.244.21.0/24", "192.168.11.21"},
			{"10.244.33.0/24", "192.168.11.33"},
		}
	}
	cases := map[string]cniPlugin{
		"director1": {Type: "ptp", IPAM: &cniIPAM{
			Ranges: [][]cniRange{{{Subnet: "10.244.21.0/24"}}}, Routes: []cniRoute{{Destination: "0.0.0.0/0"}},
		}},
		"worker1": {Type: "bridge", Bridge: "br0", IPAM: &cniIPAM{Ranges: ranges, Routes: routes("192.168.11.31")}},
		"worker2": {
			Type: "macvlan", Master: "eth0", Mode: "bridge", IPAM: &cniIPAM{Ranges: ranges2, Routes: routes("192.168.11.32")},
		},
		"worker3": {Type: "ptp", IPAM: &cniIPAM{
			Ranges: [][]cniRange{{{Subnet: "10.244.33.0/24"}}}, Routes: []cniRoute{{Destination: "0.0.0.0/0"}},
		}},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			want.IPAM.Type, want.IPAM.DataDir = "host-local", "/var/lib/cni/networks"
			n, _ := mixed().findNode(name)
			content, err := cniConfig(n, mixed().Nodes())
			if err != nil {
				t.Fatal(err)
			}
			var have cniNetwork
			if err := json.Unmarshal(content, &have); err != nil {
				t.Fatal(err)
			}
			if have.Version != "1.0.0" || len(have.Plugins) != 2 || have.Plugins[1].Type != "portmap" {
				t.Fatalf("cniConfig() = %s, want a network and port mappings", content)
			}
			if diff := cmp.Diff(want, have.Plugins[0]); diff != "" {
				t.Errorf("plugin, -want +have:\n%s", diff)
			}
		})
	}
}

func TestCNIConfigSaysOnlyWhatThePluginKnows(t *testing.T) {
	n, _ := mixed().findNode("worker3")
	content, err := cniConfig(n, mixed().Nodes())
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"bridge", "master", "mode", "gw", "rangeStart"} {
		if strings.Contains(string(content), `"`+foreign+`"`) {
			t.Errorf("%q in the configuration of ptp:\n%s", foreign, content)
		}
	}
}

func TestNodeKeepsItsAddressesOnTheSegment(t *testing.T) {
	lab := &Lab{config: mixed(), dir: t.TempDir()}
	links := map[string]string{"director1": "eth0", "worker1": "br0", "worker2": "shim0", "worker3": "eth0"}
	for _, n := range lab.config.Nodes() {
		setup := setupLines(lab, n)
		link := links[n.Name]
		up := slices.Index(setup, "ip link set "+link+" up")
		for _, address := range []string{n.Segment.String() + " dev " + link, n.Segment6.String() + " dev " + link + " nodad"} {
			if given := slices.Index(setup, "ip address add "+address); up < 0 || given < up {
				t.Errorf("%s: no address %s after %s is up in\n%s", n.Name, address, link, strings.Join(setup, "\n"))
			}
		}
		masquerade := "iptables -w -t nat -A POSTROUTING -s 192.168.11.0/24 -o eth1 -j MASQUERADE"
		if slices.Contains(setup, masquerade) != n.Pods.onSegment() {
			t.Errorf("%s: masquerading for pods in a network that others route to, or not for one that they don't:\n%s",
				n.Name, strings.Join(setup, "\n"))
		}
	}
}

func TestStateOfALabWithoutPodNetworks(t *testing.T) {
	var s state
	old := `{"config":{"name":"lvs","directors":2,"workers":1,"memoryMiB":1536,"accelerator":"auto"},"complete":true}`
	if err := json.Unmarshal([]byte(old), &s); err != nil {
		t.Fatal(err)
	}
	if want, have := defaults().Nodes(), s.Config.Nodes(); !slices.Equal(want, have) {
		t.Errorf("nodes %+v, want %+v", have, want)
	}
	content, err := json.Marshal(state{Config: defaults(), Complete: true})
	if err != nil || string(content) != old {
		t.Errorf("state %s, %v, want %s", content, err, old)
	}
}
