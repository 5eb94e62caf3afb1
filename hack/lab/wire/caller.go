package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Streams are a command's standard streams; nil ones are empty or discarded.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Session is one command's use of a line.
type Session struct {
	line   io.ReadWriteCloser
	id     session
	reader *bufio.Reader
	writer *frameWriter
}

// Dial starts a session on a line and waits for the server's answer. The line
// belongs to the session then and is closed with it, and if ctx ends first.
func Dial(ctx context.Context, line io.ReadWriteCloser) (*Session, error) {
	s := &Session{line: line, reader: bufio.NewReader(line), writer: &frameWriter{w: line}}
	if _, err := rand.Read(s.id[:]); err != nil {
		return nil, errors.Join(err, line.Close())
	}
	// Closing is what ends a read that waits.
	stop := context.AfterFunc(ctx, func() { _ = line.Close() })
	defer stop()
	err := s.writer.write(s.id, hello, nil)
	if err == nil {
		err = s.awaitWelcome()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, errors.Join(fmt.Errorf("calling the node's agent: %w", err), line.Close())
	}
	return s, nil
}

// awaitWelcome skips what is left of other sessions, which may begin in the
// middle of a frame.
func (s *Session) awaitWelcome() error {
	want := append(s.id[:], byte(welcome), 0, 0, 0, 0)
	last := make([]byte, 0, len(want)+1)
	for !bytes.Equal(last, want) {
		b, err := s.reader.ReadByte()
		if err != nil {
			return err
		}
		if last = append(last, b); len(last) > len(want) {
			last = last[1:]
		}
	}
	return nil
}

// Run executes a command and returns its exit code; -1 and an error if it
// could not be run to its end. It ends the session. If ctx ends, so does the
// command.
func (s *Session) Run(ctx context.Context, args []string, streams Streams) (int, error) {
	defer s.line.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.line.Close() })
	defer stop()
	request, err := json.Marshal(Request{Args: args, Stdin: streams.Stdin != nil})
	if err != nil {
		return -1, fmt.Errorf("describing the command: %w", err)
	}
	if len(request) > maxPayload {
		return -1, fmt.Errorf("the command line is too long: %d bytes", len(request))
	}
	if err := s.writer.write(s.id, open, request); err != nil {
		return -1, err
	}
	room := make(chan struct{}, window)
	done := make(chan struct{})
	defer close(done)
	if streams.Stdin != nil {
		go s.sendInput(streams.Stdin, room, done)
	}
	code, err := s.receive(streams, room)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return code, err
}

func (s *Session) receive(streams Streams, room chan<- struct{}) (int, error) {
	for {
		f, err := readFrame(s.reader)
		if err != nil {
			return -1, fmt.Errorf("the line to the node ended: %w", err)
		}
		if f.session != s.id {
			continue
		}
		switch f.kind {
		case output:
			err = deliver(streams.Stdout, f.payload)
		case errorOutput:
			err = deliver(streams.Stderr, f.payload)
		case consumed:
			select {
			case room <- struct{}{}:
			default: // more than was sent: a server that breaks the rules
			}
		case exited:
			return exitOf(f.payload)
		}
		if err != nil {
			return -1, fmt.Errorf("passing on output: %w", err)
		}
	}
}

func deliver(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

func exitOf(payload []byte) (int, error) {
	var end exit
	if err := json.Unmarshal(payload, &end); err != nil {
		return -1, fmt.Errorf("reading how the command ended: %w", err)
	}
	if end.Error != "" {
		return -1, errors.New(end.Error)
	}
	return end.Code, nil
}

// sendInput stops when the window is full until the command has read. An
// error ends the line for receive too, which reports it.
func (s *Session) sendInput(stdin io.Reader, room <-chan struct{}, done <-chan struct{}) {
	buffer := make([]byte, maxPayload)
	for left := window; ; left-- {
		count, err := stdin.Read(buffer)
		if left == 0 {
			select {
			case <-room:
				left++
			case <-done:
				return
			}
		}
		if s.writer.write(s.id, input, buffer[:count]) != nil {
			return
		}
		if err != nil {
			_ = s.writer.write(s.id, inputEnd, nil)
			return
		}
	}
}
