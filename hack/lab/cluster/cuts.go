package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// Cut is a kind of broken connection.
type Cut string

// The cuts. They are made on the machine, outside the node: nothing on the
// node tells that they are there, and nothing on it can undo them.
const (
	// CutAPI drops what goes between the node and the API server.
	CutAPI Cut = "api"
	// CutPeers drops what goes between the node and the other nodes, on both
	// networks; hosts and the API server stay reachable.
	CutPeers Cut = "peers"
	// CutGossip drops what directors tell each other (GossipPort) and nothing else,
	// as a firewall would that nobody thought of.
	CutGossip Cut = "gossip"
	// CutSegment takes the node off the segment.
	CutSegment Cut = "segment"
	// CutLink plugs the cable to the segment out of the node's card, which the node
	// sees at once. A node that boots has its cable in.
	CutLink Cut = "link"
	// CutAll takes the node off both networks.
	CutAll Cut = "all"
)

// GossipPort is the port that CutGossip drops, TCP and UDP.
const GossipPort = "7956"

// Cuts lists all kinds.
func Cuts() []Cut { return []Cut{CutAPI, CutPeers, CutGossip, CutSegment, CutLink, CutAll} }

// Cut breaks a connection of a node, besides what is broken already.
func (l *Lab) Cut(ctx context.Context, name string, cut Cut) error {
	if !slices.Contains(Cuts(), cut) {
		return fmt.Errorf("%q is no cut: use api, peers, gossip, segment, link or all", cut)
	}
	return l.changeCuts(ctx, name, func(cuts []Cut) []Cut {
		if slices.Contains(cuts, cut) {
			return cuts
		}
		return append(cuts, cut)
	})
}

// Heal mends all connections of a node.
func (l *Lab) Heal(ctx context.Context, name string) error {
	return l.changeCuts(ctx, name, func([]Cut) []Cut { return nil })
}

func (l *Lab) changeCuts(ctx context.Context, name string, change func([]Cut) []Cut) error {
	if _, found := l.config.findNode(name); !found {
		return l.unknown(name, "a node")
	}
	return l.alone(ctx, func() error {
		s, err := readState(l.config.Name)
		if err != nil {
			return err
		}
		if s.Cuts == nil {
			s.Cuts = map[string][]Cut{}
		}
		s.Cuts[name] = change(s.Cuts[name])
		// Written first: if applying fails, Heal still knows what to mend.
		if err := l.writeState(s); err != nil {
			return err
		}
		return l.applyCuts(ctx, s.Cuts)
	})
}

// applyCuts makes the networks as cut as they are to be, whatever they were.
func (l *Lab) applyCuts(ctx context.Context, cuts map[string][]Cut) error {
	nodes := l.config.Nodes()
	if err := l.ip(ctx, Control, linkCommands(nodes, cuts)); err != nil {
		return err
	}
	if err := l.plug(ctx, nodes, cuts); err != nil {
		return err
	}
	path, err := machine.Program("nft")
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "-f", "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(filterRules(nodes, cuts)), &stderr
	if err := l.In(Control, cmd.Start); err != nil {
		return fmt.Errorf("cutting connections: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("cutting connections: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// plug puts the cables of the segment in or out. A node that is off has none.
func (l *Lab) plug(ctx context.Context, nodes []Node, cuts map[string][]Cut) error {
	for _, n := range nodes {
		if _, running := l.recorded(nodeProcess(n.Name)); !running {
			continue
		}
		// The segment's card is the first.
		if err := guest.SetLink(ctx, l.controlSocket(n.Name), 0, !slices.Contains(cuts[n.Name], CutLink)); err != nil {
			return fmt.Errorf("cutting %s off: %w", n.Name, err)
		}
	}
	return nil
}

func linkCommands(nodes []Node, cuts map[string][]Cut) []string {
	var commands []string
	for _, n := range nodes {
		all := slices.Contains(cuts[n.Name], CutAll)
		commands = append(commands,
			"link set "+n.segmentTap()+" "+upOrDown(!all && !slices.Contains(cuts[n.Name], CutSegment)),
			"link set "+n.managementTap()+" "+upOrDown(!all))
	}
	return commands
}

func upOrDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// filterRules is a script for nft that replaces the table with the rules for
// the cuts. ARP for the API server's address still passes: the node is to see
// silence, as from a broken router, and not an unreachable neighbour.
func filterRules(nodes []Node, cuts map[string][]Cut) string {
	var between, inward, outward []string
	for _, n := range nodes {
		own := quoted(n.segmentTap(), n.managementTap())
		if slices.Contains(cuts[n.Name], CutAPI) {
			tap := quoted(n.managementTap())
			inward = append(inward, "iifname { "+tap+" } ether type { ip, ip6 } drop")
			outward = append(outward, "oifname { "+tap+" } ether type { ip, ip6 } drop")
		}
		if slices.Contains(cuts[n.Name], CutGossip) {
			gossip := " meta l4proto { tcp, udp } th dport " + GossipPort + " drop"
			between = append(between, "iifname { "+own+" }"+gossip, "oifname { "+own+" }"+gossip)
		}
		var others []string
		for _, other := range nodes {
			if other.Name != n.Name {
				others = append(others, other.segmentTap(), other.managementTap())
			}
		}
		if slices.Contains(cuts[n.Name], CutPeers) && len(others) > 0 {
			between = append(between,
				"iifname { "+own+" } oifname { "+quoted(others...)+" } drop",
				"iifname { "+quoted(others...)+" } oifname { "+own+" } drop")
		}
	}
	var script strings.Builder
	script.WriteString("table bridge cuts\ndelete table bridge cuts\ntable bridge cuts {\n")
	for _, chain := range []struct {
		name, hook string
		rules      []string
	}{{"between", "forward", between}, {"inward", "input", inward}, {"outward", "output", outward}} {
		fmt.Fprintf(&script, "chain %s {\ntype filter hook %s priority 0\n%s\n}\n",
			chain.name, chain.hook, strings.Join(chain.rules, "\n"))
	}
	script.WriteString("}\n")
	return script.String()
}

func quoted(names ...string) string { return `"` + strings.Join(names, `", "`) + `"` }
