package main

import (
	"strings"
	"testing"
)

func TestAMetricIsReadByItsWholeName(t *testing.T) {
	const text = "# HELP lvs_director_gossip_members Other directors.\n# TYPE lvs_director_gossip_members gauge\n" +
		"lvs_director_gossip_members_total 7\nlvs_director_gossip_members 1\n"
	if got, err := readMetric(strings.NewReader(text), membersMetric); err != nil || got != 1 {
		t.Errorf("readMetric() = %v, %v, want 1", got, err)
	}
	if _, err := readMetric(strings.NewReader(text), "lvs_director"); err == nil {
		t.Error("a part of a name finds a metric")
	}
}
