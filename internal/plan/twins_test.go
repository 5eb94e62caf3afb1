package plan

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// marked returns a destination of the marked service of its name.
func marked(key netstate.DestinationKey) netstate.DestinationKey {
	key.Service.Marked = true
	return key
}

func TestWantKeepsWhatAServiceWasBeforeItsMarks(t *testing.T) {
	own := destinationKey(testWeb, "192.168.11.2")
	udp := destinationKey(serviceKey("192.168.11.200", 53, netstate.UDP), "192.168.11.135")
	for name, tc := range map[string]struct {
		desired, have weights
		connections   uint32
		local         string
		since         time.Duration
		want          weights
	}{
		"a service becomes marked": {
			desired: weights{marked(testWeb1): 2, marked(testWeb2): 1}, have: weights{testWeb1: 2, testWeb2: 1}, connections: 1,
			want: weights{marked(testWeb1): 2, marked(testWeb2): 1, testWeb1: 0, testWeb2: 0},
		},
		"a service is marked no more": {
			desired: weights{testWeb1: 2}, have: weights{marked(testWeb1): 2, marked(own): 1}, connections: 1, local: "192.168.11.2",
			want: weights{testWeb1: 2, marked(testWeb1): 0, marked(own): 0},
		},
		"it becomes marked where the director is a real server: what others send stays here": {
			desired: weights{marked(testWeb1): 2, marked(own): 1}, have: weights{testWeb1: 2}, connections: 1, local: "192.168.11.2",
			want: weights{marked(testWeb1): 2, marked(own): 1, testWeb1: 0, own: 1},
		},
		"nothing is kept without connections": {
			desired: weights{marked(testWeb1): 2, marked(own): 1}, have: weights{testWeb1: 2}, local: "192.168.11.2",
			want: weights{marked(testWeb1): 2, marked(own): 1},
		},
		"nor when its time is up": {
			desired: weights{marked(testWeb1): 2}, have: weights{testWeb1: 0}, connections: 1, since: testTimeout,
			want: weights{marked(testWeb1): 2},
		},
		"nor of UDP": {
			desired: weights{marked(udp): 1}, have: weights{udp: 1}, connections: 1, want: weights{marked(udp): 1},
		},
		"nor of a service that goes": {
			desired: weights{marked(udp): 1}, have: weights{testWeb1: 1}, connections: 1, want: weights{marked(udp): 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			desired := desiredOf(tc.desired)
			delete(desired.State.Services, testWeb)
			for key := range tc.desired {
				desired.State.Services[key.Service] = netstate.Service{Scheduler: "wrr", PersistencePrefix: 32}
			}
			if tc.local != "" {
				desired.Local = []netip.Addr{netip.MustParseAddr(tc.local)}
			}
			memory := Memory{Draining: map[netstate.DestinationKey]time.Time{}}
			if tc.since > 0 {
				for key := range tc.have {
					memory.Draining[key] = noon.Add(-tc.since)
				}
			}
			got, later, _ := Want(desired, observed(tc.have, tc.connections), byPort(nil), memory, noon)
			if diff := cmp.Diff(tc.want, weightsOf(got), byValue...); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
			for key := range got.Destinations {
				if _, ok := got.Services[key.Service]; !ok {
					t.Errorf("%s has no service", key)
				}
				_, desired := tc.desired[key]
				_, drains := later.Draining[key]
				if _, there := tc.have[key]; there && !desired && !drains {
					t.Errorf("%s is not remembered", key)
				}
			}
		})
	}
}
