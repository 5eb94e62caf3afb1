package listen

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"0": "", ":80": "[::]:80", "127.0.0.1:80": "127.0.0.1:80", "[10.0.0.1]:80": "10.0.0.1:80",
		"[::1]:80": "[::1]:80", "[[fd00::1]]:80": "[fd00::1]:80", "fd00::1:80": "[fd00::1]:80",
	} {
		if got, err := Address(text); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "80", "127.0.0.1", "a:80", "127.0.0.1:", "127.0.0.1:65536", ":-1"} {
		if got, err := Address(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, address := range []string{"127.0.0.1:0", "0"} {
		if err := Serve(ctx, address, http.NotFoundHandler()); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", address, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	if err := Serve(t.Context(), taken.Addr().String(), http.NotFoundHandler()); err == nil {
		t.Error("an address that is taken is no error")
	}
}

func TestHealth(t *testing.T) {
	handler := Health(func() error { return nil }, func() error { return errors.New("not yet") })
	for path, want := range map[string]struct {
		code int
		body string
	}{"/healthz": {200, "ok"}, "/readyz": {503, "not yet"}, "/": {404, ""}} {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if recorder.Code != want.code || !strings.Contains(recorder.Body.String(), want.body) {
			t.Errorf("%s: %d %q", path, recorder.Code, recorder.Body.String())
		}
	}
}
