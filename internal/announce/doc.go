// Package announce makes a director be found: it answers ARP requests and
// neighbour solicitations for the VIPs that it is to announce, tells the
// segment about them without being asked, and reports everybody else who
// claims one.
//
// All of it happens in user space, on packet sockets of the announcement
// interface, because a warm standby holds every VIP too and its kernel must
// keep silent. Two things follow. An Announcer that has been told nothing says
// nothing; and one whose director has stopped deciding must not speak either,
// since a peer may have taken over in the meantime: see Fence.
//
// Who is to announce is not decided here, nor what to do about a Claim.
package announce
