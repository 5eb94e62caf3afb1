package plan

// The network in the guest: a segment like that of the classic set-up, with each
// machine in a network namespace, and a management network by which directors
// reach the API server on the machine.
const (
	VIP = "192.168.11.200"
	// Director1 is the MASTER of keepalived's configurations.
	Director1 = "director1"
	Director2 = "director2"
	RS1       = "rs1"
	RS2       = "rs2"
	Client    = "client"
	// Router is a gateway that leads nowhere: a third machine beside directors and
	// real servers, as every segment has one.
	Router = "router"
	// FarNetwork is what directors have a route to by it.
	FarNetwork = "192.168.12.0/24"

	// APIServer is what the directors' management network has no route to while
	// the API server is away.
	APIServer = "10.99.0.1"
	// ManagementGateway is the guest's address on that network, of which the
	// machine knows that it is behind the guest.
	ManagementGateway = "10.244.31.1"
)

// Host is a network namespace with the interface eth0 on the segment.
type Host struct {
	Name string
	// Segment and Management are addresses with prefix length; Management is empty
	// for all but directors.
	Segment, Management string
	// MAC is that of eth0.
	MAC string
	// Weight is a real server's.
	Weight int
}

// Director says that the host is one.
func (h Host) Director() bool { return h.Management != "" }

// Hosts lists all hosts.
func Hosts() []Host {
	return []Host{
		{Name: Director1, Segment: "192.168.11.21/24", Management: "10.244.31.21/24", MAC: "52:54:00:aa:00:15"},
		{Name: Director2, Segment: "192.168.11.22/24", Management: "10.244.31.22/24", MAC: "52:54:00:aa:00:16"},
		{Name: RS1, Segment: "192.168.11.135/24", MAC: "52:54:00:aa:00:87", Weight: 1},
		{Name: RS2, Segment: "192.168.11.138/24", MAC: "52:54:00:aa:00:8a", Weight: 2},
		{Name: Client, Segment: "192.168.11.10/24", MAC: "52:54:00:aa:00:0a"},
		{Name: Router, Segment: "192.168.11.1/24", MAC: "52:54:00:aa:00:01"},
	}
}

// Where things are in the guest.
const (
	// Dir has the programs that the machine brings: runner, responder, director, and
	// keepalived in a folder of its own.
	Dir           = "/bench"
	Runner        = Dir + "/runner"
	Responder     = Dir + "/responder"
	Director      = Dir + "/director"
	KeepalivedDir = Dir + "/keepalived"
	// LogDir has what the programs of the last round wrote.
	LogDir = "/run/bench/logs"
	// KeepalivedFile holds, one a line, the words of the command that starts
	// keepalived.
	KeepalivedFile = Dir + "/keepalived.command"
)
