package rootfs

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
	"github.com/lvs-operator/lvs-operator/hack/lab/machine"
)

// Disk makes a file system, in the given file, that holds a copy of a tree. It
// has little room beyond that: nodes mount it read-only.
func Disk(ctx context.Context, tree, file string) error {
	size, err := treeSize(tree)
	if err != nil {
		return fmt.Errorf("making %s: %w", file, err)
	}
	size += size/8 + 8<<20
	kib := (size + guest.DiskUnit - 1) / guest.DiskUnit * guest.DiskUnit / 1024
	// Blocks of a page, so that files can be mapped in place.
	_, err = machine.Run(ctx, "", "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-m", "0",
		"-E", "root_owner=0:0", "-d", tree, file, strconv.FormatInt(kib, 10)+"k")
	if err != nil {
		return fmt.Errorf("making %s: %w", file, err)
	}
	return nil
}

// treeSize counts whole blocks, and one for each folder and link.
func treeSize(tree string) (int64, error) {
	const block = 4096
	var size int64
	err := filepath.WalkDir(tree, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		size += block
		if entry.Type().IsRegular() {
			info, err := entry.Info()
			if err != nil {
				return err
			}
			size += (info.Size() + block - 1) / block * block
		}
		return nil
	})
	return size, err
}
