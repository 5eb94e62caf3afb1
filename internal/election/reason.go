package election

// Reason says why a director announces or why it does not, as metrics and
// events show it.
type Reason string

// The reasons of a Decision.
const (
	// Holding: the Lease is ours and not expired.
	Holding Reason = "Holding"
	// HoldingUnconfirmed: the Lease was ours when last seen (by this process or,
	// after a restart, by the one before it), and the API server does not answer.
	HoldingUnconfirmed Reason = "HoldingUnconfirmed"
	// Reclaiming: nobody holds the Lease that was ours, and it is being taken
	// back.
	Reclaiming Reason = "Reclaiming"
	// HeldByOther: another director holds the Lease.
	HeldByOther Reason = "HeldByOther"
	// Expired: the Lease of another director has expired and is being taken.
	Expired Reason = "Expired"
	// Vacant: nobody holds the Lease, and this director has not taken it yet.
	Vacant Reason = "Vacant"
	// Absent: there is no Lease, and this director has not made it yet.
	Absent Reason = "Absent"
	// Restarted: the Lease is this node's, of an earlier process; it is being
	// taken over.
	Restarted Reason = "Restarted"
	// Stalled: the Lease has expired without a try to renew it, because the
	// process stood still; it may be another's by now.
	Stalled Reason = "Stalled"
	// NotRead: the Lease has not been read since the start.
	NotRead Reason = "NotRead"
	// Leaving: the director terminates.
	Leaving Reason = "Leaving"
	// Handover: the holder released the Lease for this director.
	Handover Reason = "Handover"
	// Unfit: the director cannot serve, and hands over to a peer that can.
	Unfit Reason = "Unfit"
	// Impaired: the kernel refuses some of the VIPs, so it hands over to a peer
	// that serves them all.
	Impaired Reason = "Impaired"
	// Cordoned: the node is to be emptied, so it hands over.
	Cordoned Reason = "Cordoned"
	// Preempted: it hands over to a director of higher priority.
	Preempted Reason = "Preempted"
	// Superseded: the API server does not answer, and another director announces
	// what was this one's.
	Superseded Reason = "Superseded"
	// HolderDead: the holder's process and its machine are gone, and its Lease is
	// being taken before it has expired.
	HolderDead Reason = "HolderDead"
	// Provisional: the API server does not answer, and nobody else serves.
	Provisional Reason = "Provisional"
	// Isolated: nobody on the segment answers any more, so it hands over.
	Isolated Reason = "Isolated"
)
