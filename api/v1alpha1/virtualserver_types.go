package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// VirtualServer serves one or more virtual IP addresses (VIPs) through IPVS:
// directors accept connections to them and hand these to real servers.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=vs
// +kubebuilder:printcolumn:name="VIP",type=string,JSONPath=`.spec.addresses[0]`
// +kubebuilder:printcolumn:name="Addresses",type=string,priority=1,JSONPath=`.status.display.addresses`
// +kubebuilder:printcolumn:name="Ports",type=string,JSONPath=`.status.display.ports`
// +kubebuilder:printcolumn:name="Scheduler",type=string,JSONPath=`.spec.scheduler`
// +kubebuilder:printcolumn:name="Method",type=string,JSONPath=`.spec.forwardingMethod`
// +kubebuilder:printcolumn:name="Real Servers",type=string,JSONPath=`.status.display.realServers`
// +kubebuilder:printcolumn:name="Director",type=string,JSONPath=`.status.display.directors`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type VirtualServer struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the object's name, labels and annotations.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says what is served, how and by which real servers.
	// +required
	Spec VirtualServerSpec `json:"spec,omitzero"`

	// status is what the directors report. Nothing is decided from it:
	// deleting it changes the display only.
	// +optional
	Status VirtualServerStatus `json:"status,omitzero"`
}

// VirtualServerList is a list of VirtualServers.
//
// +kubebuilder:object:root=true
type VirtualServerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []VirtualServer `json:"items"`
}

// VirtualServerSpec says what is served, how and by which real servers.
//
// +kubebuilder:validation:XValidation:rule="self.addresses == oldSelf.addresses",message="addresses cannot be changed: make a new VirtualServer"
// +kubebuilder:validation:XValidation:rule="self.directorPoolName == oldSelf.directorPoolName",message="directorPoolName cannot be changed: make a new VirtualServer"
// +kubebuilder:validation:XValidation:rule="!has(self.schedulerFlags) || self.schedulerFlags.size() == 0 || self.scheduler in ['sh', 'mh']",message="schedulerFlags can be set only with the schedulers sh and mh"
// +kubebuilder:validation:XValidation:rule="has(self.realServers) || has(self.podSelector) || has(self.serviceName)",message="say where the real servers come from: at least one of realServers, podSelector and serviceName is required"
// +kubebuilder:validation:XValidation:rule="!has(self.slowStart) || !(self.scheduler in ['fo', 'ovf'])",message="slowStart cannot be set with the schedulers fo and ovf, which do not share connections by weight"
// +kubebuilder:validation:XValidation:rule="!has(self.realServers) || self.realServers.all(r, r.port == 0)",message="a real server's own port can be set only with a forwarding method that rewrites ports, which DR does not: leave port out"
// +kubebuilder:validation:XValidation:rule="!has(self.realServers) || self.addresses.all(a, self.realServers.all(r, a.contains(':') == r.address.contains(':')))",message="with DR every real server must be of the same address family as every VIP"
// +kubebuilder:validation:XValidation:rule="!has(self.sorryServer) || self.addresses.all(a, a.contains(':') == self.sorryServer.address.contains(':'))",message="with DR the sorry server must be of the same address family as every VIP"
// +kubebuilder:validation:XValidation:rule="!has(self.sorryServer) || !has(self.realServers) || !self.realServers.exists(r, r.address == self.sorryServer.address)",message="the sorry server cannot be one of the real servers"
type VirtualServerSpec struct {
	// directorPoolName names the DirectorPool whose directors serve this.
	// It cannot be changed.
	// +kubebuilder:default=default
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	DirectorPoolName string `json:"directorPoolName,omitempty"`

	// addresses are the VIPs: the addresses that clients connect to, each with
	// every one of the ports. The DirectorPool must allow them to this
	// namespace. They cannot be changed.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +required
	Addresses []IPAddress `json:"addresses,omitempty"`

	// ports are what is served on each address. What arrives for a VIP on any
	// other port is dropped.
	// +listType=map
	// +listMapKey=port
	// +listMapKey=protocol
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(p, !has(p.name) || self.exists_one(q, has(q.name) && q.name == p.name))",message="each name can be given to one port only"
	// +required
	Ports []Port `json:"ports,omitempty"`

	// scheduler is IPVS's way of choosing a real server for a new connection:
	// rr (round robin), wrr (weighted round robin), lc (least connection), wlc
	// (weighted least connection), lblc and lblcr (locality-based), sh and dh
	// (source and destination hashing), mh (Maglev hashing), sed (shortest
	// expected delay), nq (never queue), fo (weighted failover), ovf (weighted
	// overflow), twos (power of two choices). rr and lc ignore weights other
	// than 0. With mh open TCP connections go on when another director takes
	// over, also after a crash, since every director finds the real server of a
	// connection by the client's address alone. The directors' kernels must have
	// the scheduler as a module: else the VirtualServer is not programmed, reason
	// SchedulerUnavailable.
	// +kubebuilder:default=wlc
	// +optional
	Scheduler Scheduler `json:"scheduler,omitempty"`

	// schedulerFlags change how the schedulers sh and mh hash. Port: the
	// client's port counts too, not its address alone. Fallback: connections
	// of a real server that is down or full go to another one instead of
	// being refused. mh always falls back.
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	// +optional
	SchedulerFlags []SchedulerFlag `json:"schedulerFlags,omitempty"`

	// forwardingMethod is how a director hands a packet to a real server. DR
	// (direct routing): unchanged, in a frame to the real server's MAC address.
	// The real server must be on a network that the director is directly
	// connected to, must have the VIP as an address of its own that it does not
	// answer ARP for, and replies straight to the client.
	// +kubebuilder:default=DR
	// +optional
	ForwardingMethod ForwardingMethod `json:"forwardingMethod,omitempty"`

	// persistence keeps a client with the real server that it was given first.
	// Left out, each connection is scheduled by itself.
	// +optional
	Persistence *Persistence `json:"persistence,omitempty"`

	// realServers are hosts that answer, by their addresses. At least one of
	// realServers, podSelector and serviceName is required, and what they give
	// is added up; a host that more than one gives counts once, as it is written
	// down here. An empty list is allowed: then the condition Ready says that
	// nothing answers.
	// +listType=map
	// +listMapKey=address
	// +listMapKey=port
	// +kubebuilder:validation:MaxItems=256
	// +optional
	RealServers []RealServer `json:"realServers,omitzero"`

	// podSelector selects pods of the namespace as real servers; {} selects
	// them all. They must listen on the ports that clients connect to. A pod gets
	// connections while it is Ready and the agent of its node has given it the
	// VIPs, and none from the moment that it is being deleted. The pod's annotation
	// lvs-operator.io/weight is its weight, 0 to 65535, and 1 without; with
	// lvs-operator.io/state: Drained, on the pod or its node, it gets no new
	// connections and keeps those it has. At most 64 labels and 64 expressions.
	// +kubebuilder:validation:XValidation:rule="(!has(self.matchLabels) || self.matchLabels.size() <= 64) && (!has(self.matchExpressions) || self.matchExpressions.size() <= 64 && self.matchExpressions.all(e, !has(e.values) || e.values.size() <= 64))",message="must have at most 64 labels, 64 expressions and 64 values in each"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",message="an expression's operator must be In or NotIn, with values, or Exists or DoesNotExist, without"
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// serviceName names a Service of the namespace whose endpoints are real
	// servers, pods with the annotations of podSelector or others. The
	// endpoints' port must be the one that clients connect to, since DR changes
	// none: it is found by the port's name, or else by its number. Endpoints that
	// are no pods must be allowed by the DirectorPool, as realServers must.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	ServiceName string `json:"serviceName,omitempty"`

	// healthChecks are run by each director against every real server. A real
	// server is up when all of them pass; the others get no new connections.
	// With none, real servers count as up at all times.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	// +optional
	HealthChecks []HealthCheck `json:"healthChecks,omitempty"`

	// onFailure is what becomes of a real server that a health check, or its
	// pod's readiness, says is down. Remove: it is taken out, and its open
	// connections with it. Quiesce: it gets no new connections and keeps those it
	// has, whoever they are of use to; a client that persistence ties to it stays
	// with it. With the scheduler mh it is Quiesce whatever is set here: what is
	// removed would move connections of other real servers too when another
	// director takes over. keepalived: inhibit_on_failure.
	// +kubebuilder:default=Remove
	// +optional
	OnFailure OnFailure `json:"onFailure,omitempty"`

	// quorum says how much of the real servers must be up for the VirtualServer
	// to be Ready, and when the sorry server steps in. Left out, one that gets
	// connections is enough.
	// +optional
	Quorum *Quorum `json:"quorum,omitempty"`

	// sorryServer answers while the quorum is lost: it gets all new connections,
	// and real servers that are up keep those they have. It comes in before the
	// others are taken out, and leaves after they are back. Left out, what is up
	// goes on.
	// +optional
	SorryServer *SorryServer `json:"sorryServer,omitempty"`

	// drain says how long a real server that leaves keeps its connections. Left
	// out, it is 30s.
	// +optional
	Drain *Drain `json:"drain,omitempty"`

	// slowStart lets a real server that comes up begin with a small share of new
	// connections. Left out, it has its full weight at once; so it has with the
	// scheduler mh, whatever is set here, since all directors must have the same
	// weights.
	// +optional
	SlowStart *SlowStart `json:"slowStart,omitempty"`
}

// OnFailure is what becomes of a real server that is down.
//
// +kubebuilder:validation:Enum=Remove;Quiesce
type OnFailure string

// What becomes of a real server that is down.
const (
	OnFailureRemove  OnFailure = "Remove"
	OnFailureQuiesce OnFailure = "Quiesce"
)

// Quorum says how much of the real servers must be up. Of a VirtualServer with
// several addresses or ports it holds for each address and port by itself.
//
// +kubebuilder:validation:XValidation:rule="!has(self.hysteresis) || type(self.minimumWeight) != int || self.hysteresis < int(self.minimumWeight)",message="hysteresis must be less than minimumWeight, else the quorum could never be lost"
type Quorum struct {
	// minimumWeight is the least sum of the weights of the real servers that are
	// up: a number from 1, or a share, from "1%" to "100%" and rounded up, of the
	// sum of all weights of real servers that are not left out. keepalived: quorum.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 1 && int(self) <= 16777215 : string(self).matches('^([1-9][0-9]?|100)%$')",message="must be a number from 1 to 16777215, or a share from \"1%\" to \"100%\""
	// +kubebuilder:default=1
	// +optional
	MinimumWeight intstr.IntOrString `json:"minimumWeight,omitzero"`

	// hysteresis keeps the quorum from coming and going with a single real
	// server: it is lost when the sum is below minimumWeight - hysteresis, or
	// nothing is up, and is there again when the sum is at least minimumWeight +
	// hysteresis, or all are up. It is a weight, also where minimumWeight is a
	// share, and then counts as at most one less than what that comes to.
	// keepalived: hysteresis.
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16777215
	// +optional
	Hysteresis int32 `json:"hysteresis"`
}

// SorryServer is the host that answers while the quorum is lost.
type SorryServer struct {
	// address is the sorry server's own address. The DirectorPool must allow it
	// to this namespace, as a real server; it must have the VIPs as real servers
	// have them. It is not checked.
	// +required
	Address IPAddress `json:"address,omitempty"`
}

// Drain says how long a real server that leaves keeps its connections.
type Drain struct {
	// timeout is how long a real server that is removed from the list, a pod that
	// is being deleted or an endpoint that goes keeps the connections that it
	// has, while it gets no new ones: 0s to 24h. It goes earlier when the last of
	// them has ended. A pod's terminationGracePeriodSeconds should be no less.
	// Clients of UDP have no connections to wait for: they are moved at once.
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be from 0s to 24h"
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// SlowStart lets a real server begin with a small share of new connections.
type SlowStart struct {
	// duration is how long a real server that comes up takes to get to its full
	// weight, in even steps: 0s, which is no slow start, to 1h. While it is set
	// the weights in the kernel are those of the spec times 100, or as much as 65535
	// leaves room for, so that a weight of 1 can grow; the schedulers go by their
	// ratio only. fo and ovf do not, and cannot have one.
	// +kubebuilder:default="0s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1h')",message="must be from 0s to 1h"
	// +optional
	Duration metav1.Duration `json:"duration,omitzero"`
}

// Port is a port that is served on every address of a VirtualServer.
type Port struct {
	// name tells people what the port is for.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	Name string `json:"name,omitempty"`

	// port is the port that clients connect to, and with DR also the one that
	// real servers listen on.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +required
	Port int32 `json:"port,omitempty"`

	// protocol is the transport protocol: TCP, UDP or SCTP.
	// +kubebuilder:default=TCP
	// +optional
	Protocol Protocol `json:"protocol,omitempty"`
}

// Protocol is a transport protocol.
//
// +kubebuilder:validation:Enum=TCP;UDP;SCTP
type Protocol string

// The transport protocols.
const (
	ProtocolTCP  Protocol = "TCP"
	ProtocolUDP  Protocol = "UDP"
	ProtocolSCTP Protocol = "SCTP"
)

// Scheduler is the name of an IPVS scheduler, which is that of its kernel
// module without the prefix ip_vs_.
//
// +kubebuilder:validation:Enum=rr;wrr;lc;wlc;lblc;lblcr;sh;dh;mh;sed;nq;fo;ovf;twos
type Scheduler string

// The schedulers of Linux's IPVS.
const (
	SchedulerRoundRobin                               Scheduler = "rr"
	SchedulerWeightedRoundRobin                       Scheduler = "wrr"
	SchedulerLeastConnection                          Scheduler = "lc"
	SchedulerWeightedLeastConnection                  Scheduler = "wlc"
	SchedulerLocalityBasedLeastConnection             Scheduler = "lblc"
	SchedulerLocalityBasedLeastConnectionReplications Scheduler = "lblcr"
	SchedulerSourceHashing                            Scheduler = "sh"
	SchedulerDestinationHashing                       Scheduler = "dh"
	SchedulerMaglevHashing                            Scheduler = "mh"
	SchedulerShortestExpectedDelay                    Scheduler = "sed"
	SchedulerNeverQueue                               Scheduler = "nq"
	SchedulerWeightedFailover                         Scheduler = "fo"
	SchedulerWeightedOverflow                         Scheduler = "ovf"
	SchedulerPowerOfTwoChoices                        Scheduler = "twos"
)

// SchedulerFlag changes how a hashing scheduler hashes.
//
// +kubebuilder:validation:Enum=Port;Fallback
type SchedulerFlag string

// The flags of the schedulers sh and mh; ipvsadm calls them sh-port and
// sh-fallback, mh-port and mh-fallback.
const (
	SchedulerFlagPort     SchedulerFlag = "Port"
	SchedulerFlagFallback SchedulerFlag = "Fallback"
)

// ForwardingMethod is a packet-forwarding method of IPVS.
//
// +kubebuilder:validation:Enum=DR
type ForwardingMethod string

// ForwardingMethodDR is direct routing, keepalived's lvs_method DR.
const ForwardingMethodDR ForwardingMethod = "DR"

// Persistence says which connections go to the same real server.
type Persistence struct {
	// timeout is how long after a client's last connection has ended the client
	// is still sent to the same real server: whole seconds, 1s to 744h (31
	// days). keepalived: persistence_timeout.
	// +kubebuilder:default="300s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('744h') && !self.contains('.') && !self.contains('ms')",message="must be whole seconds (no fraction, no ms), from 1s to 744h"
	// +optional
	Timeout metav1.Duration `json:"timeout,omitzero"`

	// ipv4PrefixLength is how many leading bits of an IPv4 client's address say
	// which client it is: with 24 all clients of a /24 share a real server.
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	// +optional
	IPv4PrefixLength int32 `json:"ipv4PrefixLength,omitempty"`

	// ipv6PrefixLength is the same for IPv6 clients.
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	// +optional
	IPv6PrefixLength int32 `json:"ipv6PrefixLength,omitempty"`
}

// RealServer is a host that answers for the VIPs.
type RealServer struct {
	// address is the real server's own address. The DirectorPool must allow it
	// to this namespace, and it cannot be the address of a director.
	// +required
	Address IPAddress `json:"address,omitempty"`

	// port is where the real server listens, if that differs from the port
	// that clients connect to; 0 means that it does not, and is the only value
	// that DR allows.
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port"`

	// weight is the real server's share of new connections relative to the
	// others', 0 to 65535. With 0 it gets no new ones and keeps those it has.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Weight *int32 `json:"weight,omitempty"`

	// state takes a real server out of service by hand. Enabled: it serves.
	// Drained: it gets no new connections and keeps those it has, whatever its
	// weight. Disabled: it is removed, as if it were deleted from the list: its
	// connections have until drain.timeout to end.
	// +kubebuilder:default=Enabled
	// +optional
	State RealServerState `json:"state,omitempty"`
}

// RealServerState is what a user wants of a real server.
//
// +kubebuilder:validation:Enum=Enabled;Drained;Disabled
type RealServerState string

// The annotations that say more of real servers that are not written down.
const (
	// AnnotationWeight on a pod is its weight as a real server, 0 to 65535.
	AnnotationWeight = "lvs-operator.io/weight"
	// AnnotationState on a pod, or on a node for all its pods, is the state of
	// the real server: Enabled, Drained or Disabled.
	AnnotationState = "lvs-operator.io/state"
	// AnnotationDrainedServers on a VirtualServer lists addresses of real servers
	// that are Drained, with commas between them.
	AnnotationDrainedServers = "lvs-operator.io/drained-servers"
)

// The states that a user can put a real server into.
const (
	RealServerEnabled  RealServerState = "Enabled"
	RealServerDrained  RealServerState = "Drained"
	RealServerDisabled RealServerState = "Disabled"
)
