package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestMisuseIsNamedInOneLine(t *testing.T) {
	tests := map[string]struct{ args, want string }{
		"no command":             {want: "name a command"},
		"unknown command":        {args: "start --vip 192.0.2.1", want: `"start"`},
		"flags before agent":     {args: "--log-level debug agent", want: "agent --help"},
		"unknown argument":       {args: "run 192.0.2.1", want: `"192.0.2.1"`},
		"unknown flag":           {args: "run --vips 192.0.2.1", want: "--vips"},
		"no VIP":                 {args: "run", want: "at least one VIP"},
		"an empty VIP":           {args: "run --vip=", want: "VIP"},
		"no address":             {args: "run --vip www", want: `"www"`},
		"loopback":               {args: "run --vip 127.0.0.1", want: "loopback"},
		"unspecified":            {args: "run --vip ::", want: "unspecified"},
		"multicast":              {args: "run --vip 224.0.0.18", want: "multicast"},
		"link-local":             {args: "run --vip fe80::1", want: "link-local"},
		"IPv4-mapped":            {args: "run --vip ::ffff:192.0.2.1", want: "IPv4-mapped"},
		"twice":                  {args: "run --vip 192.0.2.1 --vip 192.0.2.1", want: "twice"},
		"relative state-dir":     {args: "run --vip 192.0.2.1 --state-dir run", want: "--state-dir"},
		"relative proc-sys-net":  {args: "stop --proc-sys-net net", want: "--proc-sys-net"},
		"log level":              {args: "run --vip 192.0.2.1 --log-level loud", want: "--log-level"},
		"interval":               {args: "run --vip 192.0.2.1 --check-interval 0", want: "--check-interval"},
		"no duration":            {args: "run --vip 192.0.2.1 --check-interval soon", want: "check-interval"},
		"a VIP to stop":          {args: "stop --vip 192.0.2.1", want: "--vip is for realserver run"},
		"once, of status":        {args: "status --once", want: "--once is for realserver run"},
		"an argument after stop": {args: "stop now", want: `"now"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), strings.Fields(tc.args), &stdout, &stderr)
			got := stderr.String()
			if code != 2 || strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "realserver: ") || !strings.Contains(got, tc.want) || stdout.Len() > 0 {
				t.Errorf("exit %d, stderr %q, stdout %q", code, got, stdout.String())
			}
		})
	}
}

func TestHelpHelps(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"-h"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Errorf("%v: exit %d, stderr %q", args, code, stderr.String())
		}
		for _, word := range []string{"run --vip", "--once", "stop", "status", "--state-dir", "--proc-sys-net", "--check-interval", "--log-level"} {
			if !strings.Contains(stdout.String(), word) {
				t.Errorf("%v does not say %q", args, word)
			}
		}
	}
}

func TestParseTakesWhatRunNeeds(t *testing.T) {
	o, err := parse([]string{"run", "--vip", "192.168.11.200", "--vip=2001:db8::1,192.168.11.201"})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.vips) != 3 || o.command != "run" || o.once || o.stateDir != "/run/lvs-operator/realserver" {
		t.Errorf("parse() = %+v", o)
	}
}
