//go:build kernel

package kernel_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
)

// sharing is what the directors of a pair are told, each with the other's address.
func sharing(members ...string) kernel.Sync {
	s := kernel.Sync{SyncDaemon: kernel.SyncDaemon{Interface: "eth0", ID: 7}}
	for _, m := range members {
		s.Members = append(s.Members, netip.MustParseAddr(m))
	}
	return s
}

func share(t *testing.T, k *kernel.Client, want kernel.Sync) kernel.SyncState {
	t.Helper()
	state, err := k.SyncConnections(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// established waits until a director's table has an established connection to the
// port from the client's port, and says to which real server.
func established(t *testing.T, director *netlab.NS, clientPort int) string {
	t.Helper()
	began := time.Now()
	for ; ; time.Sleep(50 * time.Millisecond) { // the table tells of no change
		table := director.Table("ip_vs_conn")
		if entry := entryOf(table, clientPort); entry != nil {
			t.Logf("known after %s", time.Since(began).Round(50*time.Millisecond))
			return entry[5]
		}
		if time.Since(began) > patience {
			t.Fatalf("port %d is not known after %s:\n%s", clientPort, patience, table)
		}
	}
}

// entryOf returns the fields of a connection's line: Pro FromIP FPrt ToIP TPrt DestIP
// DPrt State Expires.
func entryOf(table string, clientPort int) []string {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > 7 && fields[2] == fmt.Sprintf("%04X", clientPort) && fields[7] == "ESTABLISHED" {
			return fields
		}
	}
	return nil
}

var echoAddresses = map[string]string{"IPv4": vip4 + ":7", "IPv6": "[" + vip6 + "]:7"}

func TestOpenConnectionsLiveOnAtTheOtherDirector(t *testing.T) {
	for name, address := range echoAddresses {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			share(t, p.kernel, sharing(other4))
			share(t, p.otherKernel, sharing(director4))
			// More than one, or all could be with the same server.
			conns := make([]*netlab.Conn, 4)
			for i := range conns {
				conns[i] = p.client.Connect("tcp", address)
			}
			servers := map[string]bool{}
			for _, conn := range conns {
				// A slow one: it has sent nothing yet.
				there := established(t, p.other, conn.LocalPort())
				if here := established(t, p.director, conn.LocalPort()); here != there {
					t.Errorf("one director sends to %s, the other to %s", here, there)
				}
				servers[there] = true
			}
			if len(servers) != 2 {
				t.Fatalf("connections go to %v, want both servers", servers)
			}
			p.director.Down("eth0")
			p.move()
			for range 3 {
				for i, conn := range conns {
					if got := conn.Echo("after"); got != "after" {
						t.Fatalf("connection %d says %q", i, got)
					}
				}
			}
		})
	}
}

func TestADirectorThatStartsEmptyHearsOfOpenConnections(t *testing.T) {
	p := newPair(t)
	share(t, p.kernel, sharing(other4))
	conn := p.client.Connect("tcp", vip4+":7")
	conn.Echo("before")
	// Longer than it takes to send it for the first time.
	time.Sleep(4 * time.Second)
	share(t, p.otherKernel, sharing(director4))
	if entryOf(p.other.Table("ip_vs_conn"), conn.LocalPort()) != nil {
		t.Fatal("it is there already")
	}
	began := time.Now()
	for entryOf(p.other.Table("ip_vs_conn"), conn.LocalPort()) == nil {
		if time.Since(began) > patience {
			t.Fatal("it does not come")
		}
		conn.Echo("x")
		time.Sleep(time.Second) // the pace of the client
	}
	t.Logf("known after %s", time.Since(began).Round(time.Second))
	p.director.Down("eth0")
	p.move()
	if got := conn.Echo("after"); got != "after" {
		t.Errorf("the connection says %q", got)
	}
}

// known opens a connection by the first director, or says that the other is not
// told.
func (p pair) known(t *testing.T) {
	t.Helper()
	established(t, p.other, p.client.Connect("tcp", vip4+":7").LocalPort())
}

func TestSharingGoesOnAfterTheInterfaceWasDown(t *testing.T) {
	p := newPair(t)
	share(t, p.kernel, sharing(other4))
	before := share(t, p.otherKernel, sharing(director4))
	p.known(t)
	for _, ns := range []*netlab.NS{p.director, p.other} {
		ns.Down("eth0")
		ns.Up("eth0")
	}
	p.known(t)
	share(t, p.kernel, sharing(other4))
	if after := share(t, p.otherKernel, sharing(director4)); after != before {
		t.Errorf("it was started anew: %+v, then %+v", before, after)
	}
	p.known(t)
}

func TestSharingGoesOnAfterAnAddressChanged(t *testing.T) {
	p := newPair(t)
	first := share(t, p.kernel, sharing(other4))
	before := share(t, p.otherKernel, sharing(director4))
	if first.Source != netip.MustParseAddr(director4) {
		t.Errorf("it sends from %s, want %s", first.Source, director4)
	}
	p.known(t)
	for ns, addr := range map[*netlab.NS]string{p.director: director4, p.other: other4} {
		ns.DeleteAddress("eth0", addr+"/24")
	}
	if _, err := p.kernel.SyncConnections(t.Context(), sharing(other4)); err != nil {
		t.Errorf("without an address it is %v, though it runs", err)
	}
	p.director.Address("eth0", "192.0.2.62/24")
	p.other.Address("eth0", "192.0.2.63/24")
	// The VIP's route went with the address that it names.
	bring(t, p.kernel, kerneltest.Parse(t, strings.ReplaceAll(echoes, "src "+director4, "src 192.0.2.62")))
	moved := share(t, p.kernel, sharing("192.0.2.63"))
	if moved.Source != netip.MustParseAddr("192.0.2.62") {
		t.Errorf("it sends from %s", moved.Source)
	}
	after := share(t, p.otherKernel, sharing("192.0.2.62"))
	if after.Since != before.Since {
		t.Error("what receives was started anew")
	}
	p.known(t)
}

func TestSharingGoesOnWithANewInterface(t *testing.T) {
	p := newPair(t)
	before := share(t, p.kernel, sharing(other4))
	if err := p.director.Links().LinkDel(p.director.Link("eth0")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.kernel.SyncConnections(t.Context(), sharing(other4)); err != nil {
		t.Errorf("without its interface it is %v, though it runs", err)
	}
	p.segment.Attach(p.director, "eth0", director4+"/24")
	after := share(t, p.kernel, sharing(other4))
	if after.Since == before.Since {
		t.Error("it still goes by the old interface")
	}
	share(t, p.otherKernel, sharing(director4))
	prepare(t, p.kernel, guarded)
	bring(t, p.kernel, kerneltest.Parse(t, echoes))
	p.moveBack()
	p.known(t)
}

func TestOnlyWhatChangesIsStartedAnew(t *testing.T) {
	ns, dir := node(t), t.TempDir()
	client := openAt(t, ns, dir)
	prepare(t, client, guarded)
	first := share(t, client, sharing())
	if !first.Running || first.Since <= 0 {
		t.Errorf("SyncConnections() = %+v", first)
	}
	if again := share(t, client, sharing(other4)); again != first {
		t.Errorf("with another member %+v, before %+v", again, first)
	}
	if adopted := share(t, openAt(t, ns, dir), sharing(other4)); adopted != first {
		t.Errorf("a new process has %+v, before %+v", adopted, first)
	}
	// Without a record it counts from when it was found.
	if found := share(t, openAt(t, ns, t.TempDir()), sharing()); !found.Running || found.Since <= first.Since {
		t.Errorf("a process without a record has %+v, before %+v", found, first)
	}
	changed := sharing()
	changed.ID, changed.Port, changed.Group = 8, 9000, netip.MustParseAddr("239.1.2.3")
	anew := share(t, client, changed)
	if anew.Since <= first.Since {
		t.Errorf("with other settings %+v, before %+v", anew, first)
	}
	if again := share(t, client, changed); again != anew {
		t.Errorf("and again %+v, before %+v", again, anew)
	}
}

func TestDaemonsOfOthersAreLeftAlone(t *testing.T) {
	ns := node(t)
	theirs, ours := openAt(t, ns, t.TempDir()), openAt(t, ns, t.TempDir())
	foreign := sharing()
	foreign.ID = 51
	before := share(t, theirs, foreign)
	prepare(t, ours, guarded)
	found := readSync(ns)
	for range 2 {
		state, err := ours.SyncConnections(t.Context(), sharing())
		if !errors.Is(err, kernel.ErrSyncDaemonTaken) || state.Running {
			t.Errorf("SyncConnections() = %+v, %v, want ErrSyncDaemonTaken", state, err)
		}
	}
	if err := ours.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := share(t, theirs, foreign); after != before {
		t.Errorf("theirs is %+v, was %+v", after, before)
	}
	if diff := cmp.Diff(found, readSync(ns)); diff != "" {
		t.Errorf("settings (-before +after):\n%s", diff)
	}
	if err := theirs.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state := share(t, ours, sharing()); !state.Running {
		t.Error("it does not run once they have gone")
	}
}

// readSync reads the settings of synchronisation.
func readSync(ns *netlab.NS) map[string]string {
	values := map[string]string{}
	for _, name := range []string{"sync_threshold", "sync_refresh_period", "sync_retries", "sync_version", "sync_ports"} {
		values[name] = strings.Join(strings.Fields(ns.Sysctl("ipv4/vs/"+name)), " ")
	}
	return values
}

func TestSharingRecordsAndEndsWithoutATrace(t *testing.T) {
	for name, end := range map[string]func(*kernel.Client) error{
		"turned off": func(k *kernel.Client) error {
			_, err := k.SyncConnections(t.Context(), kernel.Sync{})
			return err
		},
		"restored": func(k *kernel.Client) error { return k.Restore(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			ns, dir := node(t), t.TempDir()
			ns.SetSysctl("ipv4/vs/sync_threshold", "5 70")
			found := readSync(ns)
			client := openAt(t, ns, dir)
			prepare(t, client, guarded)
			share(t, client, sharing(other4))
			want := map[string]string{
				"sync_threshold": "0 0", "sync_refresh_period": "10", "sync_retries": "0", "sync_version": "1", "sync_ports": "1",
			}
			if diff := cmp.Diff(want, readSync(ns)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
			after := openAt(t, ns, dir)
			prepare(t, after, guarded)
			if err := end(after); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(found, readSync(ns)); diff != "" {
				t.Errorf("restored settings (-found +got):\n%s", diff)
			}
			// Nothing runs: somebody else can start their own.
			theirs := openAt(t, ns, t.TempDir())
			foreign := sharing()
			foreign.ID = 51
			share(t, theirs, foreign)
		})
	}
}

func TestSharingNeedsAnInterfaceWithAnAddress(t *testing.T) {
	ns := netlab.New(t)
	ns.Dummy("eth0")
	client := openAt(t, ns, t.TempDir())
	prepare(t, client, guarded)
	if state, err := client.SyncConnections(t.Context(), sharing()); err == nil || state.Running {
		t.Errorf("without an address SyncConnections() = %+v, %v", state, err)
	}
	ns.Address("eth0", director4+"/24")
	ns.Down("eth0")
	if state, err := client.SyncConnections(t.Context(), sharing()); err == nil || state.Running {
		t.Errorf("on an interface that is down SyncConnections() = %+v, %v", state, err)
	}
	ns.Up("eth0")
	if state := share(t, client, sharing()); !state.Running {
		t.Errorf("SyncConnections() = %+v", state)
	}
	missing := sharing()
	missing.Interface = "eth7"
	if _, err := client.SyncConnections(t.Context(), missing); !errors.Is(err, kernel.ErrNoLink) {
		t.Errorf("on an interface that does not exist it is %v", err)
	}
}

func TestDestinationsOfAnotherFamilyRefuseSharing(t *testing.T) {
	ns := node(t)
	client := openAt(t, ns, t.TempDir())
	prepare(t, client, guarded)
	service := &ipvs.Service{
		Address: net.ParseIP(vip6), Protocol: unix.IPPROTO_TCP, Port: 80, SchedName: "rr", AddressFamily: unix.AF_INET6, Netmask: 128,
	}
	if err := rawIPVS(t, ns).NewService(service); err != nil {
		t.Fatal(err)
	}
	addMixed(t, ns, vip6, "192.0.2.21")
	if state, err := client.SyncConnections(t.Context(), sharing()); !errors.Is(err, kernel.ErrSyncRefused) || state.Running {
		t.Errorf("SyncConnections() = %+v, %v, want ErrSyncRefused", state, err)
	}
	if err := rawIPVS(t, ns).DelService(service); err != nil {
		t.Fatal(err)
	}
	if state := share(t, client, sharing()); !state.Running {
		t.Error("it does not run once they have gone")
	}
}

// addMixed gives an IPv6 service on port 80 a tunnel to an IPv4 real server, which
// moby/ipvs cannot say (IPVS_CMD_NEW_DEST of linux/ip_vs.h).
func addMixed(t *testing.T, ns *netlab.NS, service, server string) {
	t.Helper()
	handle, err := netlink.NewHandleAt(netns.NsHandle(ns.FD()), unix.NETLINK_GENERIC)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	family, err := handle.GenlFamilyGet("IPVS")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(ns.FD()), -1, unix.NETLINK_GENERIC)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	const port80 = 80 << 8 // in network order on the machines that tests run on
	of := nl.NewRtAttr(1|unix.NLA_F_NESTED, nil)
	of.AddRtAttr(1, nl.Uint16Attr(unix.AF_INET6))
	of.AddRtAttr(2, nl.Uint16Attr(unix.IPPROTO_TCP))
	of.AddRtAttr(3, net.ParseIP(service).To16())
	of.AddRtAttr(4, nl.Uint16Attr(port80))
	to := nl.NewRtAttr(2|unix.NLA_F_NESTED, nil)
	address := make([]byte, 16)
	copy(address, net.ParseIP(server).To4())
	to.AddRtAttr(1, address)
	to.AddRtAttr(2, nl.Uint16Attr(port80))
	to.AddRtAttr(3, nl.Uint32Attr(2)) // a tunnel
	to.AddRtAttr(4, nl.Uint32Attr(1))
	to.AddRtAttr(5, nl.Uint32Attr(0))
	to.AddRtAttr(6, nl.Uint32Attr(0))
	to.AddRtAttr(11, nl.Uint16Attr(unix.AF_INET))
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: socket}}
	req.AddData(&nl.Genlmsg{Command: 5, Version: 1})
	req.AddData(of)
	req.AddData(to)
	if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		t.Fatal(err)
	}
}

func TestTheGuardLetsInMembersAlone(t *testing.T) {
	group := net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 81}
	const member, stranger = "192.0.2.21", client4
	l := newLab(t)
	prepare(t, l.kernel, guarded)
	share(t, l.kernel, sharing(member))
	// A port of a daemon's threads that no thread has. Whoever listens gets what comes
	// for a group that anybody on this host has joined.
	heard := l.director.ReceiveUDP("224.0.0.81:8850")
	other := l.director.ReceiveUDP("224.0.0.81:8912")
	send := func(from, text string) { l.client.SendUDP(group, from+":4000", "224.0.0.81:8850", text) }
	expect := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, heard(want[len(want)-1])); diff != "" {
			t.Errorf("heard (-want +got):\n%s", diff)
		}
	}
	send(stranger, "no member")
	send(member, "a member")
	expect("a member")
	// Beyond the daemon's ports the group is everybody's.
	l.client.SendUDP(group, stranger+":4000", "224.0.0.81:8912", "another port")
	if got := other("another port"); len(got) != 1 {
		t.Errorf("on another port %v was heard", got)
	}

	share(t, l.kernel, sharing(stranger))
	send(member, "no member any more")
	send(stranger, "a new member")
	expect("a new member")

	// A flushed ruleset comes back whole.
	conn := dialNFT(t, l.director)
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	prepare(t, l.kernel, guarded)
	send(member, "still no member")
	send(stranger, "still a member")
	expect("still a member")

	// A new process leaves what is there until it knows better.
	prepare(t, open(t, l.director), guarded)
	send(member, "still none")
	send(stranger, "still one")
	expect("still one")

	share(t, l.kernel, sharing())
	send(stranger, "nobody is a member")
	share(t, l.kernel, sharing(member))
	send(member, "a member again")
	expect("a member again")

	share(t, l.kernel, kernel.Sync{})
	table := &nftables.Table{Name: "lvs-operator", Family: nftables.TableFamilyINet}
	rules, err := dialNFT(t, l.director).GetRules(table, &nftables.Chain{Table: table, Name: "sync"})
	if err != nil || len(rules) != 0 {
		t.Errorf("rules are left: %v, %v", rules, err)
	}
}

func TestAForgedConnectionIsNotBelieved(t *testing.T) {
	p := newPair(t)
	share(t, p.kernel, sharing(other4))
	share(t, p.otherKernel, sharing("192.0.2.99"))
	conn := p.client.Connect("tcp", vip4+":7")
	established(t, p.director, conn.LocalPort())
	// Longer than it takes to send it.
	time.Sleep(4 * time.Second)
	if entryOf(p.other.Table("ip_vs_conn"), conn.LocalPort()) != nil {
		t.Error("what no member sent was taken")
	}
	share(t, p.otherKernel, sharing(director4))
	p.known(t)
}
