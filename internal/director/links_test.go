package director

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// planOver hands VIPs over whose real servers are reached by the links.
func (p *process) planOver(links []string, keys ...netstate.Key) {
	for _, key := range keys {
		d := desired(key, rs1, rs2)
		d.Links = links
		p.Program(d)
	}
}

func wantLinks(t *testing.T, n *node, want ...string) {
	t.Helper()
	if prepared, _ := n.fake.Node(); !slices.Equal(prepared.Links, want) {
		t.Errorf("prepared %v, want links %v", prepared.Links, want)
	}
}

func TestLinksOfRealServersArePreparedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		prepared := 0
		p.node.Script(func(c kernelCall) kernelFault {
			if c.Method == "Prepare" {
				prepared++
			}
			return kernelWorks
		})
		wantLinks(t, p.node)
		p.planOver([]string{"veth1", "veth2"}, vip1)
		p.planOver([]string{"veth0", "veth1"}, vip2)
		pass(100 * time.Millisecond)
		wantLinks(t, p.node, "veth0", "veth1", "veth2")
		if prepared != 1 {
			t.Errorf("prepared %d times for two plans, want once", prepared)
		}
		// The same once more is no news.
		p.planOver([]string{"veth0", "veth1", "veth2"}, vip2)
		pass(100 * time.Millisecond)
		if prepared != 1 {
			t.Errorf("prepared %d times for links that were prepared, want once", prepared)
		}
		p.planOver(nil, vip1, vip2)
		pass(100 * time.Millisecond)
		wantLinks(t, p.node)
	})
}

func TestLinksOfAVIPThatLeavesStayAsLongAsItIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		p.planOver([]string{"veth1"}, vip1)
		pass(time.Second)
		p.mu.Lock()
		delete(p.wanted, vip1)
		p.mu.Unlock()
		p.Remove(vip1)
		pass(lingerTime - 10*time.Second)
		wantLinks(t, p.node, "veth1")
		pass(30*time.Second + prepareAudit)
		wantLinks(t, p.node)
	})
}

func TestLinksStayOverARestart(t *testing.T) {
	for name, away := range map[string]bool{"with the API": false, "with the API away": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, dir := &leases{}, t.TempDir()
				first := active(t, l, dir)
				first.planOver([]string{"veth1"}, vip1)
				pass(time.Second)
				l.setAway(away)
				first.stop()

				second := start(t, "lb-1", first.node, l, dir)
				pass(time.Second)
				wantLinks(t, second.node, "veth1") // Nobody has said yet what to serve.
				if away {
					pass(2*syncPatience + prepareAudit)
					wantLinks(t, second.node, "veth1")
				}
				l.setAway(false)
				second.Join(pool())
				second.planOver([]string{"veth2"}, vip1)
				pass(100 * time.Millisecond)
				if !away {
					wantLinks(t, second.node, "veth1", "veth2") // Others may be planned yet.
				}
				second.Synced("default")
				pass(100 * time.Millisecond)
				wantLinks(t, second.node, "veth2")
			})
		})
	}
}
