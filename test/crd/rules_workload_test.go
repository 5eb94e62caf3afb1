//go:build envtest

package crd

import (
	"fmt"
	"strings"
)

const (
	noSource     = "say where the real servers come from: at least one of realServers, podSelector and serviceName is required"
	fixedWeights = "slowStart cannot be set with the schedulers fo and ovf, which do not share connections by weight"
	mixedSorry   = "with DR the sorry server must be of the same address family as every VIP"
	sorryIsOne   = "the sorry server cannot be one of the real servers"
	notAQuorum   = "must be a number from 1 to 16777215, or a share from \"1%\" to \"100%\""
	neverLost    = "hysteresis must be less than minimumWeight, else the quorum could never be lost"
	tooSelective = "must have at most 64 labels, 64 expressions and 64 values in each"
	notSelecting = "an expression's operator must be In or NotIn, with values, or Exists or DoesNotExist, without"

	quorum       = `{spec: {quorum: {minimumWeight: %s}}}`
	shareWith    = `{spec: {quorum: {minimumWeight: "50%%", hysteresis: %s}}}`
	sorry        = `{spec: {sorryServer: {address: "%s"}}}`
	drain        = `{spec: {drain: {timeout: "%s"}}}`
	slowStart    = `{spec: {slowStart: {duration: "%s"}}}`
	withSlow     = `{spec: {scheduler: %s, slowStart: {duration: 30s}}}`
	expression   = `{spec: {podSelector: {matchExpressions: [{%s}]}}}`
	sourceOfPods = `{spec: {realServers: null, %s}}`
)

// workloadRules are about where real servers come from.
func workloadRules() []rule {
	return []rule{
		{
			at: "VirtualServer.spec", message: noSource,
			accepts: append(patches(sourceOfPods,
				"podSelector: {}", "podSelector: {matchLabels: {app: web}}", "serviceName: web", "podSelector: {}, serviceName: web"),
				`{}`, `{spec: {realServers: []}}`, `{spec: {podSelector: {}, serviceName: web, realServers: []}}`,
				`{} => {spec: {realServers: null, serviceName: web}}`,
				`{spec: {realServers: null, podSelector: {}}} => {spec: {realServers: []}}`),
			refuses: append(patches(sourceOfPods, "scheduler: rr", "podSelector: null", "quorum: {}"),
				`{} => {spec: {realServers: null}}`),
		},
		{
			at: "VirtualServer.spec.podSelector", message: tooSelective,
			accepts: []string{podLabels(64), podExpressions(64, 1), podExpressions(1, 64)},
			refuses: []string{podLabels(65), podExpressions(65, 1), podExpressions(1, 65)},
		},
		{
			at: "VirtualServer.spec.podSelector", message: notSelecting,
			accepts: patches(expression,
				"key: a, operator: In, values: [b]", "key: a, operator: NotIn, values: [b, c]",
				"key: a, operator: Exists", "key: a, operator: DoesNotExist, values: []"),
			refuses: patches(expression,
				"key: a, operator: in, values: [b]", "key: a, operator: Gt, values: ['1']", "key: a, operator: Gt", "key: a, operator: ''",
				"key: a, operator: In", "key: a, operator: NotIn, values: []", "key: a, operator: Exists, values: [b]"),
		},
	}
}

// policyRules are about how real servers come, fail and leave.
func policyRules() []rule {
	return []rule{
		{
			at: "VirtualServer.spec.quorum.minimumWeight", message: notAQuorum,
			accepts: patches(quorum, "1", "3", "16777215", `"1%"`, `"50%"`, `"99%"`, `"100%"`),
			refuses: patches(quorum, "0", "-1", "16777216", `"0%"`, `"101%"`, `"x"`, `"3"`, `""`, `"%"`, `"05%"`, `"5 %"`, `"-5%"`, `"5%%"`),
		},
		{
			at: "VirtualServer.spec.quorum", message: neverLost,
			accepts: []string{
				`{spec: {quorum: {minimumWeight: 3, hysteresis: 2}}}`,
				`{spec: {quorum: {hysteresis: 0}}}`,
				`{spec: {quorum: {minimumWeight: "50%", hysteresis: 5}}}`,
			},
			refuses: []string{
				`{spec: {quorum: {minimumWeight: 3, hysteresis: 3}}}`,
				`{spec: {quorum: {hysteresis: 1}}}`,
			},
		},
		{
			at: "VirtualServer.spec.sorryServer.address", message: notAnAddress,
			accepts: patches(sorry, "192.168.11.150"), refuses: patches(sorry, "sorry", "10.0.0.1/32", "fe80::1%eth0"),
		},
		{
			at: "VirtualServer.spec.sorryServer.address", message: notCanonical,
			accepts: []string{`{spec: {addresses: ["fd00::1"], realServers: [], sorryServer: {address: "fd00::2"}}}`},
			refuses: []string{`{spec: {addresses: ["fd00::1"], realServers: [], sorryServer: {address: "fd00:0::2"}}}`},
		},
		{
			at: "VirtualServer.spec.sorryServer.address", message: notOrdinary,
			accepts: patches(sorry, "10.1.2.3"), refuses: patches(sorry, "127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1"),
		},
		{
			at: "VirtualServer.spec", message: mixedSorry,
			accepts: patches(sorry, "192.168.11.150"),
			refuses: append(patches(sorry, "fd00::2"),
				`{spec: {addresses: ["fd00::1", "10.0.0.1"], realServers: [], sorryServer: {address: "10.0.0.2"}}}`),
		},
		{
			at: "VirtualServer.spec", message: sorryIsOne,
			accepts: []string{`{spec: {realServers: null, podSelector: {}, sorryServer: {address: 192.168.11.135}}}`},
			refuses: patches(sorry, "192.168.11.135"),
		},
		{
			at: "VirtualServer.spec.drain.timeout", message: "must be from 0s to 24h",
			accepts: patches(drain, "0s", "1.5s", "24h"), refuses: patches(drain, "24h1s", "1441m"),
		},
		{
			at: "VirtualServer.spec.slowStart.duration", message: "must be from 0s to 1h",
			accepts: patches(slowStart, "0s", "500ms", "1h"), refuses: patches(slowStart, "61m", "1h1ms"),
		},
		{
			at: "VirtualServer.spec", message: fixedWeights,
			accepts: append(patches(withSlow, "rr", "wlc", "mh"), `{spec: {scheduler: fo}}`),
			refuses: append(patches(withSlow, "fo", "ovf"), `{spec: {scheduler: fo, slowStart: {}}}`),
		},
	}
}

// podLabels selects pods by so many labels.
func podLabels(many int) string {
	var labels []string
	for i := range many {
		labels = append(labels, fmt.Sprintf("l%d: a", i))
	}
	return `{spec: {podSelector: {matchLabels: {` + strings.Join(labels, ", ") + `}}}}`
}

// podExpressions selects pods by so many expressions of so many values.
func podExpressions(many, values int) string {
	one := `{key: a, operator: In, values: [` + strings.TrimSuffix(strings.Repeat("v, ", values), ", ") + `]}`
	return `{spec: {podSelector: {matchExpressions: [` + strings.TrimSuffix(strings.Repeat(one+", ", many), ", ") + `]}}}`
}
