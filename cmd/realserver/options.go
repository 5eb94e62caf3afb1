package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// defaultStateDir is beside a director's: a host may be both.
const defaultStateDir = kernel.DefaultStateDir + "/realserver"

// leastInterval bounds what checks cost.
const leastInterval = 100 * time.Millisecond

// options are the command line of the program.
type options struct {
	flags   *pflag.FlagSet
	command string

	vips              []netip.Addr
	once              bool
	sysctls, stateDir string
	interval          time.Duration
	logLevel          slog.Level
}

func parse(args []string) (options, error) {
	var o options
	var vips []string
	level := "info"
	f := pflag.NewFlagSet("realserver", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringSliceVar(&vips, "vip", nil, "run: a virtual IP address; repeat it for more")
	f.BoolVar(&o.once, "once", false, "run: set up and exit; realserver stop puts it back")
	f.DurationVar(&o.interval, "check-interval", 10*time.Second, "run: time between two checks, at least 100ms; addresses that go are noticed at once")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir, "directory for what was found before; it must outlive the process and go with a reboot")
	f.StringVar(&o.sysctls, "proc-sys-net", kernel.DefaultSysctls, "where the host's /proc/sys/net is mounted")
	f.StringVar(&level, "log-level", level, "run: debug, info, warn or error")
	o.flags = f
	if err := f.Parse(args); err != nil {
		return o, err
	}
	commands := []string{"run", "stop", "status"}
	switch rest := f.Args(); {
	case len(rest) == 0:
		return o, errors.New("name a command: run, stop, status or agent; see --help")
	case rest[0] == "agent":
		return o, errors.New("agent has flags of its own, which come after it; see realserver agent --help")
	case !slices.Contains(commands, rest[0]):
		return o, fmt.Errorf("unknown command %q; see --help", rest[0])
	case len(rest) > 1:
		return o, fmt.Errorf("unknown argument %q; see --help", rest[1])
	default:
		o.command = rest[0]
	}
	if err := o.logLevel.UnmarshalText([]byte(level)); err != nil {
		return o, fmt.Errorf("--log-level %q is none of debug, info, warn, error", level)
	}
	return o, o.validate(vips)
}

func (o *options) validate(vips []string) error {
	for _, path := range []struct{ flag, value string }{{"proc-sys-net", o.sysctls}, {"state-dir", o.stateDir}} {
		if !filepath.IsAbs(path.value) {
			return fmt.Errorf("--%s %q is no absolute path", path.flag, path.value)
		}
	}
	if o.command != "run" {
		for _, flag := range []string{"vip", "once", "check-interval", "log-level"} {
			if o.flags.Changed(flag) {
				return fmt.Errorf("--%s is for realserver run only", flag)
			}
		}
		return nil
	}
	if o.interval < leastInterval {
		return fmt.Errorf("--check-interval %v is less than %v", o.interval, leastInterval)
	}
	var err error
	if o.vips, err = realserver.ParseVIPs(vips); err != nil {
		return fmt.Errorf("--vip: %w", err)
	}
	return nil
}
