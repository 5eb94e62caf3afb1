package kernel

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// scribe writes down what is done to destinations, and what expire_nodest_conn is at
// that moment.
type scribe struct {
	*fakeHandle
	tree tree
	did  []string
	fail map[string]error
}

func (s *scribe) note(what string, d *ipvs.Destination) error {
	expires := s.tree.all(map[string]string{expireNodest: ""})[expireNodest]
	s.did = append(s.did, fmt.Sprintf("%s weight %d, expires %s", what, d.Weight, expires))
	return s.fail[what]
}

func (s *scribe) NewDestination(_ *ipvs.Service, d *ipvs.Destination) error { return s.note("new", d) }

func (s *scribe) UpdateDestination(_ *ipvs.Service, d *ipvs.Destination) error {
	return s.note("update", d)
}

func (s *scribe) DelDestination(_ *ipvs.Service, d *ipvs.Destination) error { return s.note("del", d) }

func TestADestinationMovesWhileConnectionsWait(t *testing.T) {
	quiet := netstate.Destination{Method: netstate.DR, LastWeight: 5}
	for name, tc := range map[string]struct {
		verb    netstate.Verb
		value   netstate.Destination
		expires string
		fail    map[string]error
		want    []string
		wantErr bool
	}{
		"a move": {
			verb: netstate.Move, value: netstate.Destination{Method: netstate.DR, Weight: 3}, expires: "1",
			want: []string{"del weight 3, expires 0", "new weight 3, expires 0"},
		},
		"of one at weight 0": {
			verb: netstate.Move, value: quiet, expires: "1",
			want: []string{"del weight 0, expires 0", "new weight 5, expires 0", "update weight 0, expires 0"},
		},
		"where they wait anyhow": {
			verb: netstate.Move, value: netstate.Destination{Method: netstate.DR, Weight: 3}, expires: "0",
			want: []string{"del weight 3, expires 0", "new weight 3, expires 0"},
		},
		"of one that is gone": {
			verb: netstate.Move, value: netstate.Destination{Method: netstate.DR, Weight: 3}, expires: "1",
			fail: map[string]error{"del": unix.ENOENT},
			want: []string{"del weight 3, expires 0", "new weight 3, expires 0"},
		},
		"a move that fails": {
			verb: netstate.Move, value: netstate.Destination{Method: netstate.DR, Weight: 3}, expires: "1",
			fail: map[string]error{"new": unix.ENOMEM}, wantErr: true,
			want: []string{"del weight 3, expires 0", "new weight 3, expires 0"},
		},
		"one that is added at weight 0 is counted first": {
			verb: netstate.Add, value: quiet, expires: "1",
			want: []string{"new weight 5, expires 1", "update weight 0, expires 1"},
		},
		"one that goes to weight 0 too": {
			verb: netstate.Set, value: quiet, expires: "1",
			want: []string{"update weight 5, expires 1", "update weight 0, expires 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t, t.TempDir(), map[string]string{expireNodest: tc.expires})
			h := &scribe{fakeHandle: newFakeHandle(), tree: tr, fail: tc.fail}
			conn := connWith(newFakeHandle())
			conn.open = func() (ipvsHandle, error) { return h, nil }
			c := &Client{ipvs: conn, opts: Options{Sysctls: tr.root}, record: newRecord(t.TempDir(), directorRecord)}
			err := c.apply(t.Context(), netstate.DestinationChange{Verb: tc.verb, Value: tc.value, Entry: netstate.DestinationKey{
				Service: netstate.ServiceKey{Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.1")}, Protocol: netstate.TCP, Port: 80},
				Addr:    netip.MustParseAddr("10.0.0.7"), Port: 80,
			}})
			if (err != nil) != tc.wantErr {
				t.Errorf("apply() = %v", err)
			}
			if diff := cmp.Diff(tc.want, h.did); diff != "" {
				t.Errorf("what was done (-want +got):\n%s", diff)
			}
			if got := tr.all(map[string]string{expireNodest: ""})[expireNodest]; got != tc.expires {
				t.Errorf("expire_nodest_conn is %s in the end, want %s", got, tc.expires)
			}
		})
	}
}
