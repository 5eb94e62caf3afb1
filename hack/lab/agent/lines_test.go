package main

import (
	"errors"
	"io"
	"testing"
)

// scripted is a line that reads as it is told to, and then as one without a
// caller.
type scripted struct {
	io.Writer
	reads []string
}

func (s *scripted) Read(into []byte) (int, error) {
	if len(s.reads) == 0 {
		return 0, io.EOF
	}
	next := s.reads[0]
	s.reads = s.reads[1:]
	if next == "" {
		return 0, io.EOF
	}
	return copy(into, next), nil
}

func TestALateWordOfAHangUpDoesNotEndTheNextCall(t *testing.T) {
	line := &patient{ReadWriter: &scripted{reads: []string{"hello", "", "", "open"}}}
	for _, want := range []string{"hello", "open"} {
		into := make([]byte, 16)
		n, err := line.Read(into)
		if err != nil || string(into[:n]) != want {
			t.Fatalf("Read() = %q, %v, want %q", into[:n], err, want)
		}
	}
	if n, err := line.Read(make([]byte, 16)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read() = %d, %v when the caller stays away, want the end", n, err)
	}
}

func TestALineWithoutACallerEndsAtOnce(t *testing.T) {
	reads := &scripted{reads: []string{"", "somebody else's"}}
	if n, err := (&patient{ReadWriter: reads}).Read(make([]byte, 16)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read() = %d, %v, want the end", n, err)
	}
}
