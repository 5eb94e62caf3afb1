package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

// KeysPath returns the file of a pool's keys of gossip in a folder. They are no
// part of the checkpoint, which is there to be looked at.
func KeysPath(dir, pool string) string { return filepath.Join(dir, pool+".keys") }

// SaveKeys replaces the keys at path, in a file that only its owner reads. After a
// crash at any moment the old ones or the new ones are there.
func SaveKeys(path string, list [][]byte) error {
	part := path + ".part"
	if err := write(part, keylist.Format(list)); err != nil {
		return fmt.Errorf("saving the keys of gossip: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("saving the keys of gossip: %w", err)
	}
	return nil
}

// LoadKeys reads the keys at path. The error wraps os.ErrNotExist if there are none,
// and ErrCorrupt if they cannot be read.
func LoadKeys(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the keys of gossip: %w", err)
	}
	list, err := keylist.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w: %w", path, ErrCorrupt, err)
	}
	return list, nil
}
