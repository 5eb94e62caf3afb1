package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const testLimit = 20 * time.Second

// startServer serves one end of a pipe and returns the other.
func startServer(t *testing.T) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(there) }()
	t.Cleanup(func() {
		here.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v, want nil after a hang-up", err)
		}
	})
	return here
}

func dial(t *testing.T, line net.Conn) *Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	session, err := Dial(ctx, line)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func TestRun(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 100_000)
	cases := map[string]struct {
		args             []string
		stdin            string
		noStdin          bool
		wantOut, wantErr string
		wantCode         int
		wantFailure      bool
	}{
		"streams apart":              {args: []string{"sh", "-c", "echo out; echo err >&2"}, wantOut: "out\n", wantErr: "err\n"},
		"exit code":                  {args: []string{"sh", "-c", "exit 7"}, wantCode: 7},
		"a signal counts from 128":   {args: []string{"sh", "-c", "kill -TERM $$"}, wantCode: 143},
		"stdin":                      {args: []string{"cat"}, stdin: "hello", wantOut: "hello"},
		"more stdin than the window": {args: []string{"cat"}, stdin: large, wantOut: large},
		"stdin that nobody reads":    {args: []string{"true"}, stdin: large},
		"no stdin is an empty one":   {args: []string{"cat"}, noStdin: true},
		"no such program":            {args: []string{"/does/not/exist"}, wantCode: -1, wantFailure: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			streams := Streams{Stdout: &stdout, Stderr: &stderr, Stdin: strings.NewReader(tc.stdin)}
			if tc.noStdin {
				streams.Stdin = nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), testLimit)
			defer cancel()
			code, err := dial(t, startServer(t)).Run(ctx, tc.args, streams)
			if code != tc.wantCode || (err != nil) != tc.wantFailure {
				t.Fatalf("Run() = %d, %v, want %d", code, err, tc.wantCode)
			}
			if stdout.String() != tc.wantOut || stderr.String() != tc.wantErr {
				t.Errorf("%d bytes out, %q, want %d, %q", stdout.Len(), stderr.String(), len(tc.wantOut), tc.wantErr)
			}
		})
	}
}

// sleeper returns a command that writes its process id to a file and waits,
// and a function that waits for that id.
func sleeper(t *testing.T) (args []string, pid func() int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() int {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var id int
		for _, digit := range bytes.TrimSpace(content) {
			id = id*10 + int(digit-'0')
		}
		return id
	}
	return []string{"sh", "-c", "echo $$ > " + file + "; exec sleep 1000"}, read
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(testLimit)
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func TestHangingUpEndsTheCommand(t *testing.T) {
	args, pid := sleeper(t)
	ctx, cancel := context.WithCancel(t.Context())
	session := dial(t, startServer(t))
	ended := make(chan error, 1)
	go func() {
		_, err := session.Run(ctx, args, Streams{})
		ended <- err
	}()
	id := pid()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run() = %v, want that it was cancelled", err)
	}
	waitGone(t, id)
}

// lateLine is a line whose server did not hear the first caller hang up: a
// second caller finds the rest of the first one's session.
type lateLine struct{ net.Conn }

func (lateLine) Close() error { return nil }

func TestNextCallerFindsALineInUse(t *testing.T) {
	args, pid := sleeper(t)
	line := startServer(t)
	first := dial(t, lateLine{line})
	// The server reads from this pipe whatever the first caller does.
	request := `{"args":["` + strings.Join(args, `","`) + `"]}`
	if err := first.writer.write(first.id, open, []byte(request)); err != nil {
		t.Fatal(err)
	}
	id := pid()

	var stdout bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	code, err := dial(t, line).Run(ctx, []string{"echo", "second"}, Streams{Stdout: &stdout})
	if code != 0 || err != nil || stdout.String() != "second\n" {
		t.Errorf("Run() = %d, %v with %q, want the second command's output alone", code, err, stdout.String())
	}
	waitGone(t, id)
}

func TestDialSkipsWhatIsLeft(t *testing.T) {
	here, there := net.Pipe()
	go func() {
		// The tail of a frame that an earlier session did not read.
		_, _ = there.Write([]byte("\x00\x00rest of a frame"))
		_ = Serve(there)
	}()
	var stdout bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	// The pipe has no buffer, so hello has to be read while the rest is
	// written; a buffered line is what the kernel gives.
	session, err := Dial(ctx, newBuffered(here))
	if err != nil {
		t.Fatal(err)
	}
	if code, err := session.Run(ctx, []string{"echo", "fine"}, Streams{Stdout: &stdout}); code != 0 || err != nil || stdout.String() != "fine\n" {
		t.Errorf("Run() = %d, %v with %q", code, err, stdout.String())
	}
}

// buffered writes in the background, as a socket does.
type buffered struct {
	net.Conn
	writes chan []byte
}

func newBuffered(conn net.Conn) *buffered {
	b := &buffered{Conn: conn, writes: make(chan []byte, 100)}
	go func() {
		for p := range b.writes {
			_, _ = conn.Write(p)
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.writes <- bytes.Clone(p)
	return len(p), nil
}
