package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sysctls reads and writes settings below one directory and records what it
// changes. It works on the network namespace of the thread that calls it.
type sysctls struct {
	root   string
	record *record
}

// confPath is the name of a setting of an interface.
func confPath(link, name string) string { return filepath.Join("ipv4/conf", link, name) }

func (s sysctls) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		return "", fmt.Errorf("reading sysctl %s: %w", name, err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (s sysctls) readInt(name string) (int, error) {
	text, err := s.read(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("reading sysctl %s: %w", name, err)
	}
	return n, nil
}

func (s sysctls) write(name, value string) error {
	if err := os.WriteFile(filepath.Join(s.root, name), []byte(value+"\n"), 0o644); err != nil {
		return fmt.Errorf("setting sysctl %s: %w", name, err)
	}
	return nil
}

// set gives a setting a value, and records what it found before that.
func (s sysctls) set(name, value string) error {
	found, err := s.read(name)
	if err != nil {
		return err
	}
	if found == value {
		return nil
	}
	if err := s.record.note(name, found, value); err != nil {
		return err
	}
	return s.write(name, value)
}

// atLeast sets a setting that is below value.
func (s sysctls) atLeast(name string, value int) error {
	found, err := s.readInt(name)
	if err != nil || found >= value {
		return err
	}
	return s.set(name, strconv.Itoa(value))
}

// effective is what counts for an interface: the larger of its own setting and
// that of `all` (IN_DEV_MAXCONF and IN_DEV_ORCONF of linux/inetdevice.h).
func (s sysctls) effective(link, name string) (int, error) {
	own, err := s.readInt(confPath(link, name))
	if err != nil {
		return 0, err
	}
	all, err := s.readInt(confPath("all", name))
	return max(own, all), err
}

// raise sees to it that a setting's effective value on an interface is at least
// value, by the interface's own.
func (s sysctls) raise(link, name string, value int) error {
	found, err := s.effective(link, name)
	if err != nil || found >= value {
		return err
	}
	return s.set(confPath(link, name), strconv.Itoa(value))
}

// prepareDirector sets what VIPs on a director need.
//
// On the announcement interface alone: the kernel does not answer ARP for VIPs
// on another device and does not use them as senders (arp_ignore, arp_announce);
// replies from a VIP, which is local here too, to pods and processes of this
// node are taken in (accept_local, and a reverse path filter that is not
// strict). See Documentation/networking/ip-sysctl.rst.
//
// Of IPVS: connections to a real server that is gone or drained are made anew
// (expire_nodest_conn, expire_quiescent_template), as is one whose client port
// comes back while the director, which sees half of the conversation, takes the
// old one for FIN_WAIT (conn_reuse_mode 2; its delay of a second exists only with
// conntrack, which stays as it is). See Documentation/networking/ipvs-sysctl.rst.
func (s sysctls) prepareDirector(link string) error {
	var errs []error
	errs = append(errs,
		s.raise(link, "arp_ignore", 1),
		s.raise(link, "arp_announce", 2),
		s.raise(link, "accept_local", 1),
		s.loosen(link),
		s.set("ipv4/vs/expire_nodest_conn", "1"),
		s.set("ipv4/vs/expire_quiescent_template", "1"),
		s.set("ipv4/vs/conn_reuse_mode", "2"),
	)
	return errors.Join(errs...)
}

// linkSettings are the settings of an interface by which the node's own pods are
// reached.
var linkSettings = [...]string{"accept_local", "rp_filter"}

// prepareLinks sets what the interfaces need, besides the announcement interface,
// on which packets from a VIP come in: a VIP is local here, so they would be
// dropped as martian. Those that were prepared before and are not listed any more
// are put back. One that does not exist is passed over and its record dropped:
// another of its name is another.
func (s sysctls) prepareLinks(announcement string, links []string) error {
	file, err := s.record.read()
	if err != nil {
		return err
	}
	var errs []error
	kept := links
	for _, link := range file.Links {
		// The announcement interface needs the same and more.
		if slices.Contains(links, link) || link == announcement {
			continue
		}
		if err := s.restoreLink(link); err != nil {
			errs = append(errs, err)
			kept = append(slices.Clone(kept), link)
		}
	}
	// Recorded first: after a crash in between it is known what to put back.
	if err := s.record.noteLinks(kept); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, link := range links {
		err := errors.Join(s.raise(link, "accept_local", 1), s.loosen(link))
		if errors.Is(err, fs.ErrNotExist) {
			err = s.restoreLink(link)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// restoreLink puts back what was recorded of an interface besides the announcement
// interface.
func (s sysctls) restoreLink(link string) error {
	file, err := s.record.read()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range linkSettings {
		if was, recorded := file.Settings[confPath(link, name)]; recorded {
			errs = append(errs, s.restoreOne(confPath(link, name), was))
		}
	}
	return errors.Join(errs...)
}

// loosen makes a strict reverse path filter a loose one.
func (s sysctls) loosen(link string) error {
	filter, err := s.effective(link, "rp_filter")
	if err != nil || filter != 1 {
		return err
	}
	return s.set(confPath(link, "rp_filter"), "2")
}

// prepareRealServer sets the four settings that keep a real server from
// answering ARP for VIPs on lo.
func (s sysctls) prepareRealServer() error {
	return errors.Join(
		s.atLeast(confPath("lo", "arp_ignore"), 1),
		s.atLeast(confPath("all", "arp_ignore"), 1),
		s.atLeast(confPath("lo", "arp_announce"), 2),
		s.atLeast(confPath("all", "arp_announce"), 2),
	)
}

// restore puts back what was found, wherever the value is still one of ours.
// A setting that no longer exists (the interface is gone) is done.
func (s sysctls) restore() error {
	file, err := s.record.read()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(file.Settings)) {
		if strings.HasPrefix(name, timeoutPrefix) {
			continue
		}
		errs = append(errs, s.restoreOne(name, file.Settings[name]))
	}
	return errors.Join(errs...)
}

func (s sysctls) restoreOne(name string, was setting) error {
	now, err := s.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case slices.Contains(was.Ours, now):
		if err := s.write(name, was.Found); err != nil {
			return err
		}
	}
	return s.record.forget(name)
}
