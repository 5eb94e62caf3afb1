package v1alpha1

// Conditions of a VirtualServer. All three exist, as Unknown with reason
// Pending, from the first time that a director writes the status.
const (
	// ConditionAccepted says whether the spec can be served at all.
	//
	// True: Accepted. Unknown: Pending. False: Invalid, NoDirectorPool,
	// AddressNotAllowed, AddressReserved, AddressInUse, Conflict,
	// RealServerNotAllowed or RealServerIsDirector. A VirtualServer is
	// accepted as a whole or not at all: with one claim refused nothing of it
	// is programmed.
	ConditionAccepted = "Accepted"

	// ConditionProgrammed says whether for every address an active director
	// has the services in its kernel and announces the address.
	//
	// True: Programmed. Unknown: Pending, NoDirector. False: NotAccepted,
	// SchedulerUnavailable, IPVSUnavailable, KubeProxyIPVS or KernelError.
	ConditionProgrammed = "Programmed"

	// ConditionReady says whether clients are served: Programmed, and at least
	// one real server gets new connections, or as many as the quorum asks for.
	//
	// True: Ready. Unknown: Pending. False: NotAccepted, NotProgrammed,
	// NoRealServers, AllRealServersDown, QuorumLost, or what keeps every real
	// server out: NotPrepared, NotAdjacent, ServicePortMismatch, PodNotUsable,
	// RealServerNotAllowed or RealServerIsDirector.
	//
	// On a Director it says whether the director could serve: Ready, Starting,
	// NoDirectorPool, IPVSUnavailable, KubeProxyIPVS or KernelError. On a
	// RealServerNode it says whether the agent of the node has prepared every
	// pod as VirtualServers want it: Ready, NotPrepared or CRIUnavailable.
	ConditionReady = "Ready"
)

// Conditions of a Director besides Ready.
const (
	// ConditionCandidate says whether the director may become active: its real
	// servers have verdicts or were adopted, or it has waited long enough for
	// them.
	ConditionCandidate = "Candidate"

	// ConditionAPIReachable says whether the director reaches the API server.
	// While it does not, it goes on with what it has.
	ConditionAPIReachable = "APIReachable"

	// ConditionAddressConflict says whether somebody else on the network
	// answers for a VIP that the director announces. Its good state is False.
	//
	// True: AddressClaimed or KernelAnswersElsewhere, until nobody has done so
	// for a minute. False: NoConflict.
	ConditionAddressConflict = "AddressConflict"

	// ConditionAlive says whether the director's node and pod are ready, and, before
	// the API server can know, whether the other directors hear it. Its one writer is the director that holds the Lease, which is Alive itself, since the
	// dead say nothing: all else in the status of a director that is not Alive is
	// what it last said, and counts for nothing, that it is active in particular.
	//
	// True: Alive. False: NodeNotReady, PodNotReady, Superseded or Silent.
	ConditionAlive = "Alive"

	// ConditionKernelAnswers says whether the node's kernel itself answers ARP
	// and neighbour solicitations for the VIPs. It does while the director is
	// alone, so that the VIPs outlive the director's process; a peer must not
	// become a candidate before it has stopped.
	ConditionKernelAnswers = "KernelAnswers"

	// ConditionIPVSAvailable says whether the kernel has IPVS, and every scheduler
	// that a VirtualServer asks for.
	ConditionIPVSAvailable = "IPVSAvailable"

	// ConditionFullyProgrammed says whether the kernel takes all that the director
	// is to serve. While it has refused one of the VIPs for some seconds, the
	// director ranks after those whose kernel has not, and hands over to one of
	// them; where all are alike nothing moves.
	//
	// True: Programmed. Unknown: Starting. False: SchedulerUnavailable or
	// KernelError.
	ConditionFullyProgrammed = "FullyProgrammed"

	// ConditionConnectionsSynced says whether the director knows the connections
	// that are open at the others, so that they live on if it takes over.
	//
	// True: Synced. Unknown: Starting. False: Cold, SyncDisabled, SyncDaemonTaken or
	// SyncFailed. With any of the last two, connections may be reset at a takeover;
	// all else is served.
	ConditionConnectionsSynced = "ConnectionsSynced"
)

// Reasons of the conditions' good state.
const (
	// ReasonAccepted: the spec can be served.
	ReasonAccepted = "Accepted"

	// ReasonProgrammed: every address is in the kernel of an active director
	// and announced by it.
	ReasonProgrammed = "Programmed"

	// ReasonReady: clients are served; of a Director, it could serve; of a
	// RealServerNode, all pods have the VIPs.
	ReasonReady = "Ready"
)

// Reasons why it is not known yet, or no longer.
const (
	// ReasonPending: no director has looked at this generation yet, or no real
	// server has a verdict yet.
	ReasonPending = "Pending"

	// ReasonNoDirector: no director is active for an address.
	ReasonNoDirector = "NoDirector"
)

// Reasons for refusing a VirtualServer (Accepted=False). The message names the
// address, or the object that stands in the way.
const (
	// ReasonInvalid: the spec contradicts itself in a way that the API server
	// has not refused.
	ReasonInvalid = "Invalid"

	// ReasonNoDirectorPool: there is no DirectorPool of that name.
	ReasonNoDirectorPool = "NoDirectorPool"

	// ReasonAddressNotAllowed: the DirectorPool does not allow the VIP to the
	// namespace.
	ReasonAddressNotAllowed = "AddressNotAllowed"

	// ReasonAddressReserved: the VIP is an address of a node, a gateway's or
	// the API server's, which is refused whatever the DirectorPool allows.
	ReasonAddressReserved = "AddressReserved"

	// ReasonAddressInUse: an older VirtualServer of another namespace has the
	// VIP.
	ReasonAddressInUse = "AddressInUse"

	// ReasonConflict: an older VirtualServer of the same namespace serves the
	// same VIP, port and protocol.
	ReasonConflict = "Conflict"

	// ReasonRealServerNotAllowed: the DirectorPool does not allow the real
	// server to the namespace.
	ReasonRealServerNotAllowed = "RealServerNotAllowed"

	// ReasonRealServerIsDirector: the real server is a director of the same
	// pool, which has no guard, or an address of a director other than that on
	// its announcement interface. A director would send its connections back to
	// the active one, and they would go round.
	ReasonRealServerIsDirector = "RealServerIsDirector"
)

// Reasons why an accepted VirtualServer is not programmed (Programmed=False).
const (
	// ReasonNotAccepted: see the condition Accepted.
	ReasonNotAccepted = "NotAccepted"

	// ReasonSchedulerUnavailable: the kernel has no such scheduler and could
	// not load its module (ip_vs_NAME).
	ReasonSchedulerUnavailable = "SchedulerUnavailable"

	// ReasonIPVSUnavailable: the kernel has no IPVS and could not load it
	// (ip_vs).
	ReasonIPVSUnavailable = "IPVSUnavailable"

	// ReasonKubeProxyIPVS: kube-proxy runs in ipvs mode on the node, where it
	// deletes IPVS services that it does not know.
	ReasonKubeProxyIPVS = "KubeProxyIPVS"

	// ReasonKernelError: the kernel has refused an operation. The message says
	// which, and how.
	ReasonKernelError = "KernelError"
)

// Reasons why a programmed VirtualServer does not serve (Ready=False).
const (
	// ReasonNotProgrammed: see the condition Programmed.
	ReasonNotProgrammed = "NotProgrammed"

	// ReasonNoRealServers: no real server is meant to get new connections:
	// there is none, or each is Drained, Disabled or of weight 0.
	ReasonNoRealServers = "NoRealServers"

	// ReasonAllRealServersDown: health checks say of every real server that it
	// does not answer, or its pod that it is not ready.
	ReasonAllRealServersDown = "AllRealServersDown"

	// ReasonQuorumLost: fewer real servers are up than the quorum asks for. The
	// message says how many, and whether the sorry server answers.
	ReasonQuorumLost = "QuorumLost"
)

// Reasons why a real server is left out although the VirtualServer is accepted.
// They begin the reason of its entry in status.realServers, and are the reason of
// Ready=False if that is what is wrong with all of them.
const (
	// ReasonNotPrepared: the agent of the pod's node has not yet given the pod
	// the VIP, or there is no agent on that node. Of a RealServerNode: some pods
	// lack a VIP. Of a pod: it waits for a VIP.
	ReasonNotPrepared = "NotPrepared"

	// ReasonNotAdjacent: the active director reaches the real server by a gateway
	// only, where direct routing does not reach.
	ReasonNotAdjacent = "NotAdjacent"

	// ReasonServicePortMismatch: the endpoint listens on another port than the one
	// that clients connect to, and direct routing changes no port.
	ReasonServicePortMismatch = "ServicePortMismatch"

	// ReasonPodNotUsable: the pod's annotations, or its address, cannot be used. The
	// message says why.
	ReasonPodNotUsable = "PodNotUsable"
)

// Reasons of a RealServerNode's condition Ready besides those above.
const (
	// ReasonCRIUnavailable: the container runtime of the node does not tell which
	// network namespaces its pods have.
	ReasonCRIUnavailable = "CRIUnavailable"
)

// The readiness gate of pods, lvs-operator.io/real-server-ready: a pod that
// declares it becomes Ready only when it has every VIP that VirtualServers
// wanted of it at that moment. It is set on pods that declare it alone, and never
// goes back to False because a VIP was added.
const (
	// PodConditionRealServerReady is the type of the condition.
	PodConditionRealServerReady = "lvs-operator.io/real-server-ready"

	// ReasonPrepared: the pod has the VIPs.
	ReasonPrepared = "Prepared"

	// ReasonNotSelected: no VirtualServer selects the pod, so it need not have
	// any VIP.
	ReasonNotSelected = "NotSelected"

	// ReasonNotNeeded: only VirtualServers select the pod whose forwarding method
	// needs no VIP on it, or that are refused.
	ReasonNotNeeded = "NotNeeded"
)

// Reasons of a Director's conditions besides those above.
const (
	// ReasonStarting: the director has not yet read what it is to serve, or
	// not yet brought it about.
	ReasonStarting = "Starting"

	// ReasonUnreachable: the API server does not answer.
	ReasonUnreachable = "Unreachable"

	// ReasonReachable: the API server answers.
	ReasonReachable = "Reachable"

	// ReasonAddressClaimed: another host answers for a VIP. The message names
	// the VIP and the host's hardware address.
	ReasonAddressClaimed = "AddressClaimed"

	// ReasonKernelAnswersElsewhere: the kernel of another director of the pool
	// still answers for a VIP. That director let it while it was alone, and
	// died; nobody else can take the VIP off its node. Both nodes forward, so
	// that no client is refused. It ends when the dead director runs again or
	// its node goes. The message names the VIP, the hardware address and the
	// node.
	ReasonKernelAnswersElsewhere = "KernelAnswersElsewhere"

	// ReasonNoConflict: no other host answers for a VIP.
	ReasonNoConflict = "NoConflict"

	// ReasonAlive: the node and the pod of the director are ready, or it
	// holds the Lease.
	ReasonAlive = "Alive"

	// ReasonNodeNotReady: the director's node is not ready, or gone.
	ReasonNodeNotReady = "NodeNotReady"

	// ReasonPodNotReady: the node has no director's pod that is ready.
	ReasonPodNotReady = "PodNotReady"

	// ReasonSuperseded: another director has taken over, and this one has not
	// said since that it is no longer active: it is dead, or cut off from the
	// API server. Node and pod count again as soon as it has.
	ReasonSuperseded = "Superseded"

	// ReasonSilent: the other directors have ceased to hear the director within the
	// last minute, and it holds no Lease: most likely its machine has failed. Then
	// its node and pod count again, which are known not to be ready by that time.
	ReasonSilent = "Silent"

	// ReasonAlone: no other director of the pool is there to take over, so the
	// kernel answers for the VIPs.
	ReasonAlone = "Alone"

	// ReasonPeerPresent: another director of the pool could take over, so the
	// kernel must not answer for the VIPs.
	ReasonPeerPresent = "PeerPresent"

	// ReasonStandby: the director does not announce the VIPs.
	ReasonStandby = "Standby"

	// ReasonIPVSAvailable: the kernel has IPVS.
	ReasonIPVSAvailable = "IPVSAvailable"

	// ReasonCandidate: the director may become active.
	ReasonCandidate = "Candidate"

	// ReasonLinkDown: the announcement interface is down or has no carrier.
	ReasonLinkDown = "LinkDown"

	// ReasonPeerKernelAnswers: the kernel of another director still answers for
	// the VIPs; it stops when that director has seen that this one is ready.
	ReasonPeerKernelAnswers = "PeerKernelAnswers"

	// ReasonUnknownToPeer: another director, whose name the message has, may be a
	// real server itself and does not know this one's MAC address yet, so it would
	// send packets from it round. It learns it from the Director object, or by gossip.
	ReasonUnknownToPeer = "UnknownToPeer"

	// ReasonSynced: the director has listened to the connections of the others for
	// as long as spec.election.preemption.delay.
	ReasonSynced = "Synced"

	// ReasonCold: the director listens to the connections of the others, but not
	// for long enough yet. The message says until when.
	ReasonCold = "Cold"

	// ReasonSyncDisabled: the DirectorPool says so.
	ReasonSyncDisabled = "SyncDisabled"

	// ReasonSyncDaemonTaken: somebody else (keepalived's lvs_sync_daemon) runs
	// IPVS's synchronisation daemon on the node, with other settings. It is left
	// alone.
	ReasonSyncDaemonTaken = "SyncDaemonTaken"

	// ReasonSyncFailed: the kernel does not synchronise connections. The message
	// says why.
	ReasonSyncFailed = "SyncFailed"

	// ReasonWaitingForVerdicts: real servers have no verdict yet.
	ReasonWaitingForVerdicts = "WaitingForVerdicts"
)
