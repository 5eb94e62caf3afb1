package announce

import "time"

// pacerBurst is how many announcements may go out together before spacing
// counts: enough for a usual pool to move at once.
const pacerBurst = 32

// pacer spreads announcements: a token bucket that is full at first. It is
// pure: the time is handed in.
type pacer struct {
	spacing time.Duration
	// emptied is when the bucket would have been empty, were it not bounded:
	// each token moves it on by spacing.
	emptied time.Time
}

// delay returns how long to wait before the next announcement.
func (p *pacer) delay(now time.Time) time.Duration {
	return max(0, p.spacing-now.Sub(p.floor(now)))
}

// spend takes a token.
func (p *pacer) spend(now time.Time) { p.emptied = p.floor(now).Add(p.spacing) }

// floor is emptied, with no more than a full bucket since.
func (p *pacer) floor(now time.Time) time.Time {
	if full := now.Add(-pacerBurst * p.spacing); p.emptied.Before(full) {
		return full
	}
	return p.emptied
}
