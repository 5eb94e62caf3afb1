package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func TestAVariantIsASchedulerWithItsFlags(t *testing.T) {
	for variant, want := range map[string]v1alpha1.VirtualServerSpec{
		"wrr":     {Scheduler: v1alpha1.SchedulerWeightedRoundRobin},
		"mh":      {Scheduler: v1alpha1.SchedulerMaglevHashing},
		"mh-port": {Scheduler: v1alpha1.SchedulerMaglevHashing, SchedulerFlags: []v1alpha1.SchedulerFlag{v1alpha1.SchedulerFlagPort}},
	} {
		got := virtualServer(variant).Spec
		if got.Scheduler != want.Scheduler || !cmp.Equal(got.SchedulerFlags, want.SchedulerFlags) {
			t.Errorf("%s: scheduler %s, flags %v, want %s, %v", variant, got.Scheduler, got.SchedulerFlags, want.Scheduler, want.SchedulerFlags)
		}
	}
}
