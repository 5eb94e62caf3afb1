package main

import (
	"strings"
	"testing"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

func TestForwardsReadsAddressAndWeight(t *testing.T) {
	const table = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.168.11.200:80 wrr
  -> 192.168.11.135:80            Route   1      0          0
  -> 192.168.11.138:80            Route   0      0          0
`
	for _, host := range plan.Hosts() {
		if got := forwards(table, host); got != (host.Name == plan.RS1) {
			t.Errorf("forwards(%s) = %t", host.Name, got)
		}
	}
}

func TestKeepalivedConfigurationsDifferAsTheirNamesSay(t *testing.T) {
	master, backup := plan.Hosts()[0], plan.Hosts()[1]
	classic := keepalivedConf(plan.KeepalivedClassic, master)
	for _, line := range []string{"vrrp_version 2", "state MASTER", "priority 100", "advert_int 1\n", "delay_loop 6", "connect_timeout 10", "weight 2"} {
		if !strings.Contains(classic, line) {
			t.Errorf("the classic master has no %q:\n%s", line, classic)
		}
	}
	tuned := keepalivedConf(plan.KeepalivedTuned, backup)
	for _, line := range []string{"vrrp_version 3", "state BACKUP", "priority 99", "advert_int 0.1\n"} {
		if !strings.Contains(tuned, line) {
			t.Errorf("the tuned backup has no %q:\n%s", line, tuned)
		}
	}
	if strings.Contains(tuned, "auth_pass") {
		t.Error("VRRP version 3 has no authentication")
	}
	for _, conf := range []string{classic, tuned} {
		if strings.Count(conf, "{") != strings.Count(conf, "}") {
			t.Errorf("braces do not match:\n%s", conf)
		}
	}
}
