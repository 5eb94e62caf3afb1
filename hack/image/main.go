// Command image builds the operator's container image as a file that
// containerd and Docker can load, without either of them:
//
//	go run ./hack/image -o out/image.tar
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lvs-operator/lvs-operator/hack/image/assemble"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	out, tag string
	source   assemble.Source
}

func parse(arguments []string) (options, error) {
	var parsed options
	var packages string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&parsed.out, "o", "out/image.tar", "the file to write")
	flags.StringVar(&parsed.tag, "tag", "lvs-operator.local/lvs-operator:dev", "the image's name")
	flags.StringVar(&parsed.source.Dir, "C", ".", "the top of the Go module to build from")
	flags.StringVar(&packages, "packages", strings.Join(assemble.Packages(), ","), "the programs to build, separated by commas")
	flags.StringVar(&parsed.source.Architecture, "arch", runtime.GOARCH, "the processor architecture to build for")
	if err := flags.Parse(arguments); err != nil {
		return parsed, err
	}
	if flags.NArg() > 0 {
		return parsed, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	parsed.source.Packages = strings.Split(packages, ",")
	return parsed, nil
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	options, err := parse(arguments)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(options.tag)
	if err != nil {
		return fmt.Errorf("reading the tag: %w", err)
	}
	programs, err := assemble.Programs(ctx, options.source)
	if err != nil {
		return err
	}
	image, err := assemble.Image(programs, options.source.Architecture)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(options.out), 0o755); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	if err := tarball.WriteToFile(options.out, tag, image); err != nil {
		return fmt.Errorf("writing %s: %w", options.out, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return fmt.Errorf("computing the digest: %w", err)
	}
	fmt.Fprintf(out, "%s\t%s\t%s\n", options.out, tag, digest)
	return nil
}
