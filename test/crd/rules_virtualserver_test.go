//go:build envtest

package crd

const (
	notAnAddress  = "must be an IPv4 or IPv6 address, without a zone and not IPv4-mapped"
	notCanonical  = "must be written in canonical form: lower case, no leading zeros, the longest run of zero groups as ::"
	notOrdinary   = "must be an ordinary unicast address: not unspecified, loopback, link-local, multicast or broadcast"
	notWholeSec   = "must be whole seconds (no fraction, no ms), from 1s to 744h"
	vip           = `{spec: {addresses: ["%s"], realServers: []}}`
	realServer    = `{spec: {addresses: ["192.168.11.200"], realServers: [{address: "%s"}]}}`
	realServerV6  = `{spec: {addresses: ["fd00:11::200"], realServers: [{address: "%s"}]}}`
	persistence   = `{spec: {persistence: {timeout: "%s"}}}`
	schedulerFlag = `{spec: {scheduler: %s, schedulerFlags: [Port, Fallback]}}`
)

func virtualServerRules() []rule {
	notAddresses := []string{"web", "10.0.0", "10.0.0.256", "10.0.0.1/32", "fe80::1%eth0", "::ffff:10.0.0.1", "010.0.0.1"}
	notOrdinaryOnes := []string{
		"127.0.0.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.18", "ff02::1", "255.255.255.255",
	}
	return []rule{
		{
			at: "VirtualServer.spec.addresses[]", message: notAnAddress,
			accepts: patches(vip, "192.168.11.200", "10.0.0.1", "fd00:11::200", "2001:db8::1"),
			refuses: patches(vip, notAddresses...),
		},
		{
			at: "VirtualServer.spec.addresses[]", message: notCanonical,
			accepts: patches(vip, "fd00::1"),
			refuses: patches(vip, "fd00:0::1", "FD00::1", "fd00:0:0:0:0:0:0:1", "fd00::0001"),
		},
		{
			at: "VirtualServer.spec.addresses[]", message: notOrdinary,
			accepts: patches(vip, "192.168.11.200", "8.8.8.8"),
			refuses: patches(vip, notOrdinaryOnes...),
		},
		{
			at: "VirtualServer.spec.realServers[].address", message: notAnAddress,
			accepts: append(patches(realServer, "192.168.11.135"), patches(realServerV6, "fd00:11::135")...),
			refuses: patches(realServer, notAddresses...),
		},
		{
			at: "VirtualServer.spec.realServers[].address", message: notCanonical,
			accepts: patches(realServerV6, "fd00::1"),
			refuses: patches(realServerV6, "fd00:0::1", "FD00::1"),
		},
		{
			at: "VirtualServer.spec.realServers[].address", message: notOrdinary,
			accepts: patches(realServer, "10.1.2.3"),
			refuses: append(patches(realServer, notOrdinaryOnes...), patches(realServerV6, notOrdinaryOnes...)...),
		},
		{
			at: "VirtualServer.spec", message: "addresses cannot be changed: make a new VirtualServer",
			accepts: []string{
				`{} => {spec: {scheduler: rr, ports: [{port: 81}], realServers: []}}`,
				`{spec: {addresses: [192.168.11.200, 192.168.11.201]}} => {spec: {addresses: [192.168.11.201, 192.168.11.200]}}`,
			},
			refuses: []string{
				`{} => {spec: {addresses: [192.168.11.201]}}`,
				`{} => {spec: {addresses: [192.168.11.200, 192.168.11.201]}}`,
				`{spec: {addresses: [192.168.11.200, 192.168.11.201]}} => {}`,
			},
		},
		{
			at: "VirtualServer.spec", message: "directorPoolName cannot be changed: make a new VirtualServer",
			accepts: []string{`{spec: {directorPoolName: edge}} => {spec: {directorPoolName: edge}}`, `{} => {spec: {directorPoolName: default}}`},
			refuses: []string{`{} => {spec: {directorPoolName: edge}}`, `{spec: {directorPoolName: edge}} => {}`},
		},
		{
			at: "VirtualServer.spec", message: "schedulerFlags can be set only with the schedulers sh and mh",
			accepts: append(patches(schedulerFlag, "sh", "mh"), `{spec: {scheduler: rr, schedulerFlags: []}}`),
			refuses: append(patches(schedulerFlag, "rr", "wlc", "dh"), `{spec: {schedulerFlags: [Port]}}`),
		},
		{
			at:      "VirtualServer.spec",
			message: "a real server's own port can be set only with a forwarding method that rewrites ports, which DR does not: leave port out",
			accepts: []string{`{spec: {realServers: [{address: 192.168.11.135, port: 0}]}}`},
			refuses: []string{`{spec: {realServers: [{address: 192.168.11.135, port: 80}]}}`},
		},
		{
			at: "VirtualServer.spec", message: "with DR every real server must be of the same address family as every VIP",
			accepts: []string{
				`{spec: {addresses: ["fd00::1"], realServers: [{address: "fd00::2"}]}}`,
				`{spec: {addresses: ["fd00::1", "10.0.0.1"], realServers: []}}`,
			},
			refuses: []string{
				`{spec: {addresses: ["fd00::1"], realServers: [{address: "10.0.0.2"}]}}`,
				`{spec: {realServers: [{address: "fd00::2"}]}}`,
				`{spec: {addresses: ["fd00::1", "10.0.0.1"], realServers: [{address: "10.0.0.2"}]}}`,
			},
		},
		{
			at: "VirtualServer.spec.ports", message: "each name can be given to one port only",
			accepts: []string{
				`{spec: {ports: [{name: dns, port: 53}, {name: dns-udp, port: 53, protocol: UDP}]}}`,
				`{spec: {ports: [{port: 80}, {port: 443}]}}`,
			},
			refuses: []string{`{spec: {ports: [{name: web, port: 80}, {name: web, port: 443}]}}`},
		},
		{
			at: "VirtualServer.spec.persistence.timeout", message: notWholeSec,
			accepts: patches(persistence, "1s", "300s", "5m", "5m0s", "744h", "1h30m"),
			refuses: patches(persistence, "0s", "999ms", "1.5s", "1.5m", "1.0000001s", "2000ms", "744h1s", "745h"),
		},
	}
}

const check = `{spec: {healthChecks: [{%s}]}}`

func healthCheckRules() []rule {
	return []rule{
		{
			at: "VirtualServer.spec.healthChecks[].interval", message: "must be from 100ms to 1h",
			accepts: patches(check, "interval: 100ms", "interval: 1h", "interval: 1.5s", "interval: 6s"),
			refuses: patches(check, "interval: 99ms", "interval: 0s", "interval: 1h1ms", "interval: 1h0.001s"),
		},
		{
			at: "VirtualServer.spec.healthChecks[].timeout", message: "must be from 10ms to 5m",
			accepts: patches(check, "timeout: 10ms", "timeout: 5m", "interval: 6s, timeout: 10s"),
			refuses: patches(check, "timeout: 9ms", "timeout: 0s", "timeout: 5m1s"),
		},
		{
			at: "VirtualServer.spec.healthChecks[].retryInterval", message: "must be from 10ms to 1h",
			accepts: patches(check, "retryInterval: 10ms", "retryInterval: 1h"),
			refuses: patches(check, "retryInterval: 9ms", "retryInterval: 0s", "retryInterval: 2h"),
		},
	}
}
