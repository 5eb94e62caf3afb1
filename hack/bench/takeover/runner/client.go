package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

// What the client says once its connections are open, and when the event is over.
const (
	clientReady   = "ready\n"
	clientSettled = "settled\n"
)

// askEvery is how often each of the open connections asks for something.
const askEvery = time.Second

// beClient holds connections open and opens new ones at a steady rate. A line on
// stdin says that the event comes; then the client says when it is over, if it
// ever is. The end of stdin says that enough was seen: then the client writes what
// that was.
func beClient(ctx context.Context, event plan.Event, stdin io.Reader, stdout io.Writer) error {
	var dialer net.Dialer
	options := load.Options{Address: plan.VIP + ":80", Network: "tcp", Rate: plan.Rate, Dial: dialer.DialContext}
	held, err := load.Hold(ctx, options, plan.Open)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	loading, stop := context.WithCancel(ctx)
	defer stop()
	recorder, wait := load.Start(loading, options)
	var moved mover
	go moved.watch(loading)
	lost := held.Talk(loading, askEvery, plan.LastAsk)
	if _, err := io.WriteString(stdout, clientReady); err != nil {
		return err
	}
	lines := bufio.NewReader(stdin)
	if _, err := lines.ReadString('\n'); err != nil {
		return fmt.Errorf("waiting for the event: %w", err)
	}
	at := time.Now()
	settling := make(chan error, 1)
	go func() {
		awaitSettled(loading, event, at, recorder, &moved)
		_, err := io.WriteString(stdout, clientSettled)
		settling <- err
	}()
	if _, err := lines.ReadString('\n'); !errors.Is(err, io.EOF) {
		return fmt.Errorf("waiting for the end: %w", err)
	}
	end := time.Now()
	stop()
	wait()
	if err := <-settling; err != nil {
		return fmt.Errorf("telling that it is over: %w", err)
	}
	sum := load.Summarize(recorder.Results(at.Add(-plan.Before), end))
	before, after := moved.split(at)
	return json.NewEncoder(stdout).Encode(plan.Seen{
		Requests: sum.Requests, Failed: sum.Failed, CountedMs: (plan.Before + end.Sub(at)).Milliseconds(),
		OutageMs: sum.Outage.Milliseconds(), FailingMs: sum.Failing.Milliseconds(),
		OpenConnections: plan.Open, Survived: plan.Open - len(lost()),
		Moves: after, MovedBefore: before, Errors: sum.Errors,
	})
}

// askOnce says whether the VIP is served: by both real servers, as far as the
// scheduler gives both to one client.
func askOnce(ctx context.Context) error {
	var dialer net.Dialer
	asker := load.Asker{Address: plan.VIP + ":80", Network: "tcp", Dial: dialer.DialContext}
	if sum := asker.Ask(ctx, 6); sum.Failed > 0 {
		return fmt.Errorf("the VIP is not served: %d of %d requests failed: %v", sum.Failed, sum.Requests, sum.Errors)
	}
	return nil
}
