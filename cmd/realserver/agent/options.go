package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/listen"
	"github.com/lvs-operator/lvs-operator/internal/podnetns"
)

// defaultStateDir is beside a director's, and beside that of realserver run: a
// node may have all of them.
const defaultStateDir = kernel.DefaultStateDir + "/agent"

// options are the flags of the agent.
type options struct {
	flags *pflag.FlagSet

	node, kubeconfig  string
	criSocket         string
	metrics, health   string
	sysctls, stateDir string
	logLevel          slog.Level
	// apiServer is where a pod is told that the API server is.
	apiServer string
}

// parse reads the command line, without the word agent. The environment only
// supplies what a pod is told that way: the API server's address.
func parse(args []string, getenv func(string) string) (options, error) {
	o := options{apiServer: getenv("KUBERNETES_SERVICE_HOST")}
	hostname, _ := os.Hostname()
	level := "info"
	f := pflag.NewFlagSet("realserver agent", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringVar(&o.node, "node-name", hostname, "name of the Node that this agent runs on")
	f.StringVar(&o.criSocket, "cri-socket", "",
		"socket of the container runtime (default: the first that exists of "+strings.Join(usualSockets(), ", ")+")")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the pod's service account)")
	f.StringVar(&o.metrics, "metrics-bind-address", "127.0.0.1:7960", "address and port to serve /metrics on; 0 serves none")
	f.StringVar(&o.health, "health-bind-address", "127.0.0.1:7961", "address and port to serve /healthz and /readyz on; 0 serves none")
	f.StringVar(&o.sysctls, "proc-sys-net", kernel.DefaultSysctls, "where the node's /proc/sys/net is mounted")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir, "directory for what was found before; it must outlive the process and go with a reboot")
	f.StringVar(&level, "log-level", level, "debug, info, warn or error")
	o.flags = f
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if rest := f.Args(); len(rest) > 0 {
		return o, fmt.Errorf("unknown argument %q; see --help", rest[0])
	}
	if err := o.logLevel.UnmarshalText([]byte(level)); err != nil {
		return o, fmt.Errorf("--log-level %q is none of debug, info, warn, error", level)
	}
	return o, o.validate()
}

func (o *options) validate() error {
	if errs := validation.IsDNS1123Subdomain(o.node); len(errs) > 0 {
		return fmt.Errorf("--node-name %q is no name of a Node: %s", o.node, strings.Join(errs, "; "))
	}
	for _, path := range []struct{ flag, value string }{
		{"proc-sys-net", o.sysctls}, {"state-dir", o.stateDir}, {"cri-socket", o.criSocket},
	} {
		if !filepath.IsAbs(path.value) && (path.flag != "cri-socket" || path.value != "") {
			return fmt.Errorf("--%s %q is no absolute path", path.flag, path.value)
		}
	}
	for _, at := range []struct{ flag, value string }{{"metrics-bind-address", o.metrics}, {"health-bind-address", o.health}} {
		if _, err := listen.Address(at.value); err != nil {
			return fmt.Errorf("--%s %q: %w", at.flag, at.value, err)
		}
	}
	return nil
}

// usualSockets are where container runtimes listen unless they are told otherwise.
func usualSockets() []string { return []string{podnetns.ContainerdSocket, podnetns.CRIOSocket} }

// socket returns the container runtime's socket: that which was asked for, or the
// first of the usual ones that exists.
func socket(asked string, usual []string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	for _, path := range usual {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == os.ModeSocket {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no container runtime's socket at %s; say with --cri-socket where it is", strings.Join(usual, " or "))
}
