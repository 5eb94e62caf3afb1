package kernel

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// fakeHandle answers what a test says. Calls that it has no answer for panic.
type fakeHandle struct {
	ipvsHandle
	present      bool
	configErr    error
	getService   func() (*ipvs.Service, error)
	destinations func() ([]*ipvs.Destination, error)
	services     func() ([]*ipvs.Service, error)
	deleteErr    error
	closed       chan struct{}
}

func newFakeHandle() *fakeHandle { return &fakeHandle{closed: make(chan struct{})} }

func (h *fakeHandle) IsServicePresent(*ipvs.Service) bool { return h.present }

func (h *fakeHandle) GetConfig() (*ipvs.Config, error) { return &ipvs.Config{}, h.configErr }

func (h *fakeHandle) GetService(*ipvs.Service) (*ipvs.Service, error) { return h.getService() }

func (h *fakeHandle) GetServices() ([]*ipvs.Service, error) { return h.services() }

func (h *fakeHandle) GetDestinations(*ipvs.Service) ([]*ipvs.Destination, error) {
	return h.destinations()
}

func (h *fakeHandle) DelService(*ipvs.Service) error { return h.deleteErr }

func (h *fakeHandle) Close() { close(h.closed) }

// hang waits until the handle is closed, as moby does for a reply that is lost.
func (h *fakeHandle) hang() (*ipvs.Service, error) {
	<-h.closed
	return nil, errors.New("socket closed")
}

// connWith makes a connection whose first handle is h, and further ones plain.
func connWith(h *fakeHandle) *ipvsConn {
	next := h
	return &ipvsConn{
		timeout: time.Second,
		look:    func() (uint16, error) { return 33, nil },
		open: func() (ipvsHandle, error) {
			opened := next
			next = newFakeHandle()
			return opened, nil
		},
		turn: make(chan struct{}, 1),
	}
}

func TestALostReplyIsGivenUpAndTheHandleReplaced(t *testing.T) {
	cases := map[string]struct {
		limit time.Duration
		want  []error
		after time.Duration
	}{
		"by the watchdog":            {time.Hour, []error{ErrLostReply}, time.Second},
		"by the caller's own limit":  {time.Millisecond, []error{ErrLostReply, context.DeadlineExceeded}, time.Millisecond},
		"a limit that is over early": {0, []error{context.DeadlineExceeded}, 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHandle()
				conn := connWith(h)
				ctx, cancel := context.WithTimeout(t.Context(), tc.limit)
				defer cancel()
				began := time.Now()
				_, err := exchange(ctx, conn, func(ipvsHandle) (*ipvs.Service, error) { return h.hang() })
				for _, want := range tc.want {
					if !errors.Is(err, want) {
						t.Errorf("exchange() = %v, want %v", err, want)
					}
				}
				if took := time.Since(began); took != tc.after {
					t.Errorf("it took %s, want %s", took, tc.after)
				}
				if err := conn.present(t.Context()); err != nil {
					t.Errorf("the next call = %v", err)
				}
			})
		})
	}
}

func TestCallersTakeTurns(t *testing.T) {
	conn := connWith(newFakeHandle())
	var inside atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 100 {
				err := conn.do(t.Context(), func(ipvsHandle) error {
					if inside.Add(1) != 1 {
						t.Error("two callers use the handle")
					}
					inside.Add(-1)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestACallerThatWaitsForItsTurnGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := connWith(newFakeHandle())
		conn.turn <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := conn.present(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("present() = %v, want DeadlineExceeded", err)
		}
	})
}

func TestAnAbsentFamilyIsLookedForAgain(t *testing.T) {
	conn := connWith(newFakeHandle())
	opened := 0
	open := conn.open
	conn.open = func() (ipvsHandle, error) { opened++; return open() }
	conn.look = func() (uint16, error) { return 0, ErrNoIPVS }
	for range 2 {
		if err := conn.present(t.Context()); !errors.Is(err, ErrNoIPVS) {
			t.Fatalf("present() = %v, want ErrNoIPVS", err)
		}
	}
	if opened != 0 {
		t.Error("the library was used while there was no family: it would remember that")
	}
	conn.look = func() (uint16, error) { return 33, nil }
	if err := conn.present(t.Context()); err != nil {
		t.Errorf("present() = %v", err)
	}
}

func TestALibraryThatSpeaksToNobodyIsFoundOut(t *testing.T) {
	cases := map[string]func(*fakeHandle){
		"it found no family: everything succeeds":  func(h *fakeHandle) { h.present = true },
		"it knows the number of a family that was": func(h *fakeHandle) { h.configErr = unix.ENOENT },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			h := newFakeHandle()
			spoil(h)
			if err := connWith(h).present(t.Context()); !errors.Is(err, ErrStaleIPVS) {
				t.Errorf("present() = %v, want ErrStaleIPVS", err)
			}
		})
	}
}

func TestENOENTFromAFamilyThatIsGoneIsNoAnswer(t *testing.T) {
	cases := map[string]struct {
		look func() (uint16, error)
		want error
	}{
		"gone":                  {func() (uint16, error) { return 0, ErrNoIPVS }, ErrNoIPVS},
		"there under a new one": {func() (uint16, error) { return 34, nil }, ErrStaleIPVS},
		"there as before":       {func() (uint16, error) { return 33, nil }, unix.ENOENT},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := newFakeHandle()
			h.deleteErr = unix.ENOENT
			conn := connWith(h)
			if err := conn.present(t.Context()); err != nil {
				t.Fatal(err)
			}
			conn.look = tc.look
			if err := conn.do(t.Context(), func(h ipvsHandle) error { return h.DelService(nil) }); !errors.Is(err, tc.want) {
				t.Errorf("do() = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAClosedConnectionStaysClosed(t *testing.T) {
	conn := connWith(newFakeHandle())
	if err := conn.present(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn.close()
	if err := conn.present(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("present() = %v, want ErrClosed", err)
	}
}

func TestAMissInOneDumpIsVerifiedByAnother(t *testing.T) {
	service := netstate.ServiceKey{Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.1")}, Protocol: netstate.TCP, Port: 80}
	dest := func(last byte) *ipvs.Destination {
		return &ipvs.Destination{Address: []byte{10, 0, 0, last}, Port: 80, ConnectionFlags: ipvs.ConnFwdDirectRoute, Weight: 1}
	}
	key := func(last byte) netstate.DestinationKey {
		return netstate.DestinationKey{Service: service, Addr: netip.AddrFrom4([4]byte{10, 0, 0, last}), Port: 80}
	}
	cases := map[string]struct {
		known     []byte
		dumps     [][]*ipvs.Destination
		want      []byte
		wantDumps int
	}{
		"all there in the first":            {[]byte{1, 2}, [][]*ipvs.Destination{{dest(1), dest(2)}}, []byte{1, 2}, 1},
		"one missing in the first":          {[]byte{1, 2}, [][]*ipvs.Destination{{dest(1)}, {dest(1), dest(2)}}, []byte{1, 2}, 2},
		"each dump has another one":         {[]byte{1, 2}, [][]*ipvs.Destination{{dest(1)}, {dest(2)}}, []byte{1, 2}, 2},
		"gone by the word of two":           {[]byte{1, 2}, [][]*ipvs.Destination{{dest(1)}, {dest(1)}}, []byte{1}, 2},
		"one that nobody knew is found too": {nil, [][]*ipvs.Destination{{dest(3)}}, []byte{3}, 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := newFakeHandle()
			dumps := 0
			h.destinations = func() ([]*ipvs.Destination, error) {
				dumps++
				return tc.dumps[dumps-1], nil
			}
			c := &Client{ipvs: connWith(h)}
			known := map[netstate.DestinationKey]netstate.Destination{}
			for _, last := range tc.known {
				known[key(last)] = netstate.Destination{}
			}
			found, _, err := c.readDestinations(t.Context(), service, known)
			if err != nil {
				t.Fatal(err)
			}
			if dumps != tc.wantDumps {
				t.Errorf("%d dumps, want %d", dumps, tc.wantDumps)
			}
			if len(found) != len(tc.want) {
				t.Errorf("found %v, want %v", found, tc.want)
			}
			for _, last := range tc.want {
				if _, ok := found[key(last)]; !ok {
					t.Errorf("%s is missing", key(last))
				}
			}
		})
	}
}

func TestAnAuditJoinsTwoDumpsOfServices(t *testing.T) {
	service := func(port uint16) *ipvs.Service {
		return &ipvs.Service{AddressFamily: unix.AF_INET, Address: []byte{192, 0, 2, 1}, Protocol: 6, Port: port}
	}
	h := newFakeHandle()
	dumps := 0
	h.services = func() ([]*ipvs.Service, error) {
		dumps++
		return [][]*ipvs.Service{{service(80)}, {service(443)}}[dumps-1], nil
	}
	c := &Client{ipvs: connWith(h)}
	found, err := c.listServices(t.Context(), func(netstate.Key) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 {
		t.Errorf("found %v, want both", found)
	}
}

func TestNetmasks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for family, longest := range map[uint16]int{unix.AF_INET: 32, unix.AF_INET6: 128} {
			bits := rapid.IntRange(1, longest).Draw(t, "bits")
			if got := fromNetmask(family, toNetmask(family, bits)); int(got) != bits {
				t.Fatalf("a prefix of %d comes back as %d", bits, got)
			}
		}
	})
	// Network byte order in memory: on a little-endian machine /24 is 0x00ffffff.
	if got := toNetmask(unix.AF_INET, 32); got != 0xffffffff {
		t.Errorf("/32 = %#x", got)
	}
}

func TestTheHashedFlagOfTheKernelIsNoDifference(t *testing.T) {
	key := netstate.ServiceKey{Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.1")}, Protocol: netstate.TCP, Port: 80}
	want := netstate.Service{
		Scheduler: "sh", Flags: netstate.Port, OnePacket: true, Persistence: 300 * time.Second, PersistencePrefix: 24,
	}
	listed := toService(key, want)
	listed.Flags |= flagHashed
	gotKey, got := fromService(listed)
	if gotKey != key {
		t.Errorf("key %v, want %v", gotKey, key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("service (-want +got):\n%s", diff)
	}
}
