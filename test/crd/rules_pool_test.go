//go:build envtest

package crd

const (
	notARange    = "must be an address in canonical form, a range ADDRESS-ADDRESS or a network ADDRESS/LENGTH"
	notABegin    = "must begin with an address in canonical form"
	notAnEnd     = "must end with an address in canonical form"
	notANetwork  = "must be a network in CIDR notation, in canonical form and without host bits"
	mixedRange   = "must begin and end with addresses of one family"
	allowVIP     = `{spec: {allow: [{addresses: ["%s"]}]}}`
	allowServer  = `{spec: {allow: [{realServers: ["%s"]}]}}`
	syncIface    = `{spec: {connectionSync: {interface: {name: "%s"}}}}`
	syncGroup    = `{spec: {connectionSync: {group: "%s"}}}`
	networkIface = `{spec: {interface: {name: "%s"}}}`
)

func directorPoolRules() []rule {
	rules := []rule{
		{
			at:      "DirectorPool",
			message: "the name must be a DNS label: at most 63 lower-case letters, digits and hyphens",
			accepts: patches(`{metadata: {name: %s}}`, "edge-2", "a", "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"),
			refuses: patches(`{metadata: {name: %s}}`, "edge.example", "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl"),
		},
		{
			at:      "DirectorPool.spec.interface.name",
			message: "must be an interface to the network that clients come from: not lo, and not dummy-lvs, which is the directors' own",
			accepts: patches(networkIface, "eth0", "eno16777736", "bond0.100", "br-lan"),
			refuses: patches(networkIface, "lo", "dummy-lvs"),
		},
		{
			at:      "DirectorPool.spec.connectionSync.interface.name",
			message: "must be an interface to the network that clients come from: not lo, and not dummy-lvs, which is the directors' own",
			accepts: patches(syncIface, "eth1", "bond0.100"),
			refuses: patches(syncIface, "lo", "dummy-lvs"),
		},
		{
			at: "DirectorPool.spec.connectionSync.group", message: "must be an IPv4 multicast address, 224.0.0.0 to 239.255.255.255",
			accepts: patches(syncGroup, "224.0.0.81", "239.255.255.255"),
			refuses: patches(syncGroup, "192.168.11.1", "240.0.0.81", "223.255.255.1", "ff02::8:8848", "224.0.0.081", "224.0.0.0/24", "everybody"),
		},
		{
			at: "DirectorPool.spec.announcement.refreshInterval", message: "must be from 1s to 1h",
			accepts: patches(`{spec: {announcement: {refreshInterval: "%s"}}}`, "1s", "60s", "1h", "1.5s"),
			refuses: patches(`{spec: {announcement: {refreshInterval: "%s"}}}`, "0s", "999ms", "61m"),
		},
		{
			at: "DirectorPool.spec.gossip.probeInterval", message: "must be from 50ms to 1s",
			accepts: patches(`{spec: {gossip: {probeInterval: "%s"}}}`, "50ms", "100ms", "1s", "0.25s"),
			refuses: patches(`{spec: {gossip: {probeInterval: "%s"}}}`, "0s", "49ms", "1001ms"),
		},
		{
			at: "DirectorPool.spec.election.leaseDuration", message: "must be whole seconds (no fraction, no ms), from 2s to 60s",
			accepts: patches(`{spec: {election: {leaseDuration: "%s"}}}`, "2s", "3s", "1m"),
			refuses: patches(`{spec: {election: {leaseDuration: "%s"}}}`, "1s", "2.5s", "3000ms", "61s"),
		},
		{
			at: "DirectorPool.spec.election", message: "groups cannot be changed: make a new DirectorPool",
			accepts: []string{
				`{spec: {election: {groups: 4}}} => {spec: {election: {groups: 4, leaseDuration: 5s}}}`,
				`{} => {spec: {election: {groups: 1}}}`,
				`{spec: {election: {groups: 1}}} => {spec: {election: {groups: null}}}`,
			},
			refuses: []string{
				`{} => {spec: {election: {groups: 2}}}`,
				`{spec: {election: {groups: 4}}} => {spec: {election: {groups: 3}}}`,
				`{spec: {election: {groups: 4}}} => {spec: {election: null}}`,
			},
		},
		{
			at: "DirectorPool.spec.election.preemption.delay", message: "must be from 0s to 1h",
			accepts: patches(`{spec: {election: {preemption: {delay: "%s"}}}}`, "0s", "5s", "1h"),
			refuses: patches(`{spec: {election: {preemption: {delay: "%s"}}}}`, "61m"),
		},
	}
	for _, name := range []string{"tcpTimeout", "tcpFinTimeout", "udpTimeout"} {
		rules = append(rules, rule{
			at: "DirectorPool.spec.ipvs." + name, message: notWholeSec,
			accepts: patches(`{spec: {ipvs: {`+name+`: "%s"}}}`, "1s", "15m", "744h"),
			refuses: patches(`{spec: {ipvs: {`+name+`: "%s"}}}`, "0s", "1.5s", "500ms", "745h"),
		})
	}
	for at, format := range map[string]string{"addresses": allowVIP, "realServers": allowServer} {
		rules = append(rules, rangeRules("DirectorPool.spec.allow[]."+at+"[]", format)...)
	}
	return rules
}

func rangeRules(at, format string) []rule {
	return []rule{
		{
			at: at, message: notARange,
			accepts: patches(format, "192.168.11.200", "fd00::1"),
			refuses: patches(format, "web", "10.0.0", "FD00::1", "fd00:0::1", "::ffff:10.0.0.1", "10.0.0.1 10.0.0.2"),
		},
		{
			at: at, message: notABegin,
			accepts: patches(format, "192.168.11.200-192.168.11.220", "fd00::1-fd00::ff"),
			refuses: patches(format, "-10.0.0.1", "10.0.0.1 - 10.0.0.2", "fd00:0::1-fd00::2", "web-10.0.0.1"),
		},
		{
			at: at, message: notAnEnd,
			accepts: patches(format, "10.0.0.1-10.0.0.1"),
			refuses: patches(format, "10.0.0.1-", "10.0.0.1 - 10.0.0.2", "fd00::1-fd00:0::2", "10.0.0.1-20",
				"10.0.0.1-10.0.0.2-10.0.0.3", "10.0.0.0/24-10.0.1.0/24"),
		},
		{
			at: at, message: notANetwork,
			accepts: patches(format, "192.168.11.0/24", "10.0.0.1/32", "0.0.0.0/0", "fd00:11::/64"),
			refuses: patches(format, "192.168.11.1/24", "10.0.0.0/33", "10.0.0.0/", "FD00::/64", "fd00:0::/64", "10.0.0.0/8/9",
				"10.0.0.0/24-10.0.1.0/24", "10.0.0.0/255.0.0.0"),
		},
		{
			at: at, message: mixedRange,
			accepts: patches(format, "10.0.0.1-10.0.0.2", "fd00::1-fd00::2"),
			refuses: patches(format, "10.0.0.1-fd00::2", "fd00::1-10.0.0.2"),
		},
	}
}

func directorRules() []rule {
	return []rule{
		{
			at: "Director", message: "a Director must be named as its node",
			accepts: []string{`{metadata: {name: node-b}, spec: {nodeName: node-b}}`, `{metadata: {name: b.example}, spec: {nodeName: b.example}}`},
			refuses: []string{`{spec: {nodeName: node-b}}`},
		},
		{
			at: "Director.spec", message: "spec cannot be changed",
			accepts: []string{`{} => {metadata: {labels: {a: b}}}`},
			refuses: []string{`{} => {spec: {directorPoolName: edge}}`},
		},
	}
}
