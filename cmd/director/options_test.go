package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestParse(t *testing.T) {
	o, err := parse([]string{
		"--node-name=lb-1", "--namespace=lvs", "--pod-uid=abc", "--kubeconfig=/k", "--metrics-bind-address=[10.0.0.1]:1",
		"--health-bind-address=0", "--proc-sys-net=/host/proc/sys/net", "--state-dir=/run/x", "--kube-proxy-excludes-vips", "--log-level=debug",
	}, environment(map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}))
	if err != nil {
		t.Fatal(err)
	}
	if o.node != "lb-1" || o.namespace != "lvs" || o.podUID != "abc" || o.kubeconfig != "/k" || o.apiServer != "10.96.0.1" ||
		o.metrics != "[10.0.0.1]:1" || o.health != "0" || o.sysctls != "/host/proc/sys/net" || o.stateDir != "/run/x" ||
		!o.ipvsTakenOK || o.logLevel != slog.LevelDebug || o.cleanup {
		t.Errorf("options = %+v", o)
	}
	o, err = parse([]string{"cleanup", "--node-name=lb-1"}, environment(nil))
	if err != nil || !o.cleanup || o.podUID == "" || o.logLevel != slog.LevelInfo {
		t.Errorf("options = %+v, err = %v", o, err)
	}
}

func TestParseUninstall(t *testing.T) {
	o, err := parse([]string{"uninstall", "--node-name=lb-1", "--namespace=lvs", "--daemonset=edge-director", "--timeout=10m"}, environment(nil))
	if err != nil || !o.uninstall || o.cleanup || o.daemonSet != "edge-director" || o.timeout != 10*time.Minute || o.namespace != "lvs" {
		t.Errorf("options = %+v, err = %v", o, err)
	}
}

func TestAMisuseIsOneLineAndStatus2(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":        {[]string{"--nod-name=x"}, "--nod-name"},
		"unknown argument":    {[]string{"clean"}, `"clean"`},
		"two arguments":       {[]string{"cleanup", "now"}, `"cleanup"`},
		"node name":           {[]string{"--node-name=LB_1"}, "--node-name"},
		"no node name":        {[]string{"--node-name="}, "--node-name"},
		"namespace":           {[]string{"--namespace=a.b"}, "--namespace"},
		"log level":           {[]string{"--log-level=loud"}, "--log-level"},
		"relative state":      {[]string{"--state-dir=run"}, "--state-dir"},
		"relative sysctls":    {[]string{"--proc-sys-net=proc"}, "--proc-sys-net"},
		"metrics, no port":    {[]string{"--metrics-bind-address=127.0.0.1"}, "--metrics-bind-address"},
		"health, a host name": {[]string{"--health-bind-address=localhost:80"}, "--health-bind-address"},
		"a DaemonSet":         {[]string{"uninstall", "--daemonset=A_B"}, "--daemonset"},
		"no time":             {[]string{"uninstall", "--timeout=0s"}, "--timeout"},
		"health, no number":   {[]string{"--health-bind-address=127.0.0.1:http"}, "--health-bind-address"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"--node-name=lb-1"}, tc.args...)
			if status := run(t.Context(), args, &stdout, &stderr); status != 2 {
				t.Errorf("status = %d", status)
			}
			said := stderr.String()
			if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "director: ") || !strings.Contains(said, tc.want) || stdout.Len() > 0 {
				t.Errorf("stdout %q, stderr %q, want one line with %q", stdout.String(), said, tc.want)
			}
		})
	}
}

func TestHelpIsNoMisuse(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"--help"}, &stdout, &stderr); status != 0 || stderr.Len() > 0 ||
		!strings.Contains(stdout.String(), "director cleanup") || !strings.Contains(stdout.String(), "--node-name") {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout.String(), stderr.String())
	}
}
