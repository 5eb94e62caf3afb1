package kernel

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var sameAddress = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestDaemonIsReadAsItIsWritten(t *testing.T) {
	header := make([]byte, genlHeaderLength)
	for name, want := range map[string]SyncDaemon{
		"all":        {Interface: "eth0.100", ID: 200, Group: netip.MustParseAddr("239.1.2.3"), Port: 9000, TTL: 3, MaxLen: 1400},
		"no default": {Interface: "e", Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1},
	} {
		for _, role := range []syncRole{syncMaster, syncBackup} {
			gotRole, got, err := parseDaemon(append(header, want.attributes(role).Serialize()...))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(want, got, sameAddress); diff != "" || gotRole != role {
				t.Errorf("%s: as %s (-want +got):\n%s", name, gotRole, diff)
			}
		}
	}
}

func TestDaemonMatchesWhatItFillsIn(t *testing.T) {
	running := SyncDaemon{Interface: "eth0", ID: 7, Group: DefaultSyncGroup(), Port: DefaultSyncPort, TTL: 1, MaxLen: 1472}
	if want := (SyncDaemon{Interface: "eth0", ID: 7}); !want.matches(running) {
		t.Errorf("%+v does not match %+v, which has the defaults", want, running)
	}
	for name, change := range map[string]func(*SyncDaemon){
		"interface": func(d *SyncDaemon) { d.Interface = "eth1" },
		"ID":        func(d *SyncDaemon) { d.ID = 8 },
		"group":     func(d *SyncDaemon) { d.Group = netip.MustParseAddr("224.0.0.82") },
		"port":      func(d *SyncDaemon) { d.Port = 8850 },
		"TTL":       func(d *SyncDaemon) { d.TTL = 2 },
		"length":    func(d *SyncDaemon) { d.MaxLen = 1000 },
	} {
		want := running
		change(&want)
		if want.matches(running) {
			t.Errorf("another %s matches", name)
		}
	}
}

func FuzzParseDaemon(f *testing.F) {
	header := make([]byte, genlHeaderLength)
	f.Add(append(header, SyncDaemon{Interface: "eth0", ID: 1, MaxLen: 9}.attributes(syncBackup).Serialize()...))
	f.Add(header)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, reply []byte) {
		role, _, err := parseDaemon(reply)
		if err == nil && role != syncMaster && role != syncBackup {
			t.Errorf("role %d", role)
		}
	})
}
