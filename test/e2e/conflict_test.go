//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
)

// withstandsStranger lets a host that is no director answer for the VIP, which
// only who asks hears, and then announce it too. No role changes for that.
func withstandsStranger(t *testing.T, s *suite) {
	active := s.holder(t)
	mac := strings.TrimSpace(s.run(t, cluster.Router, "sh", "-c", "ip -o link show dev eth0 | sed 's/.*link.ether //; s/ .*//'"))
	before, roles := s.lease(t), s.transitions(active)
	if roles == "" {
		t.Fatal("the active director counts no changes of role")
	}
	s.run(t, cluster.Router, "ip", "address", "add", pairVIP+"/32", "dev", "eth0")
	withdraw := func() {
		if _, err := s.lab.Output(context.Background(), cluster.Router, "ip", "address", "del", pairVIP+"/32", "dev", "eth0"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { withdraw() })
	said := s.awaitDirectorCondition(t, active, v1alpha1.ConditionAddressConflict, v1alpha1.ReasonAddressClaimed)
	if said.Status != metav1.ConditionTrue || !strings.Contains(said.Message, pairVIP) || !strings.Contains(said.Message, mac) {
		t.Errorf("the condition is %s and says %q, want it to be True and to name %s and %s", said.Status, said.Message, pairVIP, mac)
	}
	await(t, time.Minute, func() string { return s.noEvent(t, active, v1alpha1.ReasonAddressClaimed) })
	s.run(t, cluster.Router, "busybox", "arping", "-U", "-c", "20", "-I", "eth0", pairVIP)
	pause(t, time.Minute)

	after := s.lease(t)
	if was, is := *before.Spec.LeaseTransitions, *after.Spec.LeaseTransitions; was != is || *after.Spec.HolderIdentity != active {
		t.Errorf("the Lease is %q's after %d more transitions, want it to stay %q's", *after.Spec.HolderIdentity, is-was, active)
	}
	if now := s.transitions(active); now != roles || !s.announces(active) {
		t.Errorf("changes of role were %q and are %q; %s announces: %t", roles, now, active, s.announces(active))
	}
	if now := s.directorCondition(t, active, v1alpha1.ConditionAddressConflict); now.Status != metav1.ConditionTrue || !now.LastTransitionTime.Equal(&said.LastTransitionTime) {
		t.Errorf("the condition came and went while the stranger was there: %+v, then %+v", said, now)
	}
	withdraw()
	withdraw = func() {}
	s.awaitDirectorCondition(t, active, v1alpha1.ConditionAddressConflict, v1alpha1.ReasonNoConflict)
}

// transitions returns what a director says of its changes of role so far.
func (s *suite) transitions(node string) string {
	var lines []string
	for line := range strings.Lines(s.metrics(node)) {
		if strings.HasPrefix(line, "lvs_director_transitions_total") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}
