package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DirectorPool is a set of nodes that serve VirtualServers together: one of
// its directors announces a VIP, the others stand by for it. It says too which
// namespaces may have which addresses.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=dp
// +kubebuilder:printcolumn:name="Interface",type=string,JSONPath=`.spec.interface.name`
// +kubebuilder:printcolumn:name="Guard",type=string,JSONPath=`.spec.guard`
// +kubebuilder:printcolumn:name="Removal",type=string,JSONPath=`.metadata.annotations.lvs-operator\.io/removal`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name must be a DNS label: at most 63 lower-case letters, digits and hyphens"
type DirectorPool struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the object's name, labels and annotations.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says which nodes the pool has and what they may serve.
	// +required
	Spec DirectorPoolSpec `json:"spec,omitzero"`
}

// DirectorPoolList is a list of DirectorPools.
//
// +kubebuilder:object:root=true
type DirectorPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []DirectorPool `json:"items"`
}

// DirectorPoolSpec says which nodes the pool has and what they may serve.
type DirectorPoolSpec struct {
	// nodeSelector selects the nodes whose directors belong to the pool, among
	// those that a director runs on; {} selects them all. A node that several
	// pools select belongs to the oldest of them.
	// +required
	NodeSelector metav1.LabelSelector `json:"nodeSelector"`

	// interface is the network interface that VIPs are announced on. Left out,
	// it is the one whose network holds the VIP.
	// +optional
	Interface *Interface `json:"interface,omitempty"`

	// allow says which namespaces may serve which VIPs by which real servers.
	// What no entry allows is refused, and with no entry nothing is served:
	// anybody who can make a VirtualServer could otherwise take over any
	// address of the network.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Allow []AllowRule `json:"allow,omitempty"`

	// election says which of the pool's directors serves the VIPs of a group: the
	// one that holds the Lease POOL-GROUP, such as default-0, in the operator's
	// namespace.
	// +kubebuilder:default={}
	// +optional
	Election Election `json:"election,omitzero"`

	// connectionSync says whether the directors share their connections, so that
	// those that are open live on at another director.
	// +kubebuilder:default={}
	// +optional
	ConnectionSync ConnectionSync `json:"connectionSync,omitzero"`

	// announcement says how VIPs are announced.
	// +kubebuilder:default={}
	// +optional
	Announcement Announcement `json:"announcement,omitzero"`

	// gossip says how the pool's directors hear of each other without the API
	// server.
	// +kubebuilder:default={}
	// +optional
	Gossip Gossip `json:"gossip,omitzero"`

	// ipvs holds IPVS's settings, which are one for a whole node.
	// +kubebuilder:default={}
	// +optional
	IPVS IPVSSettings `json:"ipvs,omitzero"`

	// guard says whether the directors keep an nftables table of their own
	// that lets packets of the VIPs pass by the NAT rules and connection
	// tracking of others (kube-proxy, the network plugin), and drops what
	// arrives for a VIP on a port that is not served. Disabled is for nodes
	// without either; no director can then be a real server.
	// +kubebuilder:default=Enabled
	// +optional
	Guard GuardMode `json:"guard,omitempty"`
}

// Interface says which network interface is meant.
type Interface struct {
	// name is the interface's name on every node of the pool.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$`
	// +kubebuilder:validation:XValidation:rule="!(self in ['lo', 'dummy-lvs'])",message="must be an interface to the network that clients come from: not lo, and not dummy-lvs, which is the directors' own"
	// +required
	Name string `json:"name,omitempty"`
}

// AllowRule allows VIPs and real servers to namespaces. A VIP and its real
// servers need not be allowed by the same rule.
type AllowRule struct {
	// addresses are the VIPs: addresses, ranges and networks.
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Addresses []AddressRange `json:"addresses,omitempty"`

	// realServers are the addresses that real servers may have: addresses,
	// ranges and networks.
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +optional
	RealServers []AddressRange `json:"realServers,omitempty"`

	// namespaceSelector selects the namespaces whose VirtualServers may; {},
	// the default, selects them all.
	// +kubebuilder:default={}
	// +optional
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector,omitzero"`
}

// Election says which of the pool's directors serves the VIPs.
//
// +kubebuilder:validation:XValidation:rule="(has(self.groups) ? self.groups : 1) == (has(oldSelf.groups) ? oldSelf.groups : 1)",message="groups cannot be changed: make a new DirectorPool"
type Election struct {
	// groups is the number of groups that the pool's VIPs are divided into, 1 to 32.
	// VIPs of one group are served by one director at a time. With more groups than
	// one the directors share them, as many for each as for any other of the same
	// priority, and so all of them forward; neighbouring addresses fall into
	// different groups. Twice the number of directors is a good choice. Each group
	// costs a Lease that is renewed every third of leaseDuration. It cannot be
	// changed, since all directors have to agree on which group a VIP is in.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	// +optional
	Groups int32 `json:"groups,omitempty"`

	// leaseDuration is how long the Lease is valid after a renewal, which its
	// holder sends every third of it: whole seconds, 2s to 60s. When the holder
	// dies another director takes over that long after its last renewal; an API
	// server that is slower than a third of it cannot be kept up with.
	// +kubebuilder:default="3s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('2s') && duration(self) <= duration('60s') && !self.contains('.') && !self.contains('ms')",message="must be whole seconds (no fraction, no ms), from 2s to 60s"
	// +optional
	LeaseDuration metav1.Duration `json:"leaseDuration,omitzero"`

	// priorities give directors priorities by their nodes' labels: the first
	// entry that selects the node counts, and a node that none selects has 0. Of
	// those that could serve the one with the highest priority does, as with
	// VRRP; among equals whoever serves goes on, or, with several groups, gives some
	// of them to one that has less.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Priorities []NodePriority `json:"priorities,omitempty"`

	// preemption says whether a director takes the VIPs from one of lower
	// priority that serves them, or a group from an equal that has more of them.
	// +kubebuilder:default={}
	// +optional
	Preemption Preemption `json:"preemption,omitzero"`
}

// NodePriority is the priority of the directors on some nodes.
type NodePriority struct {
	// nodeSelector selects the nodes.
	// +required
	NodeSelector metav1.LabelSelector `json:"nodeSelector"`

	// priority of the directors there, 0 to 1000. A higher one is preferred.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +required
	Priority *int32 `json:"priority,omitempty"`
}

// Preemption says whether a director takes the VIPs from one of lower priority.
type Preemption struct {
	// policy is HigherPriority, as VRRP does it, or Never: whoever serves goes on
	// until it cannot, whatever its priority. Never is VRRP's nopreempt. With
	// several groups it means too that a director that comes back gets none until
	// another one fails.
	// +kubebuilder:default=HigherPriority
	// +optional
	Policy PreemptionPolicy `json:"policy,omitempty"`

	// delay is how long a director must have been ready to serve before it takes
	// the VIPs from another that serves them, 0s to 1h. It is what keeps a machine
	// that fails again and again from taking the VIPs each time (VRRP's
	// preempt_delay). Left out, it is 30s with connectionSync and 5s without. With
	// connectionSync it is also how long a machine that has just come up listens to
	// the connections of the others before it takes the VIPs, and ranks last until
	// then: connections are sent again every 10s, and with less than 15s some of
	// those that are open may be reset.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1h')",message="must be from 0s to 1h"
	// +optional
	Delay *metav1.Duration `json:"delay,omitempty"`
}

// PreemptionPolicy says whether priorities move VIPs that are served.
//
// +kubebuilder:validation:Enum=HigherPriority;Never
type PreemptionPolicy string

// The policies of preemption.
const (
	PreemptHigherPriority PreemptionPolicy = "HigherPriority"
	PreemptNever          PreemptionPolicy = "Never"
)

// ConnectionSync says whether, and how, the directors of a pool share their
// connections. IPVS does it in the kernel (its synchronisation daemon): a director
// sends each connection to the others when it is established, when it changes its
// state, and then every 10 s for as long as it has packets.
type ConnectionSync struct {
	// mode is Enabled, or Disabled: then a connection lives through a takeover only
	// while the machine of the director before still answers. Enabled takes
	// bandwidth on the interface, 36 bytes (IPv6: 72) for each time that a
	// connection is sent, and memory on each director for the connections of all.
	//
	// Nothing is encrypted or signed: whoever can send to the group and port with
	// the address of a director can make its kernel send packets of a connection to
	// any real server of the VIP. The guard drops what comes from other addresses;
	// with spec.guard Disabled everybody on the segment is believed. On a segment
	// that is not trusted say Disabled, or give interface another one.
	// +kubebuilder:default=Enabled
	// +optional
	Mode ConnectionSyncMode `json:"mode,omitempty"`

	// syncID tells this pool from others that send to the same group and port, 0 to
	// 255; the directors of a pool have the same one. With 0 a director takes what
	// any pool sends. Left out, it comes from the pool's UID and is not 0: two pools
	// on one segment have the same one by a chance of 1 in 255, and then take in
	// each other's connections, which serve no purpose there.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	// +optional
	SyncID *int32 `json:"syncID,omitempty"`

	// interface is the network interface that connections are sent on. It needs an
	// IPv4 address. Left out, it is the announcement interface.
	// +optional
	Interface *Interface `json:"interface,omitempty"`

	// port is the UDP port that connections are sent to. Where net.ipv4.vs.sync_ports
	// of a node is above 1, as many ports from this one on are used.
	// +kubebuilder:default=8848
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`

	// group is the IPv4 multicast address that connections are sent to. Those of
	// 224.0.0.0/24 reach all of a segment; others need an IGMP querier on it where
	// switches snoop.
	// +kubebuilder:default="224.0.0.81"
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="isIP(self) && cidr('224.0.0.0/4').containsIP(self)",message="must be an IPv4 multicast address, 224.0.0.0 to 239.255.255.255"
	// +optional
	Group string `json:"group,omitempty"`
}

// ConnectionSyncMode switches the sharing of connections.
//
// +kubebuilder:validation:Enum=Enabled;Disabled
type ConnectionSyncMode string

// The modes of sharing connections.
const (
	ConnectionSyncEnabled  ConnectionSyncMode = "Enabled"
	ConnectionSyncDisabled ConnectionSyncMode = "Disabled"
)

// Announcement says how VIPs are announced.
type Announcement struct {
	// refreshInterval is the time between the unasked announcements
	// (gratuitous ARP, unsolicited neighbour advertisements) that an active
	// director goes on sending for each VIP, 1s to 1h. They repair the caches
	// of hosts that have missed a takeover.
	// +kubebuilder:default="60s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="must be from 1s to 1h"
	// +optional
	RefreshInterval metav1.Duration `json:"refreshInterval,omitzero"`
}

// Gossip says how directors hear of each other without the API server: encrypted,
// over TCP and UDP, on their nodes' own addresses on the announcement interface.
// Where it cannot pass, they go by the API server alone, and a director that dies
// is replaced later.
type Gossip struct {
	// port is the port of TCP and UDP that the directors use on their nodes, 1024
	// to 65535. It has to be open between them. While it is being changed, the
	// directors that have not heard of it yet are not heard.
	// +kubebuilder:default=7956
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`

	// probeInterval is how often a director asks another whether it is there, 50ms
	// to 1s. One that died is known to be after about four of them, and not before
	// 300ms. A network that loses packets, or nodes that stand still for moments,
	// may need more.
	// +kubebuilder:default="100ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('50ms') && duration(self) <= duration('1s')",message="must be from 50ms to 1s"
	// +optional
	ProbeInterval metav1.Duration `json:"probeInterval,omitzero"`
}

// IPVSSettings are IPVS's settings, which are one for a whole node.
type IPVSSettings struct {
	// tcpTimeout is how long a TCP connection without packets is remembered:
	// whole seconds, 1s to 744h. Clients must send keep-alives more often.
	// +kubebuilder:default="15m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('744h') && !self.contains('.') && !self.contains('ms')",message="must be whole seconds (no fraction, no ms), from 1s to 744h"
	// +optional
	TCPTimeout metav1.Duration `json:"tcpTimeout,omitzero"`

	// tcpFinTimeout is how long a TCP connection that the client has begun to
	// close is remembered: whole seconds, 1s to 744h.
	// +kubebuilder:default="2m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('744h') && !self.contains('.') && !self.contains('ms')",message="must be whole seconds (no fraction, no ms), from 1s to 744h"
	// +optional
	TCPFinTimeout metav1.Duration `json:"tcpFinTimeout,omitzero"`

	// udpTimeout is how long after its last datagram a UDP client is still
	// sent to the same real server: whole seconds, 1s to 744h.
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('744h') && !self.contains('.') && !self.contains('ms')",message="must be whole seconds (no fraction, no ms), from 1s to 744h"
	// +optional
	UDPTimeout metav1.Duration `json:"udpTimeout,omitzero"`
}

// GuardMode switches the guard.
//
// +kubebuilder:validation:Enum=Enabled;Disabled
type GuardMode string

// The guard's modes.
const (
	GuardEnabled  GuardMode = "Enabled"
	GuardDisabled GuardMode = "Disabled"
)
