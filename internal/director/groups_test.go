package director

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestGroupsAreSpreadEvenlyAfterADirectorComesAndGoes(t *testing.T) {
	for name, tc := range map[string]struct {
		groups int
		all    []string
		want   string
		others string
	}{
		"four among two":   {4, []string{"lb-1", "lb-2"}, "lb-1:2 lb-2:2", "lb-1:4"},
		"three among two":  {3, []string{"lb-1", "lb-2"}, "lb-1:2 lb-2:1", "lb-1:3"},
		"six among three":  {6, []string{"lb-1", "lb-2", "lb-3"}, "lb-1:2 lb-2:2 lb-3:2", "lb-1:3 lb-2:3"},
		"two of one among": {2, []string{"lb-1", "lb-2"}, "lb-1:1 lb-2:1", "lb-1:2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newTeam(t, cut(tc.groups))
				m.start("lb-1")
				pass(5 * time.Second)
				if got := m.shares(); got != "lb-1:"+string(rune('0'+tc.groups)) {
					t.Fatalf("alone it announces %s", got)
				}
				m.start(tc.all[1:]...)
				last := tc.all[len(tc.all)-1]
				for range 2 {
					m.served(30 * time.Second)
					if got := m.shares(); got != tc.want {
						t.Errorf("with %s they announce %s, want %s", last, got, tc.want)
					}
					if moved := m.served(time.Minute); len(moved) > 0 {
						t.Errorf("evenly spread, groups %v move", moved)
					}
					m.stop(last)
					m.served(30 * time.Second)
					if got := m.shares(); got != tc.others {
						t.Errorf("without %s they announce %s, want %s", last, got, tc.others)
					}
					m.start(last)
				}
			})
		})
	}
}

func TestGroupsStayWhereTheyAreWithoutPreemption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := cut(3)
		p.Election.Preemption.Never = true
		m := newTeam(t, p)
		m.start("lb-1")
		pass(5 * time.Second)
		m.start("lb-2")
		if moved := m.served(time.Minute); len(moved) > 0 {
			t.Errorf("groups %v moved", moved)
		}
	})
}

func TestAGroupMovesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := cut(3)
		p.Election.Preemption.Never = true
		m := newTeam(t, p)
		m.start("lb-1")
		pass(5 * time.Second)
		m.start("lb-2")
		pass(5 * time.Second)
		m.leases.give(1, "lb-2")
		for range 2000 {
			pass(time.Millisecond)
			if got := m.announcers(); got[0] != "lb-1" || got[2] != "lb-1" {
				t.Fatalf("the VIPs are announced by %q, and only group 1 was to move", got)
			}
		}
		if diff := cmp.Diff([]string{"lb-1", "lb-2", "lb-1"}, m.announcers()); diff != "" {
			t.Errorf("announcers (-want +got):\n%s", diff)
		}
		one, two := m.up["lb-1"].Status(), m.up["lb-2"].Status()
		if len(one.Active) != 2 || one.Groups != 3 || len(two.Active) != 1 || two.Active[0].Group != 1 || two.Active[0].Epoch != 2 {
			t.Errorf("lb-1 says %+v of %d, lb-2 %+v", one.Active, one.Groups, two.Active)
		}
		if one.Last == nil || one.Last.Group != 1 || one.Last.Active || len(one.Transitions) != 3 {
			t.Errorf("lb-1's last transition is %+v of %+v", one.Last, one.Transitions)
		}
		for number, want := range []string{"lb-1", "lb-2", "lb-1"} {
			for name, p := range m.up {
				role := p.Roles()[number]
				if role.Holder != want || role.Active != (name == want) || (role.Term != 0) != (name == want) {
					t.Errorf("%s says of group %d %+v, want it %s's", name, number, role, want)
				}
			}
		}
		// Unknown connections go where the group is, or was before.
		if got := m.nodes["lb-1"].relayOf(m.vips[1].Addr); got != second4 {
			t.Errorf("lb-1 hands on to %s what is for group 1, want lb-2", got)
		}
		if got := m.nodes["lb-2"].relayOf(m.vips[1].Addr); got != first4 {
			t.Errorf("lb-2 hands on to %s what is for group 1, want lb-1", got)
		}
		if got := m.nodes["lb-1"].relayOf(m.vips[0].Addr); got.IsValid() {
			t.Errorf("lb-1 hands on to %s what is for group 0, which nobody had before it", got)
		}
	})
}

func TestARestartRestoresEachGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTeam(t, cut(4))
		m.start("lb-1")
		pass(5 * time.Second)
		m.start("lb-2")
		pass(10 * time.Second)
		want := m.announcers()
		m.leases.setAway(true)
		pass(time.Second)
		m.up["lb-1"].stop()
		m.up["lb-1"] = start(t, "lb-1", m.nodes["lb-1"], m.leases, m.dirs["lb-1"])
		pass(2 * syncPatience)
		if diff := cmp.Diff(want, m.announcers()); diff != "" || m.shares() != "lb-1:2 lb-2:2" {
			t.Errorf("announcers (-before +after):\n%s", diff)
		}
	})
}

func TestAPoolThatIsMadeAnewWithOtherGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTeam(t, cut(3))
		m.start("lb-1")
		pass(5 * time.Second)
		p := m.up["lb-1"]
		m.vips, m.pool = oneOfEach(2), cut(2)
		p.Join(m.pool)
		pass(time.Second)
		p.plan(m.vips...)
		pass(5 * time.Second)
		if got := m.announcers(); !slices.Equal(got, []string{"lb-1", "lb-1"}) || p.Status().Groups != 2 {
			t.Errorf("of %d groups it announces %q", p.Status().Groups, got)
		}
		if got := m.leases.holders(3); !slices.Equal(got, []string{"lb-1", "lb-1", ""}) {
			t.Errorf("the Leases are of %q, want the third given up", got)
		}
	})
}

func TestAllGroupsAreGivenUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const groups = election.MaxGroups
		m := newTeam(t, cut(groups))
		m.start("lb-1")
		pass(5 * time.Second)
		m.leases.setSlow(500 * time.Millisecond)
		pass(5 * time.Second)
		began := time.Now()
		m.up["lb-1"].stop()
		// A renewal under way, and the release.
		if took := time.Since(began); took > 2*500*time.Millisecond+100*time.Millisecond {
			t.Errorf("it took %s to give up %d groups", took, groups)
		}
		if held := slices.DeleteFunc(m.leases.holders(groups), func(holder string) bool { return holder == "" }); len(held) > 0 {
			t.Errorf("%d Leases are held still", len(held))
		}
	})
}

// TestWhatManyGroupsCost: each is renewed once a second, and nothing else is asked.
func TestWhatManyGroupsCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTeam(t, cut(election.MaxGroups))
		m.start("lb-1")
		pass(5 * time.Second)
		m.start("lb-2")
		pass(time.Minute)
		before := m.leases.count()
		pass(time.Minute)
		perSecond := float64(m.leases.count()-before) / 60
		t.Logf("%.1f requests a second for %d groups and two directors", perSecond, election.MaxGroups)
		if perSecond > election.MaxGroups+0.5 {
			t.Errorf("%.1f requests a second, want one for each group", perSecond)
		}
	})
}

func TestAClaimIsOfOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTeam(t, cut(3))
		m.start("lb-1")
		pass(5 * time.Second)
		p := m.up["lb-1"]
		stranger := announce.Claim{VIP: m.vips[2].Addr, MAC: announce.MAC{2, 9}, When: time.Now()}
		p.present().hear(stranger, &spoken{})
		if got := p.Status().Conflicts; len(got) != 1 || got[0].VIP != stranger.VIP {
			t.Errorf("conflicts = %+v", got)
		}
		// Without the API server what is heard of a peer is all there is to go by.
		p.SetPeers(Rank{}, []Peer{{Node: "lb-2", MAC: "02:00:00:00:00:0c", Live: true}})
		m.leases.setAway(true)
		pass(10 * time.Second)
		peer := announce.MAC{2, 0, 0, 0, 0, 12}
		claim := announce.Claim{VIP: m.vips[1].Addr, MAC: peer, When: time.Now()}
		p.present().hear(claim, &spoken{})
		p.present().verify(t.Context(), claim, &segment{holder: []announce.MAC{peer}})
		pass(time.Second)
		if diff := cmp.Diff([]string{"lb-1", "", "lb-1"}, m.announcers()); diff != "" {
			t.Errorf("announcers (-want +got):\n%s", diff)
		}
	})
}

func TestTheKernelAnswersForTheGroupsThatAreItsDirectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTeam(t, cut(3))
		m.start("lb-1")
		pass(5 * time.Second)
		answered := func() string {
			var vips []string
			for address := range m.nodes["lb-1"].fake.State().Addresses {
				if address.Link == "eth0" {
					vips = append(vips, address.Addr.String())
				}
			}
			slices.Sort(vips)
			return strings.Join(vips, " ")
		}
		texts := func(numbers ...int) string {
			var vips []string
			for _, number := range numbers {
				vips = append(vips, m.vips[number].Addr.String())
			}
			slices.Sort(vips)
			return strings.Join(vips, " ")
		}
		if got, want := answered(), texts(0, 1, 2); got != want {
			t.Errorf("alone its kernel answers for %s, want %s", got, want)
		}
		// Somebody who is no peer here, and whose Lease runs out.
		m.leases.give(1, "lb-9")
		pass(time.Second)
		if got, want := answered(), texts(0, 2); got != want {
			t.Errorf("while another has group 1 its kernel answers for %s, want %s", got, want)
		}
		pass(5 * time.Second)
		if got, want := answered(), texts(0, 1, 2); got != want {
			t.Errorf("with all groups again its kernel answers for %s, want %s", got, want)
		}
		m.start("lb-2")
		pass(2 * time.Second)
		if got := answered(); got != "" {
			t.Errorf("in company its kernel answers for %s", got)
		}
	})
}

func TestAnswersThatAreDecidedGroupByGroup(t *testing.T) {
	vips := oneOfEach(3)
	have := netstate.New()
	for _, vip := range vips {
		have.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: vip.Addr}] = netstate.Address{}
		have.Addresses[netstate.AddressKey{Link: "eth9", Addr: vip.Addr}] = netstate.Address{}
	}
	for name, tc := range map[string]struct {
		before, said answers
		// want are the links besides dummy-lvs that each VIP is on.
		want []string
	}{
		"nothing is decided":             {answers{}, answers{groups: 3}, []string{"eth9", "eth9", "eth9"}},
		"one is to answer":               {answers{}, answers{groups: 3, decided: 0b010, on: 0b010, link: "eth0"}, []string{"eth9", "eth0", "eth9"}},
		"one is not to answer":           {answers{}, answers{groups: 3, decided: 0b010}, []string{"eth9", "", "eth9"}},
		"one more is to answer":          {answers{groups: 3, decided: 0b001, on: 0b001, link: "eth0"}, answers{groups: 3, decided: 0b010, on: 0b010, link: "eth0"}, []string{"eth0", "eth0", "eth9"}},
		"one less is to answer":          {answers{groups: 3, decided: 0b111, on: 0b111, link: "eth0"}, answers{groups: 3, decided: 0b010}, []string{"eth0", "", "eth0"}},
		"none is any more":               {answers{groups: 3, decided: 0b111, on: 0b111, link: "eth0"}, answers{groups: 3, decided: 0b111}, []string{"", "", ""}},
		"what was said of other groups":  {answers{groups: 2, decided: 0b11, on: 0b11, link: "eth0"}, answers{groups: 3, decided: 0b001}, []string{"", "eth9", "eth9"}},
		"on another interface from then": {answers{groups: 3, decided: 0b001, on: 0b001, link: "eth0"}, answers{groups: 3, decided: 0b001, on: 0b001, link: "eth1"}, []string{"eth1", "eth9", "eth9"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := make([]string, len(vips))
			for address := range tc.said.after(tc.before).in(withoutAnswers(have), have).Addresses {
				if number := election.GroupOf(address.Addr, 3); address.Link != netstate.DummyLink {
					got[number] += address.Link
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTheFenceIsAsOldAsTheOldestDecision: no group is answered for while one has not
// decided afresh.
func TestTheFenceIsAsOldAsTheOldestDecision(t *testing.T) {
	now := time.Duration(0)
	s := &session{fence: announce.NewFence(func() time.Duration { return now })}
	s.groups = []*group{{s: s, number: 0}, {s: s, number: 1}}
	s.beat(s.groups[0], now)
	if s.fence.Fresh() {
		t.Error("fresh before all have decided")
	}
	s.beat(s.groups[1], now)
	if !s.fence.Fresh() {
		t.Error("not fresh although all have decided")
	}
	for range 4 {
		now += 50 * time.Millisecond
		s.beat(s.groups[0], now)
	}
	if s.fence.Fresh() {
		t.Error("fresh although one has not decided for 200 ms")
	}
	s.beat(s.groups[1], now)
	if !s.fence.Fresh() {
		t.Error("not fresh although all have decided again")
	}
}

// TestAVIPThatIsRefusedImpairsItsGroup: the others have no reason to move.
func TestAVIPThatIsRefusedImpairsItsGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := cut(3)
		p.Election.Preemption.Never = true
		m := newTeam(t, p)
		m.start("lb-1")
		pass(5 * time.Second)
		m.start("lb-2")
		pass(5 * time.Second)
		m.nodes["lb-1"].Script(func(c kernelCall) kernelFault {
			if c.Method == "Observe" && c.Key == m.vips[1] {
				return kernelFails
			}
			return kernelWorks
		})
		moved := m.served(2 * auditInterval)
		if diff := cmp.Diff(map[int]bool{1: true}, moved); diff != "" {
			t.Errorf("groups that moved (-want +got):\n%s", diff)
		}
	})
}

func TestAMachineThatIsGoneIsFoundOutForEachGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := cut(3)
		m := newTeam(t, p)
		m.start("lb-1")
		pass(5 * time.Second)
		m.start("lb-2", "lb-3")
		pass(20 * time.Second)
		shown := func(name string) map[netip.Addr]bool {
			to := map[netip.Addr]bool{}
			for _, vip := range m.vips {
				if addr := m.nodes[name].relayOf(vip.Addr); addr.IsValid() {
					to[addr] = true
				}
			}
			return to
		}
		// Each of them has one group, which the first had before.
		if got := m.shares(); got != "lb-1:1 lb-2:1 lb-3:1" {
			t.Fatalf("they announce %s", got)
		}
		third4 := netip.MustParseAddr("192.168.11.13")
		if diff := cmp.Diff([]netip.Addr{first4, third4}, slices.SortedFunc(maps.Keys(shown("lb-2")), netip.Addr.Compare), addr); diff != "" {
			t.Errorf("lb-2 hands on (-want +got):\n%s", diff)
		}
		m.nodes["lb-2"].setGone(first4)
		pass(2*probeEvery + judgeEvery)
		own := slices.Index(m.announcers(), "lb-2")
		if to := m.nodes["lb-2"].relayOf(m.vips[own].Addr); to.IsValid() {
			t.Errorf("lb-2 hands on to %s what is for its own group, and that machine is gone", to)
		}
		if !shown("lb-2")[third4] {
			t.Errorf("lb-2 hands nothing on to lb-3, which is there: %v", shown("lb-2"))
		}
	})
}
