package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/listen"
)

// options are the flags of the program.
type options struct {
	flags              *pflag.FlagSet
	cleanup, uninstall bool

	node, namespace, podUID string
	kubeconfig              string
	apiServer               string
	metrics, health         string
	sysctls, stateDir       string
	logLevel                slog.Level
	ipvsTakenOK             bool
	daemonSet               string
	timeout                 time.Duration
}

// parse reads the command line. The environment only supplies what a pod is
// told that way: the API server's address.
func parse(args []string, getenv func(string) string) (options, error) {
	o := options{apiServer: getenv("KUBERNETES_SERVICE_HOST")}
	hostname, _ := os.Hostname()
	level := "info"
	f := pflag.NewFlagSet("director", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringVar(&o.node, "node-name", hostname, "name of the Node that this director runs on")
	f.StringVar(&o.namespace, "namespace", "lvs-operator-system", "namespace of the operator, where its Leases are")
	f.StringVar(&o.podUID, "pod-uid", "", "uid of the pod; tells this process from an earlier one on the node (default: made from the process)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the pod's service account)")
	f.StringVar(&o.metrics, "metrics-bind-address", "127.0.0.1:7957", "address and port to serve /metrics on; 0 serves none")
	f.StringVar(&o.health, "health-bind-address", "127.0.0.1:7958", "address and port to serve /healthz and /readyz on; 0 serves none")
	f.StringVar(&o.sysctls, "proc-sys-net", kernel.DefaultSysctls, "where the node's /proc/sys/net is mounted")
	f.StringVar(&o.stateDir, "state-dir", kernel.DefaultStateDir, "directory for what must outlive the process and go with a reboot")
	f.BoolVar(&o.ipvsTakenOK, "kube-proxy-excludes-vips", false, "serve although kube-proxy runs in ipvs mode here: its --ipvs-exclude-cidrs name the VIPs")
	f.StringVar(&o.daemonSet, "daemonset", "lvs-operator-director", "uninstall: name of the directors' DaemonSet")
	f.DurationVar(&o.timeout, "timeout", 270*time.Second, "uninstall: how long directors and agents may take to leave")
	f.StringVar(&level, "log-level", level, "debug, info, warn or error")
	o.flags = f
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch rest := f.Args(); {
	case len(rest) == 1 && rest[0] == "cleanup":
		o.cleanup = true
	case len(rest) == 1 && rest[0] == "uninstall":
		o.uninstall = true
	case len(rest) > 0:
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
	if errs := validation.IsDNS1123Label(o.namespace); len(errs) > 0 {
		return fmt.Errorf("--namespace %q is no name of a namespace: %s", o.namespace, strings.Join(errs, "; "))
	}
	if errs := validation.IsDNS1123Subdomain(o.daemonSet); len(errs) > 0 {
		return fmt.Errorf("--daemonset %q is no name of a DaemonSet: %s", o.daemonSet, strings.Join(errs, "; "))
	}
	if o.timeout <= 0 {
		return fmt.Errorf("--timeout %s is not positive", o.timeout)
	}
	for flag, path := range map[string]string{"proc-sys-net": o.sysctls, "state-dir": o.stateDir} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("--%s %q is no absolute path", flag, path)
		}
	}
	for flag, address := range map[string]string{"metrics-bind-address": o.metrics, "health-bind-address": o.health} {
		if _, err := listen.Address(address); err != nil {
			return fmt.Errorf("--%s %q: %w", flag, address, err)
		}
	}
	if o.podUID == "" {
		o.podUID = fmt.Sprintf("%s-%d", o.node, os.Getpid())
	}
	return nil
}
