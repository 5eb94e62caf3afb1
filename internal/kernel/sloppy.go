package kernel

import (
	"errors"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// The settings of IPVS that let it take up connections of which it did not see
// the beginning (Documentation/networking/ipvs-sysctl.rst).
const (
	sloppyTCP  = "ipv4/vs/sloppy_tcp"
	sloppySCTP = "ipv4/vs/sloppy_sctp"
	dropEntry  = "ipv4/vs/drop_entry"
)

// prepareSloppy has IPVS take up connections in their middle, or puts back what
// was found. Anybody can make it remember a connection then, for as long as an
// established one is remembered, by a packet without a handshake: drop_entry has
// the kernel forget some of those that had few packets while memory is short.
// Nil leaves all as it is.
func (s sysctls) prepareSloppy(want *netstate.Sloppy) error {
	if want == nil {
		return nil
	}
	return errors.Join(
		s.switched(sloppyTCP, want.TCP),
		s.switched(sloppySCTP, want.SCTP),
		s.prepareDropEntry(want.TCP || want.SCTP),
	)
}

// switched sets a setting to 1, or puts it back.
func (s sysctls) switched(name string, on bool) error {
	if on {
		return s.set(name, "1")
	}
	return s.putBack(name)
}

func (s sysctls) prepareDropEntry(on bool) error {
	if !on {
		return s.putBack(dropEntry)
	}
	found, err := s.read(dropEntry)
	if err != nil || found != "0" {
		return err
	}
	// The kernel itself makes a 2 of it while memory is short (update_defense_level
	// of ip_vs_ctl.c), which is ours too then. Recorded after the 1, it would be
	// missing after a crash in between.
	if err := s.record.note(dropEntry, found, "2"); err != nil {
		return err
	}
	return s.set(dropEntry, "1")
}

// putBack restores one setting, if it is recorded.
func (s sysctls) putBack(name string) error {
	file, err := s.record.read()
	if err != nil {
		return err
	}
	if was, recorded := file.Settings[name]; recorded {
		return s.restoreOne(name, was)
	}
	return nil
}
