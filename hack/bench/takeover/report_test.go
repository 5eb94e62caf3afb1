package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

func TestStatistics(t *testing.T) {
	for want, numbers := range map[string][]int64{
		"7":              {7},
		"3":              {3, 3, 3},
		"20 (10 to 900)": {900, 10, 20},
		"15 (10 to 40)":  {40, 20, 10, 10},
	} {
		if got := statisticsOf(numbers).String(); got != want {
			t.Errorf("statisticsOf(%v) = %s, want %s", numbers, got, want)
		}
	}
}

func measured(system plan.System, variant string, number int, outage int64) row {
	return row{
		round:  round{System: system, Variant: variant, Event: plan.NodeCrash, Round: number},
		Seen:   plan.Seen{Requests: 600, CountedMs: 12000, Failed: int(outage / 20), OutageMs: outage, FailingMs: outage, OpenConnections: 20, Survived: number, Moves: 1},
		At:     "2026-01-02T03:04:05Z",
		Commit: "abc", Machine: "a machine",
	}
}

func TestTheTableHasMediansAndWhatCouldNotBeMeasured(t *testing.T) {
	broken := measured(plan.KeepalivedClassic, "", 4, 99999)
	broken.Error = "it\nbroke"
	rows := []row{
		measured(plan.Ours, "wrr", 1, 400), measured(plan.Ours, "mh", 1, 500),
		measured(plan.KeepalivedClassic, "", 1, 3000), measured(plan.KeepalivedClassic, "", 2, 2800),
		measured(plan.KeepalivedClassic, "", 3, 3300), broken,
	}
	want := `Measured on 2026-01-02, of commit abc, on: a machine.

| event | system | rounds | outage, ms | failing, ms | failed of requests | open connections that lived | moves |
|---|---|---|---|---|---|---|---|
| node-crash | keepalived-classic | 3, and 1 that could not be measured | 3000 (2800 to 3300) | 3000 (2800 to 3300) | 150 (140 to 165) of 600 | 2 (1 to 3) of 20 | 1 |
| node-crash | ours, wrr | 1 | 400 | 400 | 20 of 600 | 1 of 20 | 1 |
| node-crash | ours, mh | 1 | 500 | 500 | 25 of 600 | 1 of 20 | 1 |

Not measured: keepalived-classic, node-crash, round 4: it broke
`
	if diff := cmp.Diff(want, section(rows)); diff != "" {
		t.Errorf("section (-want +got):\n%s", diff)
	}
	rows[1].Commit, rows[2].Requests, rows[2].MovedBefore = "def", 500, 2
	text := section(rows)
	for _, remark := range []string{"several commits", "In 1 rounds the client had no time", "Moved 2 times for no reason, before the event: keepalived-classic, node-crash, round 1"} {
		if !strings.Contains(text, remark) {
			t.Errorf("nothing says %q:\n%s", remark, text)
		}
	}
}

func TestTheSectionOfAPageIsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	if err := writeSection(file, "one\n"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("# Before\n"+string(page)+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeSection(file, "two\n"); err != nil {
		t.Fatal(err)
	}
	page, err = os.ReadFile(file)
	want := "# Before\n" + tableBegin + "\ntwo\n" + tableEnd + "\nafter\n"
	if err != nil || string(page) != want {
		t.Errorf("the page is %q, %v, want %q", page, err, want)
	}
	if _, err := replaceSection(tableBegin, "three"); err == nil {
		t.Error("a section without an end is replaced")
	}
}

func TestDescription(t *testing.T) {
	own := "processor : 0\nmodel name\t: Some CPU\nprocessor : 1\nmodel name\t: Some CPU\n"
	if got := description(own, 2, "model name\t: QEMU TCG CPU version 2.5+\n", "6.1"); got != "Some CPU, 2 cores; guest with 1 processors by software emulation, kernel 6.1" {
		t.Errorf("description() = %q", got)
	}
	if got := description(own, 2, own, "6.1"); !strings.Contains(got, "2 processors by KVM") {
		t.Errorf("description() = %q", got)
	}
}
