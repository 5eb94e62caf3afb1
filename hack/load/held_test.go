package load

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestHeldConnectionsTellWhichOfThemAreLost(t *testing.T) {
	var mu sync.Mutex
	var accepted []net.Conn
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateNew {
			accepted = append(accepted, conn)
		}
	}
	server.Start()
	defer server.Close()
	var dialer net.Dialer
	held, err := Hold(t.Context(), Options{Address: server.Listener.Addr().String(), Dial: dialer.DialContext}, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if failures := held.Ask(time.Minute); len(failures) != 0 {
		t.Fatalf("all are open, and %v", failures)
	}
	mu.Lock()
	_ = accepted[1].Close()
	mu.Unlock()
	if failures := held.Ask(time.Minute); len(failures) != 1 {
		t.Errorf("one of three is lost, and %d say so: %v", len(failures), failures)
	}
	talking, stop := context.WithCancel(t.Context())
	lost := held.Talk(talking, time.Millisecond, time.Minute)
	await(t, func() bool { return asked.Load() > 20 })
	mu.Lock()
	_ = accepted[2].Close()
	mu.Unlock()
	stop()
	if failures := lost(); len(failures) != 2 {
		t.Errorf("two of three are lost, and %d say so: %v", len(failures), failures)
	}
	if len(accepted) != 3 {
		t.Errorf("%d connections were opened, want 3: they are not held", len(accepted))
	}
}
