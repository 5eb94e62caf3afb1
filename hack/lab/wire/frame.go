// Package wire runs commands over a byte stream without addresses, such as a
// virtio-serial line: it works however a node's network is cut.
//
// The line has no beginning: what an earlier caller left unread may still be
// in it. So each call has a random session that all its frames start with. The
// caller says hello until the other end answers with that session, and takes
// nothing before that answer for its own.
package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

type session [8]byte

type kind byte

const (
	// From the caller.
	hello    kind = iota + 1 // ends what ran before
	open                     // Request as JSON
	input                    // a piece of stdin
	inputEnd                 // the end of stdin
	// From the server.
	welcome     // answers hello
	output      // a piece of stdout
	errorOutput // a piece of stderr
	consumed    // the command has taken one more piece of stdin
	exited      // Exit as JSON; the last frame of a session
)

const (
	headerSize = 8 + 1 + 4
	maxPayload = 32 << 10
	// window is how many pieces of stdin may be under way: the server keeps as
	// many for a command that doesn't read, and still hears the caller hang up.
	window = 8
)

type frame struct {
	session session
	kind    kind
	payload []byte
}

// Request is what to run.
type Request struct {
	// Args are the program, looked for on PATH, and its arguments.
	Args []string `json:"args"`
	// Stdin says that the caller will send stdin; without, it is empty.
	Stdin bool `json:"stdin,omitempty"`
}

// exit is how a command ended.
type exit struct {
	Code int `json:"code"`
	// Error says why it could not be run.
	Error string `json:"error,omitempty"`
}

// frameWriter writes whole frames, for several goroutines.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) write(s session, k kind, payload []byte) error {
	buffer := make([]byte, 0, headerSize+len(payload))
	buffer = append(buffer, s[:]...)
	buffer = append(buffer, byte(k))
	buffer = binary.BigEndian.AppendUint32(buffer, uint32(len(payload)))
	buffer = append(buffer, payload...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.w.Write(buffer); err != nil {
		return fmt.Errorf("writing to the line: %w", err)
	}
	return nil
}

// stream is an io.Writer that sends what is written as frames of one kind.
type stream struct {
	frames  *frameWriter
	session session
	kind    kind
}

func (s stream) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		piece := p[sent:min(sent+maxPayload, len(p))]
		if err := s.frames.write(s.session, s.kind, piece); err != nil {
			return sent, err
		}
		sent += len(piece)
	}
	return len(p), nil
}

func readFrame(r *bufio.Reader) (frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	f := frame{session: session(header[:8]), kind: kind(header[8])}
	size := binary.BigEndian.Uint32(header[9:])
	if size > maxPayload {
		return frame{}, fmt.Errorf("a frame of %d bytes: the line is out of step", size)
	}
	f.payload = make([]byte, size)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, err
	}
	return f, nil
}
