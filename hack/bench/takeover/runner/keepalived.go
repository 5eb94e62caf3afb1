package main

import (
	"fmt"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

// keepalivedConf is a director's keepalived.conf: that of the classic set-up, or
// with VRRP version 3 and an advertisement every 0.1 s.
func keepalivedConf(system plan.System, host plan.Host) string {
	state, priority := "BACKUP", 99
	if host.Name == plan.Director1 {
		state, priority = "MASTER", 100
	}
	version, instance := "2", "    advert_int 1\n    authentication {\n        auth_type PASS\n        auth_pass 1111\n    }\n"
	if system == plan.KeepalivedTuned {
		// Version 3 has no authentication.
		version, instance = "3", "    advert_int 0.1\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `global_defs {
    router_id LVS_DEVEL
    vrrp_version %s
}
vrrp_instance VI_1 {
    state %s
    interface eth0
    virtual_router_id 51
    priority %d
%s    virtual_ipaddress {
        %s
    }
}
virtual_server %s 80 {
    delay_loop 6
    lb_algo wrr
    lb_kind DR
    protocol TCP
`, version, state, priority, instance, plan.VIP, plan.VIP)
	for _, server := range plan.Hosts() {
		if server.Weight == 0 {
			continue
		}
		address, _, _ := strings.Cut(server.Segment, "/")
		fmt.Fprintf(&b, `    real_server %s 80 {
        weight %d
        TCP_CHECK {
            connect_timeout 10
            retry 1
            delay_before_retry 3
        }
    }
`, address, server.Weight)
	}
	b.WriteString("}\n")
	return b.String()
}
