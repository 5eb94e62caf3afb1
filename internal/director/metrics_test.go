package director

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestEveryMetricIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	m.operations.WithLabelValues("add service", "done").Inc()
	m.role("0", true, "Holding")
	m.living(1)
	m.gossiped("Sent")
	m.lease("0", time.Unix(1, 0), true)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) < 12 {
		t.Fatalf("%d metrics are known, want them all", len(families))
	}
	for _, family := range families {
		if !strings.Contains(string(text), "`"+family.GetName()+"`") {
			t.Errorf("docs/metrics.md does not name %s", family.GetName())
		}
	}
}

func TestADirectorThatNobodyAnswersIsIsolated(t *testing.T) {
	s := &session{groups: []*group{{}, {}}}
	if s.isolated() {
		t.Error("isolated at first")
	}
	s.groups[1].decision.Isolated = true
	if !s.isolated() {
		t.Error("not isolated, though one of the elections found it")
	}
}
