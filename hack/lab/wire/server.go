package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Serve runs the commands that come over the line, one at a time, until the
// caller hangs up or the line breaks; then it ends the command that runs.
func Serve(line io.ReadWriter) error {
	reader := bufio.NewReader(line)
	server := &server{frames: &frameWriter{w: line}}
	defer server.end()
	for {
		f, err := readFrame(reader)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := server.handle(f); err != nil {
			return err
		}
	}
}

type server struct {
	frames  *frameWriter
	session session
	stdin   chan []byte
	// end stops what runs; it may be called at any time, and again.
	cancel context.CancelFunc
}

func (s *server) end() {
	if s.cancel != nil {
		s.cancel()
	}
	s.cancel, s.stdin = nil, nil
}

func (s *server) handle(f frame) error {
	if f.kind == hello {
		// A caller that was gone before we heard it hang up.
		s.end()
		s.session = f.session
		return s.frames.write(f.session, welcome, nil)
	}
	if f.session != s.session {
		return nil
	}
	switch f.kind {
	case open:
		var request Request
		if err := json.Unmarshal(f.payload, &request); err != nil || len(request.Args) == 0 {
			return s.frames.write(f.session, exited, marshal(exit{Error: "not a command"}))
		}
		s.end()
		ctx, cancel := context.WithCancel(context.Background())
		s.cancel = cancel
		s.stdin = make(chan []byte, window+1) // one for the end
		go run(ctx, request, s.stdin, s.frames, f.session)
	case input:
		s.feed(f.payload)
	case inputEnd:
		s.feed(nil)
	}
	return nil
}

func (s *server) feed(piece []byte) {
	select {
	case s.stdin <- piece:
	default: // a caller that breaks the rules, or a command that has ended
	}
}

func run(ctx context.Context, request Request, stdin <-chan []byte, frames *frameWriter, id session) {
	cmd := exec.CommandContext(ctx, request.Args[0], request.Args[1:]...)
	cmd.Stdout = stream{frames, id, output}
	cmd.Stderr = stream{frames, id, errorOutput}
	// Its own group, so that what it started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A process left in the background keeps its stdout without keeping us.
	cmd.WaitDelay = time.Second
	var pipe io.WriteCloser
	if request.Stdin {
		var err error
		if pipe, err = cmd.StdinPipe(); err != nil {
			_ = frames.write(id, exited, marshal(exit{Error: err.Error()}))
			return
		}
	}
	if err := cmd.Start(); err != nil {
		_ = frames.write(id, exited, marshal(exit{Error: err.Error()}))
		return
	}
	if request.Stdin {
		go feedCommand(ctx, pipe, stdin, frames, id)
	}
	// The line's end is Serve's to notice.
	_ = frames.write(id, exited, marshal(exitCode(cmd, cmd.Wait())))
}

func feedCommand(ctx context.Context, pipe io.WriteCloser, stdin <-chan []byte, frames *frameWriter, id session) {
	defer pipe.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case piece := <-stdin:
			if piece == nil {
				return
			}
			// A command that closed its stdin still lets the caller go on.
			_, err := pipe.Write(piece)
			if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
				return
			}
			if frames.write(id, consumed, nil) != nil {
				return
			}
		}
	}
}

// exitCode follows the shell: 128 and the signal's number for a signal.
func exitCode(cmd *exec.Cmd, err error) exit {
	if cmd.ProcessState == nil {
		return exit{Error: err.Error()}
	}
	if status, isUnix := cmd.ProcessState.Sys().(syscall.WaitStatus); isUnix && status.Signaled() {
		return exit{Code: 128 + int(status.Signal())}
	}
	return exit{Code: cmd.ProcessState.ExitCode()}
}

func marshal(v any) []byte {
	content, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs can always be marshalled
	}
	return content
}
