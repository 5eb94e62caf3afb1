package health

import (
	"context"
	"errors"
)

// Checker performs checks of one type.
type Checker interface {
	// Check tries the target once and returns nil if it answered as it should.
	// It returns when ctx is done at the latest; ctx carries the timeout of the
	// try. The text of the error is shown to users as the reason why a server
	// is down, so it is short and names neither the address nor the timeout. An
	// error that wraps ErrInconclusive is no failure of the target. Many
	// goroutines call Check at once.
	Check(ctx context.Context, target Target) error
}

// ErrInconclusive marks an error that says nothing of the target.
var ErrInconclusive = errors.New("inconclusive")

// Checkers holds the checker of each type of check. A probe of a type that it
// lacks stays Unknown, with an error that says so.
type Checkers map[Type]Checker

// Standard returns the checks that the API offers.
func Standard() Checkers {
	return Checkers{TCP: TCPCheck{}}
}

// resultOf classifies what a Checker returned.
func resultOf(err error) Result {
	switch {
	case err == nil:
		return Success
	case errors.Is(err, ErrInconclusive):
		return Inconclusive
	default:
		return Failure
	}
}
