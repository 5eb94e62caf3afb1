// Package kernel observes and changes what the operator owns in one network
// namespace of a Linux kernel: virtual IP addresses and their local routes,
// IPVS services and destinations, the nftables guard round them, and the
// sysctls that they depend on. All of it goes over netlink and /proc/sys; no
// program is run by this package.
//
// Decisions are made elsewhere: see package netstate for what a state is and in
// which order one becomes another.
package kernel

import (
	"errors"
	"fmt"
)

// What callers branch on, with errors.Is.
var (
	// ErrNoIPVS means that the kernel has no IPVS: the look-up of its generic
	// netlink family, which makes a kernel with modules load ip_vs, found none.
	// It is not remembered: the next call looks again.
	ErrNoIPVS = errors.New("the kernel has no IPVS")
	// ErrNoGuard means that the guard is wanted and the kernel can't hold it:
	// nf_tables or one of its parts is missing.
	ErrNoGuard = errors.New("the kernel has no nftables for the guard")
	// ErrNoLink means that a network interface does not exist.
	ErrNoLink = errors.New("no such network interface")
	// ErrLostReply means that the kernel did not answer in time. Whether the
	// operation was done is unknown: observe before deciding anything.
	ErrLostReply = errors.New("no reply from the kernel")
	// ErrClosed means that the client was closed.
	ErrClosed = errors.New("the client is closed")
	// ErrUnsupported means that an operation can't be expressed to this kernel
	// or by this client, for example a destination of another address family
	// than its service.
	ErrUnsupported = errors.New("not supported")
	// ErrSyncDaemonTaken means that somebody else runs IPVS's synchronisation
	// daemons in the namespace, with other settings. They are left alone: stop
	// them (keepalived's lvs_sync_daemon, ipvsadm --stop-daemon).
	ErrSyncDaemonTaken = errors.New("somebody else runs IPVS's synchronisation daemon here")
	// ErrSyncRefused means that IPVS takes no synchronisation daemon: with its
	// EINVAL it says that a service has destinations of another address family,
	// which it cannot synchronise.
	ErrSyncRefused = errors.New("IPVS refuses its synchronisation daemon, which does not go with destinations of another address family than their service")
)

// SchedulerUnavailable says that a service was refused because the kernel has
// no scheduler of that name and could not load one (module ip_vs_NAME).
type SchedulerUnavailable struct {
	Name string
}

// Error names the scheduler and its module.
func (e SchedulerUnavailable) Error() string {
	return fmt.Sprintf("the kernel has no scheduler %q (module ip_vs_%s)", e.Name, e.Name)
}
