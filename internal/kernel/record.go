package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// The records' file names: a node may be a director and a real server.
const (
	directorRecord   = "director-found.json"
	realServerRecord = "realserver-found.json"
)

// recordVersion is the schema of the file.
const recordVersion = 1

// record is what was found before it was changed. Every change is written here
// first (a crash in between leaves a record of a change that did not happen,
// which does no harm: only values that are ours are put back), and what was
// found first stays, however often it is set anew.
type record struct {
	path string
	mu   sync.Mutex
}

// recordFile is the record's form on disk.
type recordFile struct {
	Version int `json:"version"`
	// Interface is the announcement interface of a director.
	Interface string `json:"interface,omitempty"`
	// Links are the other interfaces that were prepared.
	Links []string `json:"links,omitempty"`
	// Settings by name: a path below /proc/sys/net, or timeout/NAME.
	Settings map[string]setting `json:"settings,omitempty"`
	// Daemons are the synchronisation daemons that were started.
	Daemons map[syncRole]daemonRecord `json:"daemons,omitempty"`
	// Addresses that were put on lo, for real servers.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// setting is one value: the one that was there first and those that it was
// given since.
type setting struct {
	Found string   `json:"found"`
	Ours  []string `json:"ours"`
}

func newRecord(dir, name string) *record {
	return &record{path: filepath.Join(dir, name)}
}

// read returns the record; an empty one if there is no file.
func (r *record) read() (recordFile, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load()
}

func (r *record) load() (recordFile, error) {
	file := recordFile{Version: recordVersion, Settings: map[string]setting{}}
	data, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return file, fmt.Errorf("reading the record: %w", err)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return file, fmt.Errorf("reading the record %s: %w", r.path, err)
	}
	if file.Version != recordVersion {
		return file, fmt.Errorf("reading the record %s: %w: version %d", r.path, ErrUnsupported, file.Version)
	}
	return file, nil
}

// update changes the file, at once or not at all. A change that changes nothing
// writes nothing.
func (r *record) update(change func(*recordFile) (changed bool)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	file, err := r.load()
	if err != nil {
		return err
	}
	if !change(&file) {
		return nil
	}
	if err := r.save(file); err != nil {
		return fmt.Errorf("writing the record: %w", err)
	}
	return nil
}

func (r *record) save(file recordFile) error {
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(r.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(r.path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), r.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// note records that a setting which has the value found is about to get the
// value ours.
func (r *record) note(name, found, ours string) error {
	return r.update(func(file *recordFile) bool {
		s, known := file.Settings[name]
		if !known {
			s.Found = found
		}
		if slices.Contains(s.Ours, ours) {
			return false
		}
		s.Ours = append(s.Ours, ours)
		file.Settings[name] = s
		return true
	})
}

// forget drops a setting that was put back.
func (r *record) forget(name string) error {
	return r.update(func(file *recordFile) bool {
		_, known := file.Settings[name]
		delete(file.Settings, name)
		return known
	})
}

// noteDaemon records a synchronisation daemon that is about to be started.
func (r *record) noteDaemon(role syncRole, daemon daemonRecord) error {
	return r.update(func(file *recordFile) bool {
		if file.Daemons == nil {
			file.Daemons = map[syncRole]daemonRecord{}
		}
		file.Daemons[role] = daemon
		return true
	})
}

// forgetDaemons drops the synchronisation daemons, which were stopped.
func (r *record) forgetDaemons() error {
	return r.update(func(file *recordFile) bool {
		known := len(file.Daemons) > 0
		file.Daemons = nil
		return known
	})
}

// remove deletes the record.
func (r *record) remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the record: %w", err)
	}
	return nil
}

func (r *record) announcementInterface() (string, error) {
	file, err := r.read()
	return file.Interface, err
}

// noteLinks records the interfaces besides the announcement interface.
func (r *record) noteLinks(names []string) error {
	return r.update(func(file *recordFile) bool {
		changed := !slices.Equal(file.Links, names)
		file.Links = names
		return changed
	})
}

// noteInterface records the announcement interface.
func (r *record) noteInterface(name string) error {
	return r.update(func(file *recordFile) bool {
		changed := file.Interface != name
		file.Interface = name
		return changed
	})
}
