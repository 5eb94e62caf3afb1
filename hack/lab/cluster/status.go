package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

// pingLimit is how long Status waits for a guest's answer.
const pingLimit = 10 * time.Second

// Member is a node or a host, as Status sees it.
type Member struct {
	Name string
	// Addresses are on the segment and, for a node, on the management network.
	Addresses []string
	// State is running, booting (no answer from the agent) or off for a node,
	// and running or stopped for a real server's program; hosts without one
	// are always running.
	State string
	Cuts  []Cut
	// Pods is a node's pod network.
	Pods PodNetwork
}

// Status looks at every node and host.
func (l *Lab) Status(ctx context.Context) ([]Member, error) {
	s, err := readState(l.config.Name)
	if err != nil {
		return nil, err
	}
	nodes := l.config.Nodes()
	members := make([]Member, len(nodes))
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() {
			members[i] = Member{
				Name: n.Name, State: l.nodeState(ctx, n.Name), Cuts: s.Cuts[n.Name], Pods: n.Pods,
				Addresses: []string{n.Segment.Addr().String(), n.Segment6.Addr().String(), n.Management.Addr().String()},
			}
		})
	}
	group.Wait()
	for _, host := range Hosts() {
		members = append(members, l.hostMember(host))
	}
	return members, nil
}

func (l *Lab) nodeState(ctx context.Context, name string) string {
	if _, running := l.recorded(nodeProcess(name)); !running {
		return "off"
	}
	limited, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	if code, err := l.Exec(limited, name, []string{"true"}, wire.Streams{}); err != nil || code != 0 {
		return "booting"
	}
	return "running"
}

func (l *Lab) hostMember(host Host) Member {
	member := Member{Name: host.Name, State: "running"}
	if host.Segment.IsValid() {
		member.Addresses = []string{host.Segment.Addr().String(), host.Segment6.Addr().String()}
	}
	switch host.Name {
	case Router:
		member.Addresses = append(member.Addresses, "192.168.12.1", "fd00:12::1")
	case Far:
		member.Addresses = []string{"192.168.12.10", "fd00:12::10"}
	}
	if host.Responder {
		if _, running := l.recorded(responderProcess(host.Name)); !running {
			member.State = "stopped"
		}
	}
	return member
}
