package checkpoint

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

func TestKeysAreSavedForTheirOwnerAlone(t *testing.T) {
	path := KeysPath(t.TempDir(), "default")
	if _, err := LoadKeys(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LoadKeys() = %v without a file, want os.ErrNotExist", err)
	}
	for range 2 {
		want := [][]byte{keylist.NewKey(), keylist.NewKey()}
		if err := SaveKeys(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := LoadKeys(path)
		if err != nil || !cmp.Equal(want, got) {
			t.Errorf("LoadKeys() = %d keys, %v", len(got), err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("half a k"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("LoadKeys() = %v, want ErrCorrupt", err)
	}
}
