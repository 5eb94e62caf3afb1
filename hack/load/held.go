package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Held are connections that stay open: HTTP/1.1, one request after the other on
// each.
type Held struct {
	address string
	conns   []net.Conn
	readers []*bufio.Reader
}

// Hold opens so many connections, and asks once on each.
func Hold(ctx context.Context, options Options, number int) (*Held, error) {
	h := &Held{address: options.Address}
	for range number {
		conn, err := options.Dial(ctx, "tcp", options.Address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening a connection to hold: %w", err), h.Close())
		}
		h.conns = append(h.conns, conn)
		h.readers = append(h.readers, bufio.NewReader(conn))
	}
	if failures := h.Ask(patience); len(failures) > 0 {
		return nil, errors.Join(append(failures, h.Close())...)
	}
	return h, nil
}

// patience is how long the first answers may take.
const patience = 10 * time.Second

// Ask asks once on every connection, all at the same time, and returns why each
// one that did not answer within the limit did not.
func (h *Held) Ask(limit time.Duration) []error {
	failed := make([]error, len(h.conns))
	var asking sync.WaitGroup
	for i := range h.conns {
		asking.Go(func() { failed[i] = h.ask(i, limit) })
	}
	asking.Wait()
	var failures []error
	for _, err := range failed {
		if err != nil {
			failures = append(failures, err)
		}
	}
	return failures
}

func (h *Held) ask(i int, limit time.Duration) error {
	if err := h.conns[i].SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(h.conns[i], "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", h.address); err != nil {
		return err
	}
	response, err := http.ReadResponse(h.readers[i], nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// Talk asks on every connection again and again, so often, until ctx ends, and
// once more after that. One that fails, or does not answer within the limit, is
// asked no more. The function that it returns waits for the last answers and
// tells why each lost connection was lost. Nothing else may ask meanwhile.
func (h *Held) Talk(ctx context.Context, every, limit time.Duration) (lost func() []error) {
	failed := make([]error, len(h.conns))
	var talking sync.WaitGroup
	for i := range h.conns {
		talking.Go(func() { failed[i] = h.talk(ctx, i, every, limit) })
	}
	return func() []error {
		talking.Wait()
		return slices.DeleteFunc(failed, func(err error) bool { return err == nil })
	}
}

func (h *Held) talk(ctx context.Context, i int, every, limit time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if err := h.ask(i, limit); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return h.ask(i, limit)
}

// Close closes the connections.
func (h *Held) Close() error {
	var all error
	for _, conn := range h.conns {
		all = errors.Join(all, conn.Close())
	}
	return all
}
