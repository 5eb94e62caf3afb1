package scenarios

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

var update = flag.Bool("update", false, "write what is planned into the scenarios")

// The files of a scenario. The last five are what is expected; with none of
// them in it a scenario promises that nothing is served and nothing refused.
const (
	// objectsFile has VirtualServers, one DirectorPool at most, Namespaces for their
	// labels, and what real servers are found by: Pods, EndpointSlices,
	// RealServerNodes and Nodes for their annotations.
	objectsFile = "objects.yaml"
	// siteFile is a site.
	siteFile = "site.yaml"
	// haveFile is what the kernel holds, and verdictsFile has lines such as
	// "192.168.11.135:80 Up", each for one target; all others are unknown. With
	// either of them in it a scenario is about what the kernel is to hold now,
	// and else about the plan.
	haveFile     = "have"
	verdictsFile = "verdicts"

	wantFile       = "want"
	checksFile     = "checks"
	drainingFile   = "draining"
	rejectionsFile = "rejections"
	// serversFile has the real servers of which there is something to tell.
	serversFile = "servers"
)

// site is what is round the director.
type site struct {
	Source    string            `json:"source,omitempty"`
	Reserved  map[string]string `json:"reserved,omitempty"`
	Directors map[string]string `json:"directors,omitempty"`
	// Connections of every destination in the kernel.
	Connections uint32 `json:"connections,omitempty"`
	// DrainingFor is how long ago everything that drains began to.
	DrainingFor metav1.Duration `json:"drainingFor,omitzero"`
	// Gateways are those by which the director reaches networks; it is on all
	// others itself.
	Gateways map[string]string `json:"gateways,omitempty"`
}

// scenario is the input of one, read.
type scenario struct {
	site       site
	servers    []v1alpha1.VirtualServer
	pool       *v1alpha1.DirectorPool
	namespaces map[string]map[string]string
	workload   workload
	// weighed says that the kernel and verdicts count.
	weighed  bool
	have     netstate.State
	verdicts map[string]health.Verdict
}

func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			a := parseArchive(string(text))
			got := play(t, read(t, &a))
			for _, name := range []string{wantFile, checksFile, drainingFile, rejectionsFile, serversFile} {
				want, _ := a.file(name)
				if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got[name], "\n")); diff != "" && !*update {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
				a.set(name, got[name])
			}
			if *update {
				if err := os.WriteFile(path, a.bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func read(t *testing.T, a *archive) scenario {
	t.Helper()
	s := scenario{
		namespaces: map[string]map[string]string{}, workload: newWorkload(),
		have: netstate.New(), verdicts: map[string]health.Verdict{},
	}
	if text, ok := a.file(siteFile); ok {
		decode(t, text, &s.site)
	}
	objects, _ := a.file(objectsFile)
	for _, document := range strings.Split(objects, "\n---\n") {
		s.readObject(t, document)
	}
	if text, ok := a.file(haveFile); ok {
		s.weighed = true
		if err := s.have.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if text, ok := a.file(verdictsFile); ok {
		s.weighed = true
		for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
			target, verdict, _ := strings.Cut(line, " ")
			s.verdicts[target] = map[string]health.Verdict{"Up": health.Up, "Down": health.Down}[verdict]
		}
	}
	return s
}

func (s *scenario) readObject(t *testing.T, document string) {
	t.Helper()
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
		t.Fatal(err)
	}
	switch kind.Kind {
	case "VirtualServer":
		var vs v1alpha1.VirtualServer
		decode(t, document, &vs)
		s.servers = append(s.servers, vs)
		if s.namespaces[vs.Namespace] == nil {
			s.namespaces[vs.Namespace] = map[string]string{}
		}
	case "DirectorPool":
		s.pool = &v1alpha1.DirectorPool{}
		decode(t, document, s.pool)
	case "Namespace":
		var namespace metav1.PartialObjectMetadata
		decode(t, document, &namespace)
		s.namespaces[namespace.Name] = namespace.Labels
	default:
		if !s.workload.readObject(t, kind.Kind, document) {
			t.Fatalf("an object of kind %q", kind.Kind)
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// play plans every key that a VirtualServer names, as a director does, and
// returns the files of what came out.
func play(t *testing.T, s scenario) map[string]string {
	t.Helper()
	all := netstate.New()
	checks, draining, rejections := map[string]struct{}{}, map[string]struct{}{}, map[string]struct{}{}
	servers := map[string]struct{}{}
	for _, key := range s.keys() {
		desired, refused := plan.For(s.snapshot(key))
		for _, r := range refused {
			rejections[fmt.Sprintf("%s %s: %s", r.VirtualServer, r.Reason, r.Message)] = struct{}{}
		}
		for destination, of := range desired.Checks {
			for _, check := range of {
				checks[describe(destination, check)] = struct{}{}
			}
		}
		tell(servers, desired)
		state := desired.State
		if s.weighed {
			var leaving map[netstate.DestinationKey]time.Time
			state, leaving = s.want(desired)
			for destination := range leaving {
				draining[destination.String()] = struct{}{}
			}
		}
		maps.Copy(all.Guard, state.Guard)
		maps.Copy(all.Addresses, state.Addresses)
		maps.Copy(all.Services, state.Services)
		maps.Copy(all.Destinations, state.Destinations)
	}
	text, err := all.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		wantFile: string(text), checksFile: lines(checks), drainingFile: lines(draining), rejectionsFile: lines(rejections),
		serversFile: lines(servers),
	}
}

func (s *scenario) keys() []netstate.Key {
	var keys []netstate.Key
	for i := range s.servers {
		keys = append(keys, plan.Keys(&s.servers[i])...)
	}
	slices.SortFunc(keys, netstate.Key.Compare)
	return slices.Compact(keys)
}

func (s *scenario) snapshot(key netstate.Key) plan.Snapshot {
	snapshot := plan.Snapshot{
		Key:             key,
		Pool:            s.pool,
		NamespaceLabels: s.namespaces,
		Reserved:        parsed(s.site.Reserved),
		Directors:       parsed(s.site.Directors),
	}
	snapshot.VirtualServers = plan.Component(key, func(addr netip.Addr) []v1alpha1.VirtualServer {
		var naming []v1alpha1.VirtualServer
		for _, vs := range s.servers {
			if slices.Contains(vs.Spec.Addresses, v1alpha1.IPAddress(addr.String())) {
				naming = append(naming, vs)
			}
		}
		return naming
	})
	if s.site.Source != "" {
		snapshot.Source = netip.MustParseAddr(s.site.Source)
	}
	s.workload.addTo(&snapshot)
	snapshot.Reach = s.site.reach
	return snapshot
}

func parsed(texts map[string]string) map[netip.Addr]string {
	addresses := map[netip.Addr]string{}
	for text, what := range texts {
		addresses[netip.MustParseAddr(text)] = what
	}
	return addresses
}

// want returns what the kernel is to hold now.
func (s *scenario) want(desired plan.Desired) (netstate.State, map[netstate.DestinationKey]time.Time) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	have := netstate.Observation{State: s.have, Connections: map[netstate.DestinationKey]netstate.Connections{}}
	since := map[netstate.DestinationKey]time.Time{}
	for key := range s.have.Destinations {
		have.Connections[key] = netstate.Connections{Active: s.site.Connections}
		since[key] = now.Add(-s.site.DrainingFor.Duration)
	}
	state, later, _ := plan.Want(desired, have, func(probe health.Probe) health.Verdict {
		return s.verdicts[netip.AddrPortFrom(probe.Target.Addr, probe.Target.Port).String()]
	}, plan.Memory{Draining: since}, now)
	return state, later.Draining
}

func describe(destination netstate.DestinationKey, check plan.Check) string {
	s := check.Probe.Schedule
	initially := "down"
	if check.InitiallyUp {
		initially = "up"
	}
	return fmt.Sprintf("%s: %s %s %s every %s timeout %s retry %s down after %d up after %d initially %s",
		destination, check.Name, check.Probe.Target.Type, netip.AddrPortFrom(check.Probe.Target.Addr, check.Probe.Target.Port),
		s.Interval, s.Timeout, s.RetryInterval, s.FailureThreshold, s.SuccessThreshold, initially)
}

func lines(set map[string]struct{}) string {
	var text strings.Builder
	for _, line := range slices.Sorted(maps.Keys(set)) {
		text.WriteString(line + "\n")
	}
	return text.String()
}
