package kernel

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// tree is a directory like /proc/sys/net.
type tree struct {
	t    fataler
	root string
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

func newTree(t fataler, dir string, values map[string]string) tree {
	t.Helper()
	tr := tree{t, dir}
	for name, value := range values {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		tr.set(name, value)
	}
	return tr
}

func (tr tree) set(name, value string) {
	tr.t.Helper()
	if err := os.WriteFile(filepath.Join(tr.root, name), []byte(value+"\n"), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) all(names map[string]string) map[string]string {
	tr.t.Helper()
	values := map[string]string{}
	for name := range names {
		value, err := sysctls{root: tr.root}.read(name)
		if err != nil {
			tr.t.Fatal(err)
		}
		values[name] = value
	}
	return values
}

// directorSettings are all that a director looks at, as a kernel starts with.
func directorSettings() map[string]string {
	values := map[string]string{
		"ipv4/vs/expire_nodest_conn":        "0",
		"ipv4/vs/expire_quiescent_template": "0",
		"ipv4/vs/conn_reuse_mode":           "1",
		"ipv4/vs/conntrack":                 "0",
	}
	for _, link := range []string{"all", "eth0"} {
		for _, name := range []string{"arp_ignore", "arp_announce", "accept_local", "rp_filter"} {
			values[confPath(link, name)] = "0"
		}
	}
	return values
}

func TestDirectorSettings(t *testing.T) {
	cases := map[string]struct {
		found map[string]string
		want  map[string]string // what differs from what was found
	}{
		"as a kernel starts": {want: map[string]string{
			"ipv4/conf/eth0/arp_ignore": "1", "ipv4/conf/eth0/arp_announce": "2", "ipv4/conf/eth0/accept_local": "1",
		}},
		"a strict filter of the interface becomes loose": {
			found: map[string]string{"ipv4/conf/eth0/rp_filter": "1"},
			want: map[string]string{
				"ipv4/conf/eth0/arp_ignore": "1", "ipv4/conf/eth0/arp_announce": "2", "ipv4/conf/eth0/accept_local": "1",
				"ipv4/conf/eth0/rp_filter": "2",
			},
		},
		"a strict filter of all becomes loose on the interface": {
			found: map[string]string{"ipv4/conf/all/rp_filter": "1"},
			want: map[string]string{
				"ipv4/conf/eth0/arp_ignore": "1", "ipv4/conf/eth0/arp_announce": "2", "ipv4/conf/eth0/accept_local": "1",
				"ipv4/conf/eth0/rp_filter": "2",
			},
		},
		"what holds for all is not repeated": {
			found: map[string]string{
				"ipv4/conf/all/arp_ignore": "1", "ipv4/conf/all/arp_announce": "2", "ipv4/conf/all/accept_local": "1",
				"ipv4/conf/all/rp_filter": "2", "ipv4/conf/eth0/rp_filter": "1",
			},
			want: map[string]string{},
		},
		"what is stricter stays": {
			found: map[string]string{"ipv4/conf/eth0/arp_ignore": "2"},
			want:  map[string]string{"ipv4/conf/eth0/arp_announce": "2", "ipv4/conf/eth0/accept_local": "1"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			found := directorSettings()
			maps.Copy(found, tc.found)
			tr := newTree(t, t.TempDir(), found)
			s := sysctls{root: tr.root, record: newRecord(t.TempDir(), directorRecord)}
			if err := s.prepareDirector("eth0"); err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(found)
			maps.Copy(want, tc.want)
			want["ipv4/vs/expire_nodest_conn"], want["ipv4/vs/expire_quiescent_template"] = "1", "1"
			want["ipv4/vs/conn_reuse_mode"] = "2"
			if diff := cmp.Diff(want, tr.all(found)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
			if err := s.restore(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(found, tr.all(found)); diff != "" {
				t.Errorf("restored settings (-found +got):\n%s", diff)
			}
		})
	}
}

func TestLinkSettings(t *testing.T) {
	links := []string{"veth-a", "veth-b"}
	found := map[string]string{confPath("all", "accept_local"): "0", confPath("all", "rp_filter"): "0"}
	for _, link := range links {
		found[confPath(link, "accept_local")], found[confPath(link, "rp_filter")] = "0", "1"
	}
	found[confPath("veth-b", "rp_filter")] = "0"
	tr := newTree(t, t.TempDir(), found)
	s := sysctls{root: tr.root, record: newRecord(t.TempDir(), directorRecord)}
	step := func(announcement string, listed []string, want map[string]string, recorded ...string) {
		t.Helper()
		if err := s.prepareLinks(announcement, listed); err != nil {
			t.Fatal(err)
		}
		all := maps.Clone(found)
		maps.Copy(all, want)
		if diff := cmp.Diff(all, tr.all(all)); diff != "" {
			t.Errorf("with %v settings (-want +got):\n%s", listed, diff)
		}
		file, err := s.record.read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(recorded, slices.Sorted(maps.Keys(file.Settings))); diff != "" {
			t.Errorf("with %v recorded (-want +got):\n%s", listed, diff)
		}
	}
	a := map[string]string{"ipv4/conf/veth-a/accept_local": "1", "ipv4/conf/veth-a/rp_filter": "2"}
	b := map[string]string{"ipv4/conf/veth-b/accept_local": "1"}
	both := maps.Clone(a)
	maps.Copy(both, b)
	recordedA := []string{"ipv4/conf/veth-a/accept_local", "ipv4/conf/veth-a/rp_filter"}
	recordedB := []string{"ipv4/conf/veth-b/accept_local"}

	step("eth0", nil, nil)
	step("eth0", []string{"veth-a", "veth-b", "veth-none"}, both, append(recordedA, recordedB...)...)
	step("eth0", []string{"veth-b"}, b, recordedB...)
	step("eth0", links, both, append(recordedA, recordedB...)...)
	// What has become the announcement interface needs it still.
	step("veth-a", []string{"veth-b"}, both, append(recordedA, recordedB...)...)
	step("eth0", links, both, append(recordedA, recordedB...)...)
	// One that is gone leaves no record, and another of its name is found as it is.
	if err := os.RemoveAll(filepath.Join(tr.root, "ipv4/conf/veth-a")); err != nil {
		t.Fatal(err)
	}
	delete(found, "ipv4/conf/veth-a/accept_local")
	delete(found, "ipv4/conf/veth-a/rp_filter")
	step("eth0", links, b, recordedB...)
	step("eth0", nil, nil)
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found, tr.all(found)); diff != "" {
		t.Errorf("restored settings (-found +got):\n%s", diff)
	}
}

func TestRealServerSettingsAreAtLeastTheClassicOnes(t *testing.T) {
	found := map[string]string{
		"ipv4/conf/lo/arp_ignore": "0", "ipv4/conf/all/arp_ignore": "2",
		"ipv4/conf/lo/arp_announce": "1", "ipv4/conf/all/arp_announce": "2",
	}
	tr := newTree(t, t.TempDir(), found)
	s := sysctls{root: tr.root, record: newRecord(t.TempDir(), realServerRecord)}
	if err := s.prepareRealServer(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ipv4/conf/lo/arp_ignore": "1", "ipv4/conf/all/arp_ignore": "2",
		"ipv4/conf/lo/arp_announce": "2", "ipv4/conf/all/arp_announce": "2",
	}
	if diff := cmp.Diff(want, tr.all(found)); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found, tr.all(found)); diff != "" {
		t.Errorf("restored settings (-found +got):\n%s", diff)
	}
}

func TestWhatSomebodyElseChangedIsNotRestored(t *testing.T) {
	found := directorSettings()
	tr := newTree(t, t.TempDir(), found)
	s := sysctls{root: tr.root, record: newRecord(t.TempDir(), directorRecord)}
	if err := s.prepareDirector("eth0"); err != nil {
		t.Fatal(err)
	}
	tr.set("ipv4/conf/eth0/arp_announce", "1")
	// An interface that is gone has nothing to restore.
	if err := os.Remove(filepath.Join(tr.root, "ipv4/conf/eth0/accept_local")); err != nil {
		t.Fatal(err)
	}
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(found)
	delete(want, "ipv4/conf/eth0/accept_local")
	want["ipv4/conf/eth0/arp_announce"] = "1"
	if diff := cmp.Diff(want, tr.all(want)); diff != "" {
		t.Errorf("restored settings (-want +got):\n%s", diff)
	}
}

func TestNothingIsChangedThatCannotBeRecorded(t *testing.T) {
	found := directorSettings()
	tr := newTree(t, t.TempDir(), found)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := sysctls{root: tr.root, record: newRecord(file, directorRecord)} // a file is no directory
	if err := s.prepareDirector("eth0"); err == nil {
		t.Error("prepareDirector() succeeds without a record")
	}
	if diff := cmp.Diff(found, tr.all(found)); diff != "" {
		t.Errorf("settings (-found +got):\n%s", diff)
	}
}

func TestARecordThatCannotBeReadStopsEverything(t *testing.T) {
	for name, text := range map[string]string{
		"half a file":     `{"version":1,"settings":{"ipv4/`,
		"a later version": `{"version":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, directorRecord), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := newRecord(dir, directorRecord).note("a", "0", "1"); err == nil {
				t.Error("note() succeeds")
			}
			data, err := os.ReadFile(filepath.Join(dir, directorRecord))
			if err != nil || string(data) != text {
				t.Errorf("the record became %q, %v", data, err)
			}
		})
	}
}

func TestTheRecordIsPrivateAndLeavesNoScraps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	r := newRecord(dir, directorRecord)
	if err := r.note("a", "0", "1"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	for range 2 {
		if err := r.remove(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(r.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat() = %v", err)
	}
}

// Whatever is set, however often, and wherever it is cut off between record and
// setting: restoring leads to what was found, unless somebody else had a hand in
// it.
func TestSettingsComeBackWhateverHappensBetween(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "case")
		if err != nil {
			t.Fatal(err)
		}
		names := []string{"a", "b"}
		found := map[string]string{}
		for _, name := range names {
			found[name] = rapid.SampledFrom([]string{"0", "1", "2"}).Draw(t, "found")
		}
		tr := newTree(t, filepath.Join(dir, "sys"), found)
		s := sysctls{root: tr.root, record: newRecord(dir, directorRecord)}
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			value := rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "value")
			if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
				now, err := s.read(name)
				if err != nil {
					t.Fatal(err)
				}
				if now != value {
					err = s.record.note(name, now, value) // and no more than that
				}
				if err != nil {
					t.Fatal(err)
				}
			} else if err := s.set(name, value); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.restore(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(found, tr.all(found)); diff != "" {
			t.Fatalf("restored settings (-found +got):\n%s", diff)
		}
		file, err := s.record.read()
		if err != nil || len(slices.Collect(maps.Keys(file.Settings))) != 0 {
			t.Fatalf("the record still holds %v, %v", file.Settings, err)
		}
	})
}
