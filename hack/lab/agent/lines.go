package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest/pid1"
	"github.com/lvs-operator/lvs-operator/hack/lab/node"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

// missedSignal is after how long a line without a caller is looked at anyway.
// It is long: under emulation each look costs.
const missedSignal = 2 * time.Second

// takeCommands serves callers on all lines; it returns only on an error.
func takeCommands() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGIO)
	var wakes []chan struct{}
	for i := range node.Ports {
		line, err := openLine(node.PortName(i))
		if err != nil {
			return err
		}
		wake := make(chan struct{}, 1)
		wakes = append(wakes, wake)
		go serve(line, wake)
	}
	tick := time.NewTicker(missedSignal)
	defer tick.Stop()
	for {
		select {
		case <-signals:
		case <-tick.C:
		}
		for _, wake := range wakes {
			select {
			case wake <- struct{}{}:
			default: // it has yet to take the last one
			}
		}
	}
}

// openLine opens a port and asks the kernel for a SIGIO when a caller comes or
// goes. That is all there is: poll reports a line without a caller as ready.
func openLine(name string) (*os.File, error) {
	line, err := pid1.OpenPort(context.Background(), name)
	if err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(line.Fd(), unix.F_SETOWN, os.Getpid()); err != nil {
		return nil, fmt.Errorf("asking for signals of %s: %w", name, err)
	}
	flags, err := unix.FcntlInt(line.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("asking for signals of %s: %w", name, err)
	}
	if _, err := unix.FcntlInt(line.Fd(), unix.F_SETFL, flags|unix.O_ASYNC); err != nil {
		return nil, fmt.Errorf("asking for signals of %s: %w", name, err)
	}
	return line, nil
}

// serve takes commands from one line, caller after caller.
func serve(line *os.File, wake <-chan struct{}) {
	for range wake {
		if err := wire.Serve(&patient{ReadWriter: line, wake: wake}); err != nil {
			console("line %s: %v", line.Name(), err)
		}
	}
}

const (
	// hangUpGrace is how long a caller may seem to be gone.
	hangUpGrace = 500 * time.Millisecond
	// hangUpLook is how often it is looked meanwhile whether he is.
	hangUpLook = 50 * time.Millisecond
)

// patient is a line that does not believe at once that its caller hung up. What
// the kernel says of that comes by another way than what callers send, and later
// under load: it may be the hang-up of the caller before, while the next one is
// there already, and has sent what is read next.
type patient struct {
	io.ReadWriter
	wake <-chan struct{}
	// called says that somebody sent something.
	called bool
}

func (p *patient) Read(into []byte) (int, error) {
	grace := time.NewTimer(hangUpGrace)
	defer grace.Stop()
	look := time.NewTicker(hangUpLook)
	defer look.Stop()
	for {
		n, err := p.ReadWriter.Read(into)
		p.called = p.called || n > 0
		if n > 0 || !p.called || !errors.Is(err, io.EOF) {
			return n, err
		}
		select {
		case <-grace.C:
			return 0, io.EOF
		case <-look.C:
		case <-p.wake:
		}
	}
}
