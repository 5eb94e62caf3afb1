package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

func classicCrash(number int) round {
	return round{System: plan.KeepalivedClassic, Event: plan.NodeCrash, Round: number}
}

func TestAnInterruptedRunGoesOnWhereItWas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "takeover.json")
	first, err := openResults(file, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []row{
		{round: classicCrash(1), Seen: plan.Seen{Requests: 600, Failed: 100, OutageMs: 3000, OpenConnections: 20}, Commit: "a"},
		{round: classicCrash(2), Error: "no answer", Commit: "a"},
	}
	for _, r := range want {
		if err := first.add(r); err != nil {
			t.Fatal(err)
		}
	}

	second, err := openResults(file, false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, second.rows, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("what was stored (-want +got):\n%s", diff)
	}
	ours := round{System: plan.Ours, Variant: "mh", Event: plan.NodeCrash, Round: 1}
	for _, tc := range []struct {
		round       round
		again, want bool
	}{
		{round: classicCrash(1), want: true},
		{round: classicCrash(1), again: true, want: true},
		{round: classicCrash(2), want: true},
		{round: classicCrash(2), again: true},
		{round: classicCrash(3)},
		{round: ours},
	} {
		if got := second.has(tc.round, tc.again); got != tc.want {
			t.Errorf("has(%s, again %t) = %t, want %t", tc.round, tc.again, got, tc.want)
		}
	}

	// A round that is played again has one row, the later one.
	if err := second.add(row{round: classicCrash(2), Commit: "b"}); err != nil {
		t.Fatal(err)
	}
	third, err := openResults(file, false)
	if err != nil || len(third.rows) != 2 || third.rows[1].Commit != "b" || third.rows[1].Error != "" {
		t.Errorf("after the second try: %+v, %v", third, err)
	}
	if fresh, err := openResults(file, true); err != nil || len(fresh.rows) != 0 {
		t.Errorf("anew: %+v, %v", fresh, err)
	}
}

func TestASpoiltFileIsNotOverwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "takeover.json")
	if err := os.WriteFile(file, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openResults(file, false); err == nil {
		t.Error("openResults() = nil, want an error")
	}
}

func TestSystemsArePlayedSideBySide(t *testing.T) {
	o, err := parse([]string{"--rounds=2", "--events=backend-rst,node-crash", "--systems=ours,keepalived-tuned", "--schedulers=wrr,mh"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range schedule(o) {
		got = append(got, one.String())
	}
	want := []string{
		"keepalived-tuned, node-crash, round 1", "ours wrr, node-crash, round 1", "ours mh, node-crash, round 1",
		"keepalived-tuned, backend-rst, round 1", "ours wrr, backend-rst, round 1",
		"keepalived-tuned, node-crash, round 2", "ours wrr, node-crash, round 2", "ours mh, node-crash, round 2",
		"keepalived-tuned, backend-rst, round 2", "ours wrr, backend-rst, round 2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("schedule (-want +got):\n%s", diff)
	}
	for _, args := range [][]string{{"--systems=vrrp"}, {"--events=fire"}, {"--rounds=0"}, {"--schedulers="}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("parse(%q) = nil, want an error", args)
		}
	}
}
