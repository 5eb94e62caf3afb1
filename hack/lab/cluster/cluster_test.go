package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func defaults() Config { return Defaults("lvs") }

func TestValidate(t *testing.T) {
	cases := map[string]struct {
		change func(*Config)
		wantOK bool
	}{
		"the defaults":        {change: func(*Config) {}, wantOK: true},
		"one node":            {change: func(c *Config) { c.Directors, c.Workers = 1, 0 }, wantOK: true},
		"no node":             {change: func(c *Config) { c.Directors, c.Workers = 0, 0 }},
		"too many directors":  {change: func(c *Config) { c.Directors = 10 }},
		"too many workers":    {change: func(c *Config) { c.Workers = 70 }},
		"fewer than none":     {change: func(c *Config) { c.Workers = -1 }},
		"no name":             {change: func(c *Config) { c.Name = "" }},
		"a name with a slash": {change: func(c *Config) { c.Name = "a/b" }},
		"too little memory":   {change: func(c *Config) { c.MemoryMiB = 256 }},
		"pods on the segment": {change: func(c *Config) { c.Workers, c.Pods = 2, []PodNetwork{PodsMacvlan, PodsBridge} }, wantOK: true},
		"fewer pod networks than workers": {
			change: func(c *Config) { c.Workers, c.Pods = 69, []PodNetwork{PodsRouted} }, wantOK: true,
		},
		"more pod networks than workers": {change: func(c *Config) { c.Pods = []PodNetwork{PodsRouted, PodsBridge} }},
		"no such pod network":            {change: func(c *Config) { c.Pods = []PodNetwork{"ipvlan"} }},
		"routed pods of a late worker": {
			change: func(c *Config) { c.Workers, c.Pods = 7, slices.Repeat([]PodNetwork{PodsRouted}, 7) }, wantOK: true,
		},
		"pods on the segment of too many workers": {
			change: func(c *Config) { c.Workers, c.Pods = 7, slices.Repeat([]PodNetwork{PodsBridge}, 7) },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			config := defaults()
			tc.change(&config)
			if err := config.Validate(); (err == nil) != tc.wantOK {
				t.Errorf("Validate() = %v, want ok: %t", err, tc.wantOK)
			}
		})
	}
}

func TestABareNodeRunsNothingAndHasTheAdminsKubeconfig(t *testing.T) {
	for _, bare := range []bool{false, true} {
		config := defaults()
		config.Bare = bare
		lab, n := &Lab{config: config}, config.Nodes()[0]
		if services := lab.boot(n).Services; (len(services) == 0) != bare {
			t.Errorf("bare %t: %d services", bare, len(services))
		}
		files, err := lab.overlay(n, &credentials{tokens: map[string]string{adminUser: "secret"}})
		if _, found := files[AdminKubeconfig]; err != nil || found != bare {
			t.Errorf("bare %t: the admin's kubeconfig is there: %t, %v", bare, found, err)
		}
	}
}

func TestAddressPlan(t *testing.T) {
	config := defaults()
	config.Directors, config.Workers = maxDirectors, maxWorkers
	config.Pods = slices.Repeat([]PodNetwork{PodsBridge, PodsMacvlan}, maxSegmentPodWorkers/2)
	taken := map[netip.Addr]string{netip.MustParseAddr(controlAddress): Control}
	takeAddress := func(owner string, address netip.Addr) {
		if other, used := taken[address]; used {
			t.Errorf("%s and %s both have %s", owner, other, address)
		}
		taken[address] = owner
	}
	take := func(owner string, prefix netip.Prefix) { takeAddress(owner, prefix.Addr()) }
	for _, n := range config.Nodes() {
		take(n.Name, n.Segment)
		take(n.Name, n.Segment6)
		take(n.Name, n.Management)
		if n.Pods == PodsRouted {
			take(n.Name, n.PodCIDR)
		} else {
			for _, pods := range []AddressRange{n.PodRange, n.PodRange6} {
				for address := pods.First; address.Compare(pods.Last) <= 0; address = address.Next() {
					takeAddress("a pod of "+n.Name, address)
				}
			}
		}
		for _, tap := range []string{n.segmentTap(), n.managementTap()} {
			if len(tap) > 15 {
				t.Errorf("interface name %s is too long for the kernel", tap)
			}
		}
	}
	for _, host := range Hosts() {
		if host.Segment.IsValid() {
			take(host.Name, host.Segment)
			take(host.Name, host.Segment6)
		}
	}
	// VIPs start at 200, and people are to see which family is whose.
	last := config.Nodes()[maxDirectors+maxSegmentPodWorkers-1]
	if last.PodRange.String() != "192.168.11.190-192.168.11.199" || last.PodRange6.String() != "fd00:11::190-fd00:11::199" {
		t.Errorf("last worker with pods on the segment %+v, want pods from .190 to .199", last)
	}
	first := config.Nodes()[0]
	if first.Name != "director1" || first.Segment.String() != "192.168.11.21/24" || first.Segment6.String() != "fd00:11::21/64" {
		t.Errorf("first node %+v, want director1 at .21", first)
	}
}

func TestFilterRules(t *testing.T) {
	config := defaults()
	cases := map[string]struct {
		cuts      map[string][]Cut
		want      []string
		wantDrops int
	}{
		"nothing cut": {},
		"api": {
			cuts: map[string][]Cut{"director1": {CutAPI}}, wantDrops: 2,
			want: []string{`iifname { "m-director1" } ether type { ip, ip6 } drop`},
		},
		"peers": {
			cuts: map[string][]Cut{"worker1": {CutPeers}}, wantDrops: 2,
			want: []string{`iifname { "s-worker1", "m-worker1" } oifname { "s-director1", "m-director1", "s-director2", "m-director2" } drop`},
		},
		"gossip": {
			cuts: map[string][]Cut{"director2": {CutGossip}}, wantDrops: 2,
			want: []string{
				`iifname { "s-director2", "m-director2" } meta l4proto { tcp, udp } th dport 7956 drop`,
				`oifname { "s-director2", "m-director2" } meta l4proto { tcp, udp } th dport 7956 drop`,
			},
		},
		"a link that is down needs no rule": {cuts: map[string][]Cut{"worker1": {CutAll, CutSegment}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			script := filterRules(config.Nodes(), tc.cuts)
			if drops := strings.Count(script, "drop\n"); drops != tc.wantDrops {
				t.Errorf("%d rules that drop, want %d:\n%s", drops, tc.wantDrops, script)
			}
			for _, want := range tc.want {
				if !strings.Contains(script, want) {
					t.Errorf("no %s in:\n%s", want, script)
				}
			}
		})
	}
}

func TestLinkCommands(t *testing.T) {
	nodes := defaults().Nodes()[:2]
	have := linkCommands(nodes, map[string][]Cut{"director1": {CutSegment}, "director2": {CutAll}})
	want := []string{
		"link set s-director1 down", "link set m-director1 up",
		"link set s-director2 down", "link set m-director2 down",
	}
	if !slices.Equal(have, want) {
		t.Errorf("linkCommands() = %q, want %q", have, want)
	}
}

func TestEndAllForgetsWhatHasEnded(t *testing.T) {
	lab := &Lab{config: defaults(), dir: t.TempDir()}
	p := startSleeper(t)
	for name, record := range map[string]process{"sleeper": p, "gone": {PID: 1 << 22, Started: 1}} {
		content, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(lab.path("processes", name), content); err != nil {
			t.Fatal(err)
		}
	}
	if ended, err := lab.ended(); err != nil || !slices.Equal(ended, []string{"gone"}) {
		t.Errorf("ended() = %q, %v, want the one that is gone", ended, err)
	}
	if err := lab.endAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(lab.path("processes")); err != nil || len(left) > 0 || p.running() {
		t.Errorf("records left: %v %v; running: %t", left, err, p.running())
	}
}

func TestOpenWithoutALab(t *testing.T) {
	if _, err := Open("no-such-lab"); !errors.Is(err, ErrNotUp) {
		t.Errorf("Open() = %v, want ErrNotUp", err)
	}
}

func TestUnknownNamesAreToldWhatThereIs(t *testing.T) {
	lab := &Lab{config: defaults(), dir: t.TempDir()}
	ctx := context.Background()
	for name, err := range map[string]error{
		"kill":  lab.Kill(ctx, "director9"),
		"start": lab.Start(ctx, "director9"),
		"cut":   lab.Cut(ctx, "director9", CutAPI),
		"heal":  lab.Heal(ctx, "director9"),
		"load":  lab.Load(ctx, "x.tar", "director9"),
		"in":    lab.In("director9", func() error { return nil }),
	} {
		if err == nil || !strings.Contains(err.Error(), "director2") {
			t.Errorf("%s: %v, want the names that there are", name, err)
		}
	}
	if err := lab.Cut(ctx, "director1", "everything"); err == nil || !strings.Contains(err.Error(), "segment") {
		t.Errorf("Cut(everything) = %v, want the cuts that there are", err)
	}
}

func TestEachNodeReachesTheOthersPods(t *testing.T) {
	config := defaults()
	config.Workers, config.Pods = 3, []PodNetwork{PodsBridge, PodsMacvlan}
	lab := &Lab{config: config, dir: t.TempDir()}
	for _, n := range lab.config.Nodes() {
		setup := setupLines(lab, n)
		for _, other := range lab.config.Nodes() {
			route := "ip route add " + other.PodCIDR.String() + " via " + other.Management.Addr().String()
			if slices.Contains(setup, route) != (other.Name != n.Name && other.Pods == PodsRouted) {
				t.Errorf("%s: route %q in\n%s", n.Name, route, strings.Join(setup, "\n"))
			}
		}
	}
}

func setupLines(lab *Lab, n Node) []string {
	var lines []string
	for _, command := range lab.setup(n) {
		lines = append(lines, strings.Join(command, " "))
	}
	return lines
}
