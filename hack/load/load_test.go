package load

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRecorderTellsAnswersFromFailures(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("rs1\n")) }))
	address := strings.TrimPrefix(server.URL, "http://")
	ctx, cancel := context.WithCancel(t.Context())
	recorder, wait := Start(ctx, Options{Address: address, Network: "tcp", Rate: 200, Dial: (&net.Dialer{}).DialContext})
	begin := time.Now()
	await(t, func() bool { return len(recorder.Results(begin, time.Now())) > 10 })
	server.Close()
	closed := time.Now()
	await(t, func() bool { return Summarize(recorder.Results(closed, time.Now())).Failed > 3 })
	cancel()
	wait()
	if s := Summarize(recorder.Results(begin, closed)); s.PerServer["rs1"] < 10 {
		t.Errorf("answers of rs1 = %d, want at least 10 of %d", s.PerServer["rs1"], s.Requests)
	}
	if s := Summarize(recorder.Results(closed, time.Now())); s.PerServer["rs1"] > 1 || s.Outage == 0 {
		t.Errorf("after the end: %+v, want failures alone", s)
	}
}

// await polls until the condition holds: what is waited for comes from other
// goroutines' real connections.
func await(t *testing.T, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("gave up waiting")
		}
	}
}
