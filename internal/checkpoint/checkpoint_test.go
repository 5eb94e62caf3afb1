package checkpoint

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// alike compares checkpoints; an empty list is no list.
var alike = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty(),
}

// example has one of everything.
func example() Checkpoint {
	key := netstate.Key{Addr: netip.MustParseAddr("192.0.2.1")}
	service := netstate.ServiceKey{Key: key, Protocol: netstate.TCP, Port: 80}
	destination := netstate.DestinationKey{Service: service, Addr: netip.MustParseAddr("10.0.0.7"), Port: 80}
	state := netstate.New()
	state.Guard[netstate.GuardKey{VIP: key.Addr}] = netstate.Present{}
	state.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: key.Addr}] = netstate.Address{}
	state.Services[service] = netstate.Service{Scheduler: "wrr", PersistencePrefix: 32}
	state.Destinations[destination] = netstate.Destination{Method: netstate.DR, Weight: 3}
	return Checkpoint{
		Pool: "default", NodeName: "node-a",
		Node: netstate.Node{Interface: "eth0", Guard: true, Timeouts: netstate.Timeouts{TCP: 15 * time.Minute}},
		Keys: []Key{{
			Key: key, State: state,
			Checks: []Check{{
				Destination: destination, Name: "default", InitiallyUp: true,
				Target: Target{Type: "TCP", Addr: destination.Addr, Port: 80},
				Schedule: Schedule{
					Interval: 2 * time.Second, Timeout: time.Second, RetryInterval: time.Second,
					FailureThreshold: 3, SuccessThreshold: 2,
				},
			}},
			Owners: []Owner{{Service: service, Namespace: "shop", Name: "web"}},
			Policies: []Policy{{
				Service: service, Quiesce: true, DrainTimeout: 30 * time.Second, SlowStart: time.Minute,
				Scale: 100, Quorum: 200, Hysteresis: 50, Sorry: netip.MustParseAddr("10.0.0.99"),
			}},
			Unready: []Unready{{Destination: destination, Why: "the pod is not Ready"}},
			Links:   []string{"veth0"},
		}},
		Election: Election{LeaseDuration: 3 * time.Second, NeverPreempt: true, PreemptionDelay: 5 * time.Second},
		Gossip:   Gossip{Port: 7956, ProbeInterval: 100 * time.Millisecond},
		ConnectionSync: ConnectionSync{
			Enabled: true, Interface: "eth1", ID: 7, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848,
		},
		Groups: []Group{{Group: 0, Epoch: 7, Active: true, Previous: "node-b"}},
		Peers: []Peer{{
			Node: "node-b", Addr: netip.MustParseAddr("192.0.2.12"), MAC: "02:00:00:00:00:0b",
			IPv6Addr: netip.MustParseAddr("2001:db8::12"), SyncAddr: netip.MustParseAddr("198.51.100.12"), Live: true,
		}},
	}
}

// versionFive is a file of schema version 5. It must go on being read until
// Version is another one: who changes what is stored has to raise that.
const versionFive = `{"version":5,"pool":"default","nodeName":"node-a",` +
	`"node":{"Interface":"eth0","Guard":true,"Timeouts":{"TCP":900000000000,"TCPFin":0,"UDP":0}},` +
	`"election":{"leaseDuration":3000000000,"neverPreempt":true,"preemptionDelay":5000000000},"gossip":{"port":7956,"probeInterval":100000000},` +
	`"connectionSync":{"enabled":true,"interface":"eth1","id":7,"group":"224.0.0.81","port":8848},` +
	`"keys":[{"key":{"Addr":"192.0.2.1","Mark":0},` +
	`"state":"guard 192.0.2.1\naddress 192.0.2.1 dev dummy-lvs\nservice TCP 192.0.2.1:80 wrr\n` +
	`destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 3\n",` +
	`"checks":[{"destination":{"Service":{"Key":{"Addr":"192.0.2.1","Mark":0},"Protocol":6,"Port":80},` +
	`"Addr":"10.0.0.7","Port":80},"name":"default","target":{"type":"TCP","addr":"10.0.0.7","port":80},` +
	`"schedule":{"interval":2000000000,"timeout":1000000000,"retryInterval":1000000000,` +
	`"failureThreshold":3,"successThreshold":2},"initiallyUp":true}],` +
	`"owners":[{"service":{"Key":{"Addr":"192.0.2.1","Mark":0},"Protocol":6,"Port":80},` +
	`"namespace":"shop","name":"web"}],` +
	`"policies":[{"service":{"Key":{"Addr":"192.0.2.1","Mark":0},"Protocol":6,"Port":80},"quiesce":true,` +
	`"drainTimeout":30000000000,"slowStart":60000000000,"scale":100,"quorum":200,"hysteresis":50,"sorry":"10.0.0.99"}],` +
	`"unready":[{"destination":{"Service":{"Key":{"Addr":"192.0.2.1","Mark":0},"Protocol":6,"Port":80},` +
	`"Addr":"10.0.0.7","Port":80},"why":"the pod is not Ready"}],"links":["veth0"]}],` +
	`"groups":[{"group":0,"epoch":7,"active":true,"previous":"node-b"}],` +
	`"peers":[{"node":"node-b","addr":"192.0.2.12","ipv6Addr":"2001:db8::12","syncAddr":"198.51.100.12","mac":"02:00:00:00:00:0b","live":true}]}` + "\n"

func TestTheFormatIsThatOfItsVersion(t *testing.T) {
	path := Path(t.TempDir(), "default")
	if err := Save(path, example()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(versionFive, string(data)); diff != "" {
		t.Errorf("the file (-want +got):\n%s", diff)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got, alike); diff != "" {
		t.Errorf("Load() (-want +got):\n%s", diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	valid := func(old, replacement string) string {
		if !strings.Contains(versionFive, old) {
			t.Fatalf("the file has no %s", old)
		}
		return strings.Replace(versionFive, old, replacement, 1)
	}
	cases := map[string]struct {
		content string
		want    error
	}{
		"another version":              {content: valid(`"version":5`, `"version":4`), want: ErrVersion},
		"no version":                   {content: `{"pool":"default"}`, want: ErrVersion},
		"an empty file":                {content: "", want: ErrCorrupt},
		"half a file":                  {content: versionFive[:len(versionFive)/2], want: ErrCorrupt},
		"something else":               {content: "[1,2,3]", want: ErrCorrupt},
		"more than one value":          {content: versionFive + "{}", want: ErrCorrupt},
		"a field of a later version":   {content: valid(`"pool"`, `"color":"red","pool"`), want: ErrCorrupt},
		"a state that is none":         {content: valid("guard 192", "guard x192"), want: ErrCorrupt},
		"a key without a state":        {content: valid(`"state":"guard`, `"name":"guard`), want: ErrCorrupt},
		"a null state":                 {content: `{"version":5,"keys":[{"key":{"Addr":"192.0.2.1"},"state":null}]}`, want: ErrCorrupt},
		"a key without a name":         {content: `{"version":5,"keys":[{"key":{"Addr":""},"state":""}]}`, want: ErrCorrupt},
		"a key with two names":         {content: `{"version":5,"keys":[{"key":{"Addr":"192.0.2.1","Mark":3},"state":""}]}`, want: ErrCorrupt},
		"a key twice":                  {content: `{"version":5,"keys":[{"key":{"Mark":3},"state":""},{"key":{"Mark":3},"state":""}]}`, want: ErrCorrupt},
		"a check of another key":       {content: valid(`"destination":{"Service":{"Key":{"Addr":"192.0.2.1"`, `"destination":{"Service":{"Key":{"Addr":"192.0.2.2"`), want: ErrCorrupt},
		"an owner of another key":      {content: valid(`"owners":[{"service":{"Key":{"Addr":"192.0.2.1"`, `"owners":[{"service":{"Key":{"Addr":"192.0.2.2"`), want: ErrCorrupt},
		"a policy of another key":      {content: valid(`"policies":[{"service":{"Key":{"Addr":"192.0.2.1"`, `"policies":[{"service":{"Key":{"Addr":"192.0.2.2"`), want: ErrCorrupt},
		"a policy twice":               {content: valid(`"policies":[`, `"policies":[{"service":{"Key":{"Addr":"192.0.2.1","Mark":0},"Protocol":6,"Port":80}},`), want: ErrCorrupt},
		"a negative drain":             {content: valid(`"drainTimeout":30000000000`, `"drainTimeout":-1`), want: ErrCorrupt},
		"a negative slow start":        {content: valid(`"slowStart":60000000000`, `"slowStart":-1`), want: ErrCorrupt},
		"a readiness of another key":   {content: valid(`"unready":[{"destination":{"Service":{"Key":{"Addr":"192.0.2.1"`, `"unready":[{"destination":{"Service":{"Key":{"Addr":"192.0.2.2"`), want: ErrCorrupt},
		"an interface without a name":  {content: valid(`"veth0"`, `""`), want: ErrCorrupt},
		"a check without an interval":  {content: valid(`"interval":2000000000`, `"interval":0`), want: ErrCorrupt},
		"a check without a threshold":  {content: valid(`"failureThreshold":3`, `"failureThreshold":0`), want: ErrCorrupt},
		"a check of no address":        {content: valid(`"addr":"10.0.0.7","port":80}`, `"addr":"","port":80}`), want: ErrCorrupt},
		"a group twice":                {content: valid(`"groups":[`, `"groups":[{"group":0,"epoch":1},`), want: ErrCorrupt},
		"an epoch that is out of hand": {content: valid(`"epoch":7`, `"epoch":-7`), want: ErrCorrupt},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "default.json")
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Load(path)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Load() = %v, want %v that names the file", err, tc.want)
			}
			if diff := cmp.Diff(Checkpoint{}, got, alike); diff != "" {
				t.Errorf("Load() gave something (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadSaysThatThereIsNone(t *testing.T) {
	if _, err := Load(Path(t.TempDir(), "default")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load() = %v, want os.ErrNotExist", err)
	}
}

// TestACrashBeforeTheRenameKeepsTheOldOne leaves behind what a process that
// died while saving does.
func TestACrashBeforeTheRenameKeepsTheOldOne(t *testing.T) {
	path := Path(t.TempDir(), "default")
	if err := Save(path, example()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".part", []byte(versionFive[:40]), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got, alike); diff != "" {
		t.Errorf("after the crash (-want +got):\n%s", diff)
	}

	later := example()
	later.Groups[0].Epoch = 8
	if err := Save(path, later); err != nil {
		t.Fatal(err)
	}
	if got, err = Load(path); err != nil || got.Groups[0].Epoch != 8 {
		t.Errorf("after the next Save: %+v, %v", got.Groups, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want the checkpoint alone", entries, err)
	}
}

func TestAFailedSaveKeepsTheOldOne(t *testing.T) {
	path := Path(t.TempDir(), "default")
	if err := Save(path, example()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path+".part", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	later, wrong := example(), example()
	later.Groups[0].Epoch = 8
	wrong.Keys = append(wrong.Keys, wrong.Keys[0])
	if err := Save(path, later); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Save() = %v, want an error that names the file", err)
	}
	if err := Save(path, wrong); err == nil {
		t.Error("Save() took what Load would refuse")
	}
	if got, err := Load(path); err != nil || got.Groups[0].Epoch != 7 {
		t.Errorf("the old one: %+v, %v", got.Groups, err)
	}
}

func TestOnlyTheOwnerReadsTheFile(t *testing.T) {
	path := Path(t.TempDir(), "default")
	if err := os.WriteFile(path+".part", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Save(path, example()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %s, %v; want 0600", info.Mode(), err)
	}
}

func addresses() *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		last := rapid.Byte().Draw(t, "last byte")
		if rapid.Bool().Draw(t, "IPv6") {
			return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: last})
		}
		return netip.AddrFrom4([4]byte{192, 0, 2, last})
	})
}

func keys() *rapid.Generator[Key] {
	return rapid.Custom(func(t *rapid.T) Key {
		key := netstate.Key{Mark: rapid.Uint32Range(0, 3).Draw(t, "mark")}
		if key.Mark == 0 {
			key.Addr = addresses().Draw(t, "VIP")
		}
		k := Key{Key: key, State: netstate.New()}
		for range rapid.IntRange(0, 3).Draw(t, "services") {
			service := netstate.ServiceKey{Key: key}
			if key.Mark == 0 {
				service.Protocol = rapid.SampledFrom([]netstate.Protocol{netstate.TCP, netstate.UDP}).Draw(t, "protocol")
				service.Port = rapid.Uint16Min(1).Draw(t, "port")
			}
			k.State.Services[service] = netstate.Service{Scheduler: "wlc"}
			k.Owners = append(k.Owners, Owner{Service: service, Namespace: rapid.String().Draw(t, "namespace"), Name: "web"})
			destination := netstate.DestinationKey{Service: service, Addr: addresses().Draw(t, "server"), Port: service.Port}
			k.State.Destinations[destination] = netstate.Destination{
				Method: netstate.DR, Weight: rapid.Uint32Range(0, 65535).Draw(t, "weight"),
			}
			k.Checks = append(k.Checks, checks(destination).Draw(t, "check"))
			if rapid.Bool().Draw(t, "unready") {
				k.Unready = append(k.Unready, Unready{Destination: destination, Why: rapid.String().Draw(t, "why")})
			}
			if !slices.ContainsFunc(k.Policies, func(p Policy) bool { return p.Service == service }) {
				k.Policies = append(k.Policies, policies(service).Draw(t, "policy"))
			}
		}
		k.Links = rapid.SliceOfN(rapid.StringN(1, 15, -1), 0, 3).Draw(t, "links")
		return k
	})
}

func policies(service netstate.ServiceKey) *rapid.Generator[Policy] {
	return rapid.Custom(func(t *rapid.T) Policy {
		p := Policy{
			Service: service, Quiesce: rapid.Bool().Draw(t, "quiesce"),
			DrainTimeout: time.Duration(rapid.Int64Min(0).Draw(t, "drainTimeout")),
			SlowStart:    time.Duration(rapid.Int64Min(0).Draw(t, "slowStart")),
			Scale:        rapid.Uint32().Draw(t, "scale"),
			Quorum:       rapid.Uint64().Draw(t, "quorum"), Hysteresis: rapid.Uint64().Draw(t, "hysteresis"),
		}
		if rapid.Bool().Draw(t, "sorry") {
			p.Sorry = addresses().Draw(t, "sorry server")
		}
		return p
	})
}

func checks(destination netstate.DestinationKey) *rapid.Generator[Check] {
	return rapid.Custom(func(t *rapid.T) Check {
		durations := rapid.Map(rapid.Int64Min(1), func(n int64) time.Duration { return time.Duration(n) })
		return Check{
			Destination: destination, Name: rapid.String().Draw(t, "name"), InitiallyUp: rapid.Bool().Draw(t, "initiallyUp"),
			Target: Target{Type: rapid.String().Draw(t, "type"), Addr: destination.Addr, Port: rapid.Uint16().Draw(t, "port")},
			Schedule: Schedule{
				Interval: durations.Draw(t, "interval"), Timeout: durations.Draw(t, "timeout"),
				RetryInterval:    durations.Draw(t, "retryInterval"),
				FailureThreshold: rapid.IntMin(1).Draw(t, "failureThreshold"),
				SuccessThreshold: rapid.IntMin(1).Draw(t, "successThreshold"),
			},
		}
	})
}

func checkpoints() *rapid.Generator[Checkpoint] {
	return rapid.Custom(func(t *rapid.T) Checkpoint {
		return Checkpoint{
			Pool: rapid.String().Draw(t, "pool"), NodeName: rapid.String().Draw(t, "node"),
			Node: netstate.Node{Interface: rapid.String().Draw(t, "interface"), Guard: rapid.Bool().Draw(t, "guard")},
			Keys: rapid.SliceOfNDistinct(keys(), 0, 4, func(k Key) netstate.Key { return k.Key }).Draw(t, "keys"),
			Groups: rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Group {
				return Group{
					Group: rapid.IntRange(0, 31).Draw(t, "group"), Epoch: rapid.Int64Min(0).Draw(t, "epoch"),
					Active: rapid.Bool().Draw(t, "active"),
				}
			}), 0, 3, func(g Group) int { return g.Group }).Draw(t, "groups"),
			Peers: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Peer {
				return Peer{Node: rapid.String().Draw(t, "peer"), Addr: addresses().Draw(t, "address"), MAC: "02:00:00:00:00:01"}
			}), 0, 3).Draw(t, "peers"),
		}
	})
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	path := Path(t.TempDir(), "default")
	rapid.Check(t, func(t *rapid.T) {
		want := checkpoints().Draw(t, "checkpoint")
		if err := Save(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, alike); diff != "" {
			t.Fatalf("Load() (-want +got):\n%s", diff)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(versionFive))
	f.Add([]byte(`{"version":4}`))
	f.Add([]byte(`{"version":5,"keys":[{"key":{"Mark":3},"state":""}]}`))
	f.Add([]byte(`{"version":5,"keys":[null],"groups":[null],"peers":[null]}`))
	f.Add([]byte(`{"version":5}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decode(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("decode() = %v, which is neither ErrCorrupt nor ErrVersion", err)
			}
			return
		}
		if err := c.validate(); err != nil {
			t.Errorf("decode() let through: %v", err)
		}
		encoded, err := encode(c)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := decode(encoded)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if diff := cmp.Diff(c, again, alike); diff != "" {
			t.Errorf("it changed on the way (-first +second):\n%s", diff)
		}
	})
}
