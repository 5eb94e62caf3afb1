package machine

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// Libraries returns the shared libraries, and the loader, that a program of
// this machine runs with; none for a static one.
func Libraries(ctx context.Context, program string) ([]string, error) {
	listing, err := Run(ctx, "", "ldd", program)
	if err != nil {
		if strings.Contains(err.Error(), "not a dynamic executable") {
			return nil, nil
		}
		return nil, fmt.Errorf("looking for the libraries of %s: %w", program, err)
	}
	return parseLdd(listing), nil
}

// parseLdd picks the files out of lines such as
//
//	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f4e620b1000)
//	/lib64/ld-linux-x86-64.so.2 (0x00007f4e62396000)
func parseLdd(listing string) []string {
	var files []string
	for line := range strings.Lines(listing) {
		for field := range strings.FieldsSeq(line) {
			if filepath.IsAbs(field) {
				files = append(files, field)
			}
		}
	}
	return files
}

// PackageVersions returns name=version of installed Debian packages.
func PackageVersions(ctx context.Context, names ...string) (string, error) {
	args := append([]string{"-W", "-f", "${Package}=${Version} "}, names...)
	versions, err := Run(ctx, "", "dpkg-query", args...)
	if err != nil {
		return "", fmt.Errorf("asking for the versions of packages: %w", err)
	}
	return strings.TrimSpace(versions), nil
}
