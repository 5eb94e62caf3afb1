//go:build envtest

package crd

import "strings"

// bounds are what the schema itself says of numbers, names and choices.
func bounds() []rule {
	return append(numbers(), names()...)
}

func numbers() []rule {
	var rules []rule
	for _, number := range []struct{ at, patch, least, below, most, above string }{
		{"VirtualServer.spec.ports[].port", `{spec: {ports: [{port: %s}]}}`, "1", "0", "65535", "65536"},
		{"VirtualServer.spec.realServers[].weight", `{spec: {realServers: [{address: 10.0.0.1, weight: %s}]}}`, "0", "-1", "65535", "65536"},
		{"VirtualServer.spec.quorum.hysteresis", shareWith, "0", "-1", "16777215", "16777216"},
		{"VirtualServer.spec.persistence.ipv4PrefixLength", `{spec: {persistence: {ipv4PrefixLength: %s}}}`, "1", "0", "32", "33"},
		{"VirtualServer.spec.persistence.ipv6PrefixLength", `{spec: {persistence: {ipv6PrefixLength: %s}}}`, "1", "0", "128", "129"},
		{"VirtualServer.spec.healthChecks[].port", `{spec: {healthChecks: [{port: %s}]}}`, "1", "0", "65535", "65536"},
		{"DirectorPool.spec.gossip.port", `{spec: {gossip: {port: %s}}}`, "1024", "1023", "65535", "65536"},
		{"VirtualServer.spec.healthChecks[].failureThreshold", `{spec: {healthChecks: [{failureThreshold: %s}]}}`, "1", "0", "100", "101"},
		{"VirtualServer.spec.healthChecks[].successThreshold", `{spec: {healthChecks: [{successThreshold: %s}]}}`, "1", "0", "100", "101"},
		{"DirectorPool.spec.election.groups", `{spec: {election: {groups: %s}}}`, "1", "0", "32", "33"},
	} {
		rules = append(rules,
			rule{
				at: number.at, message: "should be greater than or equal to " + number.least,
				accepts: patches(number.patch, number.least), refuses: patches(number.patch, number.below),
			},
			rule{
				at: number.at, message: "should be less than or equal to " + number.most,
				accepts: patches(number.patch, number.most), refuses: patches(number.patch, number.above),
			},
		)
	}
	return rules
}

func names() []rule {
	label := []string{"a", "web-2", strings.Repeat("a", 63)}
	notLabels := []string{"Web", "-web", "web-", "web_2", "web.2"}
	rules := []rule{
		{
			at: "VirtualServer.spec.addresses", message: "should have at least 1 items",
			accepts: []string{`{}`}, refuses: []string{`{spec: {addresses: []}}`},
		},
		{
			at: "VirtualServer.spec.addresses", message: "Required value",
			accepts: []string{`{}`}, refuses: []string{`{spec: {addresses: null}}`},
		},
		{
			at: "VirtualServer.spec.ports", message: "should have at least 1 items",
			accepts: []string{`{}`}, refuses: []string{`{spec: {ports: []}}`},
		},
		{
			at: "VirtualServer.spec.ports[]", message: "Duplicate value",
			accepts: []string{`{spec: {ports: [{port: 53}, {port: 53, protocol: UDP}]}}`},
			refuses: []string{`{spec: {ports: [{port: 53}, {port: 53, protocol: TCP}]}}`},
		},
		{
			at: "VirtualServer.spec.sorryServer.address", message: "Required value",
			accepts: []string{`{}`}, refuses: []string{`{spec: {sorryServer: {}}}`},
		},
		{
			at: "VirtualServer.spec.onFailure", message: "supported values",
			accepts: patches(`{spec: {onFailure: %s}}`, "Remove", "Quiesce"), refuses: patches(`{spec: {onFailure: %s}}`, "quiesce", "Keep"),
		},
		{
			at: "VirtualServer.spec.quorum.minimumWeight", message: "may not be more than 4",
			accepts: patches(quorum, `"100%"`), refuses: patches(quorum, `"1000%"`),
		},
		{
			at: "VirtualServer.spec.quorum.minimumWeight", message: "must be of type",
			accepts: patches(quorum, "2"), refuses: patches(quorum, "1.5", "true", "[]"),
		},
		{
			at: "RealServerNode.spec.nodeName", message: "Required value",
			accepts: []string{`{}`}, refuses: []string{`{spec: {nodeName: null}}`},
		},
		{
			at: "VirtualServer.spec.realServers[]", message: "Duplicate value",
			accepts: []string{`{spec: {realServers: [{address: 10.0.0.1}, {address: 10.0.0.2}]}}`},
			refuses: []string{`{spec: {realServers: [{address: 10.0.0.1}, {address: 10.0.0.1}]}}`},
		},
		{
			at: "VirtualServer.spec.healthChecks[]", message: "Duplicate value",
			accepts: []string{`{spec: {healthChecks: [{name: a}, {}]}}`}, refuses: []string{`{spec: {healthChecks: [{}, {name: default}]}}`},
		},
		{
			at: "VirtualServer.spec.scheduler", message: "supported values",
			accepts: patches(`{spec: {scheduler: %s}}`, "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "mh", "sed", "nq", "fo", "ovf", "twos"),
			refuses: patches(`{spec: {scheduler: %s}}`, "roundrobin", "WRR", `""`),
		},
		{
			at: "VirtualServer.spec.forwardingMethod", message: "supported values",
			accepts: patches(`{spec: {forwardingMethod: %s}}`, "DR"), refuses: patches(`{spec: {forwardingMethod: %s}}`, "NAT", "TUN"),
		},
		{
			at: "VirtualServer.spec.ports[].protocol", message: "supported values",
			accepts: patches(`{spec: {ports: [{port: 80, protocol: %s}]}}`, "TCP", "UDP", "SCTP"),
			refuses: patches(`{spec: {ports: [{port: 80, protocol: %s}]}}`, "tcp", "ICMP"),
		},
		{
			at: "VirtualServer.spec.realServers[].state", message: "supported values",
			accepts: patches(`{spec: {realServers: [{address: 10.0.0.1, state: %s}]}}`, "Enabled", "Drained", "Disabled"),
			refuses: patches(`{spec: {realServers: [{address: 10.0.0.1, state: %s}]}}`, "Up"),
		},
		{
			at: "VirtualServer.spec.healthChecks[].type", message: "supported values",
			accepts: patches(check, "type: TCP"), refuses: patches(check, "type: HTTP"),
		},
		{
			at: "VirtualServer.spec.healthChecks[].initialState", message: "supported values",
			accepts: patches(check, "initialState: Up", "initialState: Down"), refuses: patches(check, "initialState: Unknown"),
		},
		{
			at: "DirectorPool.spec.guard", message: "supported values",
			accepts: patches(`{spec: {guard: %s}}`, "Enabled", "Disabled"), refuses: patches(`{spec: {guard: %s}}`, `"On"`),
		},
		{
			at: "DirectorPool.spec.nodeSelector", message: "Required value",
			accepts: []string{`{}`}, refuses: []string{`{spec: {nodeSelector: null}}`},
		},
		{
			at: "DirectorPool.spec.interface.name", message: "should match",
			accepts: patches(networkIface, "eth0"), refuses: patches(networkIface, "eth0:1", "../eth0", "eth 0", "."),
		},
		{
			at: "DirectorPool.spec.interface.name", message: "may not be more than 15",
			accepts: patches(networkIface, "abcdefghijklmno"), refuses: patches(networkIface, "abcdefghijklmnop"),
		},
	}
	for at, format := range map[string]string{
		"VirtualServer.spec.serviceName":         `{spec: {serviceName: %s}}`,
		"VirtualServer.spec.directorPoolName":    `{spec: {directorPoolName: %s}}`,
		"VirtualServer.spec.ports[].name":        `{spec: {ports: [{port: 80, name: %s}]}}`,
		"VirtualServer.spec.healthChecks[].name": `{spec: {healthChecks: [{name: %s}]}}`,
	} {
		rules = append(rules, rule{at: at, message: "should match", accepts: patches(format, label...), refuses: patches(format, notLabels...)})
	}
	return append(rules, durations()...)
}

// durations keeps out every text that the API server could take for a
// duration and Go could not: an object with one could be stored and then
// nobody's watch could read its kind any more.
func durations() []rule {
	strange := []string{"1", "1d", "1 s", "1 second", "PT1S", "-5s", "+5s", ".5s", "1.s", "1e3s", "5S", "1us", "1ns", "∞", ""}
	var rules []rule
	for at, format := range map[string]string{
		"VirtualServer.spec.persistence.timeout":          persistence,
		"VirtualServer.spec.drain.timeout":                drain,
		"VirtualServer.spec.slowStart.duration":           slowStart,
		"VirtualServer.spec.healthChecks[].interval":      `{spec: {healthChecks: [{interval: "%s"}]}}`,
		"VirtualServer.spec.healthChecks[].timeout":       `{spec: {healthChecks: [{timeout: "%s"}]}}`,
		"VirtualServer.spec.healthChecks[].retryInterval": `{spec: {healthChecks: [{retryInterval: "%s"}]}}`,
		"DirectorPool.spec.announcement.refreshInterval":  `{spec: {announcement: {refreshInterval: "%s"}}}`,
		"DirectorPool.spec.election.preemption.delay":     `{spec: {election: {preemption: {delay: "%s"}}}}`,
		"DirectorPool.spec.ipvs.tcpTimeout":               `{spec: {ipvs: {tcpTimeout: "%s"}}}`,
		"DirectorPool.spec.ipvs.tcpFinTimeout":            `{spec: {ipvs: {tcpFinTimeout: "%s"}}}`,
		"DirectorPool.spec.ipvs.udpTimeout":               `{spec: {ipvs: {udpTimeout: "%s"}}}`,
	} {
		rules = append(rules, rule{at: at, message: "should match", accepts: patches(format, "5s", "1m"), refuses: patches(format, strange...)})
		// Longer than Go's durations reach: about 292 years.
		rules = append(rules, rule{at: at, message: "", accepts: patches(format, "5s"), refuses: patches(format, "999999999h")})
	}
	// Its range leaves out the above.
	probe := `{spec: {gossip: {probeInterval: "%s"}}}`
	rules = append(rules, rule{
		at: "DirectorPool.spec.gossip.probeInterval", message: "should match",
		accepts: patches(probe, "100ms", "0.25s"), refuses: patches(probe, strange...),
	})
	return rules
}
