package main

import (
	"testing"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

func TestARoundIsTakenToCostWhatTheLongestOfItsKindDid(t *testing.T) {
	costs := budget{}
	unknown := unknownCost + plan.NodeCrash.After()
	if got := costs.of(classicCrash(1)); got != unknown {
		t.Errorf("of a kind that was never played: %s, want %s", got, unknown)
	}
	costs.note(classicCrash(1), 40*time.Second)
	costs.note(classicCrash(2), 20*time.Second)
	if got := costs.of(classicCrash(3)); got != 40*time.Second {
		t.Errorf("of(%s) = %s, want 40s", classicCrash(3), got)
	}
	other := classicCrash(1)
	other.System = plan.KeepalivedTuned
	if got := costs.of(other); got != unknown {
		t.Errorf("of(%s) = %s, want %s", other, got, unknown)
	}
}

func TestOnlyOursIsCutOffFromTheAPIServerBeforeACrash(t *testing.T) {
	for one, want := range map[round]plan.Event{
		{System: plan.Ours, Event: plan.APIAwayCrash}:            plan.APIAwayCrash,
		{System: plan.KeepalivedTuned, Event: plan.APIAwayCrash}: plan.NodeCrash,
		{System: plan.KeepalivedTuned, Event: plan.LinkDown}:     plan.LinkDown,
	} {
		if got := one.cause(); got != want {
			t.Errorf("cause of %s = %s, want %s", one, got, want)
		}
	}
}
