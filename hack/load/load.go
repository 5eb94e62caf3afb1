// Package load is a client of the lab: it opens new connections at a steady
// rate and keeps what became of each, so that an outage can be told exactly.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Dial connects from the client's network namespace.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Options say what to ask, how often and how.
type Options struct {
	// Address to connect to, with port.
	Address string
	// Network is tcp (one HTTP GET a connection) or udp (one datagram a socket).
	Network string
	// Rate is how many requests are begun a second.
	Rate int
	// Timeout is when a request has failed; 0 is Timeout.
	Timeout time.Duration
	Dial    Dial
}

// Timeout is when a request has failed: a SYN that was lost is sent again after
// one second, so what takes longer than this lost a packet.
const Timeout = 900 * time.Millisecond

// Result is what became of one request: a new connection and one answer.
type Result struct {
	Start time.Time
	Took  time.Duration
	// Server is the name that answered.
	Server string
	// Err is why there was no complete answer in time.
	Err error
}

// Recorder runs requests and keeps their results. It is safe for concurrent use.
type Recorder struct {
	options Options

	mu      sync.Mutex
	results []Result
}

// Start begins to send requests, until ctx ends. Wait returns when the last of
// them has its result.
func Start(ctx context.Context, options Options) (r *Recorder, wait func()) {
	r = &Recorder{options: options}
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(time.Second / time.Duration(options.Rate))
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				running.Go(func() { r.request(context.WithoutCancel(ctx)) })
			}
		}
	})
	return r, running.Wait
}

func (r *Recorder) request(ctx context.Context) {
	start := time.Now()
	ctx, done := context.WithDeadline(ctx, start.Add(cmp.Or(r.options.Timeout, Timeout)))
	defer done()
	result := Result{Start: start}
	if r.options.Network == "udp" {
		result.Server, result.Err = askUDP(ctx, r.options)
	} else {
		result.Server, result.Err = askHTTP(ctx, r.options)
	}
	result.Took = time.Since(start)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, result)
}

func askHTTP(ctx context.Context, options Options) (string, error) {
	transport := &http.Transport{DialContext: options.Dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+options.Address+"/", nil)
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("answered %s", response.Status)
	}
	return strings.TrimSpace(string(body)), nil
}

func askUDP(ctx context.Context, options Options) (string, error) {
	conn, err := options.Dial(ctx, "udp", options.Address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if _, err := conn.Write([]byte("who")); err != nil {
		return "", err
	}
	answer := make([]byte, 512)
	n, err := conn.Read(answer)
	return strings.TrimSpace(string(answer[:n])), err
}

// Results returns what is known so far of the requests begun in [from, to),
// in the order of their starts.
func (r *Recorder) Results(from, to time.Time) []Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	var results []Result
	for _, result := range r.results {
		if !result.Start.Before(from) && result.Start.Before(to) {
			results = append(results, result)
		}
	}
	return sorted(results)
}

// Asker sends requests one after the other, so that nothing but the scheduler
// decides who answers.
type Asker struct {
	// Address, Network, Timeout and Dial are as in Options.
	Address, Network string
	Timeout          time.Duration
	Dial             Dial
}

// Ask sends so many requests and tells what became of them.
func (a *Asker) Ask(ctx context.Context, requests int) Summary {
	r := &Recorder{options: Options{Address: a.Address, Network: a.Network, Timeout: a.Timeout, Dial: a.Dial}}
	begin := time.Now()
	for range requests {
		r.request(ctx)
	}
	return Summarize(r.Results(begin, time.Now().Add(time.Second)))
}
