//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

// groupVIPs are one of each of four groups, in order.
var groupVIPs = []string{"192.168.11.225", "192.168.11.226", "192.168.11.227", "192.168.11.228"}

// groups runs what takes several groups, on the same two directors. The number of
// groups cannot be changed, so the pool is made anew, and again at the end.
func groups(t *testing.T, s *suite) {
	s.setSpare(t, new("true"))
	t.Cleanup(func() { s.setSpare(t, nil) })
	s.awaitDirector(t, spare)
	s.remakePool(t, int32(len(groupVIPs)))
	t.Cleanup(func() { s.remakePool(t, 1) })
	for i, vip := range groupVIPs {
		s.serve(t, web(fmt.Sprintf("group-%d", i), vip))
	}
	s.awaitEven(t)
	for _, scenario := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"what is shown of four groups on two directors", showsGroups},
		{"a director's pod is deleted: its groups move, and come back", movesGroups},
		{"a node is cordoned and uncordoned", cordonsGroups},
		{"a node's power is cut: the other's groups notice nothing", cutsPowerOfGroups},
	} {
		if !t.Run(scenario.name, func(t *testing.T) { scenario.run(t, s) }) {
			s.explain(t)
		}
	}
}

// remakePool deletes the pool and makes it again with another number of groups, soon
// enough for the directors to go on.
func (s *suite) remakePool(t *testing.T, groups int32) {
	t.Helper()
	ctx := context.Background()
	var pool v1alpha1.DirectorPool
	if err := s.api.Get(ctx, types.NamespacedName{Name: "default"}, &pool); err != nil {
		t.Fatal(err)
	}
	if err := s.api.Delete(ctx, &pool); err != nil {
		t.Fatal(err)
	}
	pool.ObjectMeta = metav1.ObjectMeta{Name: pool.Name, Labels: pool.Labels, Annotations: pool.Annotations}
	pool.Spec.Election.Groups = groups
	if err := s.api.Create(ctx, &pool); err != nil {
		t.Fatal(err)
	}
}

// groupLeases returns the Leases of the groups, in order.
func (s *suite) groupLeases(t *testing.T) []coordinationv1.Lease {
	t.Helper()
	leases := make([]coordinationv1.Lease, len(groupVIPs))
	for i := range leases {
		name := types.NamespacedName{Namespace: deploy.Namespace, Name: fmt.Sprintf("default-%d", i)}
		if err := s.api.Get(t.Context(), name, &leases[i]); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	return leases
}

// groupHolders returns who holds the groups, in order.
func (s *suite) groupHolders(t *testing.T) []string {
	t.Helper()
	var holders []string
	for _, lease := range s.groupLeases(t) {
		holder := ""
		if lease.Spec.HolderIdentity != nil {
			holder = *lease.Spec.HolderIdentity
		}
		holders = append(holders, holder)
	}
	return holders
}

// groupsOf returns the numbers of the groups that a node holds.
func (s *suite) groupsOf(t *testing.T, node string) []int {
	t.Helper()
	var held []int
	for number, holder := range s.groupHolders(t) {
		if holder == node {
			held = append(held, number)
		}
	}
	return held
}

// awaitEven waits until each of the two directors holds half of the groups, and
// their Director objects say so.
func (s *suite) awaitEven(t *testing.T) {
	t.Helper()
	s.awaitShown(t, map[string]string{lone: "2/4 groups", spare: "2/4 groups"})
	if one, two := s.groupsOf(t, lone), s.groupsOf(t, spare); len(one) != 2 || len(two) != 2 {
		t.Errorf("%s holds %v and %s %v, want two each", lone, one, spare, two)
	}
}

// awaitShown waits until Directors show so many groups.
func (s *suite) awaitShown(t *testing.T, want map[string]string) {
	t.Helper()
	await(t, 5*time.Minute, func() string {
		for node, text := range want {
			var director v1alpha1.Director
			if err := s.api.Get(t.Context(), types.NamespacedName{Name: node}, &director); err != nil {
				return err.Error()
			}
			if shown := director.Status.Display; shown == nil || shown.Active != text {
				return fmt.Sprintf("director %s shows %+v, want %s; the Leases are of %v", node, shown, text, s.groupHolders(t))
			}
		}
		return ""
	})
}

// underGroups runs something while a client opens 10 connections a second to each
// VIP, and returns what it saw of each.
func (s *suite) underGroups(t *testing.T, happens func()) []load.Summary {
	t.Helper()
	stops := make([]func() load.Summary, len(groupVIPs))
	for i, vip := range groupVIPs {
		stops[i] = s.traffic(t, cluster.Client, "tcp", vip, 10)
	}
	pause(t, 2*time.Second)
	happens()
	pause(t, 5*time.Second)
	sums := make([]load.Summary, len(groupVIPs))
	for i, stop := range stops {
		sums[i] = stop()
		t.Logf("group %d: %d requests, %d failed, outage %s, %v", i, sums[i].Requests, sums[i].Failed, sums[i].Outage, sums[i].Errors)
	}
	return sums
}

// wantNoneFailed wants that of some groups no request failed.
func wantNoneFailed(t *testing.T, sums []load.Summary, groups ...int) {
	t.Helper()
	for _, number := range groups {
		if sum := sums[number]; sum.Failed > 0 || sum.Requests == 0 {
			t.Errorf("group %d: %d of %d requests failed, want none", number, sum.Failed, sum.Requests)
		}
	}
}

var allGroups = []int{0, 1, 2, 3}

// epochs returns the epochs of some groups' Leases.
func (s *suite) epochs(t *testing.T, groups []int) string {
	t.Helper()
	var epochs []string
	for number, lease := range s.groupLeases(t) {
		if slices.Contains(groups, number) {
			epochs = append(epochs, lease.Annotations["lvs-operator.io/epoch"])
		}
	}
	return strings.Join(epochs, " ")
}

func showsGroups(t *testing.T, s *suite) {
	holders := s.groupHolders(t)
	for number, vip := range groupVIPs {
		await(t, time.Minute, func() string {
			shown := s.get(t, fmt.Sprintf("group-%d", number)).Status
			if len(shown.Addresses) == 1 && shown.Addresses[0].Group == int32(number) && shown.Addresses[0].Director == holders[number] &&
				shown.Display != nil && shown.Display.Directors == holders[number] {
				return ""
			}
			return fmt.Sprintf("of %s is shown %+v, %+v, want group %d on %s", vip, shown.Addresses, shown.Display, number, holders[number])
		})
	}
	for _, node := range []string{lone, spare} {
		metrics := s.metrics(node)
		for number, holder := range holders {
			want := 0
			if holder == node {
				want = 1
			}
			if line := fmt.Sprintf("lvs_director_active{group=\"%d\"} %d", number, want); !strings.Contains(metrics, line) {
				t.Errorf("the metrics of %s have no line %s", node, line)
			}
		}
	}
}

func movesGroups(t *testing.T, s *suite) {
	stays := s.groupsOf(t, spare)
	before := s.epochs(t, stays)
	sums := s.underGroups(t, func() {
		s.deletePod(t, lone)
		s.awaitShown(t, map[string]string{spare: "4/4 groups"})
		if after := s.epochs(t, stays); after != before {
			t.Errorf("the epochs of the groups %v, which were to stay, are %s, and were %s", stays, after, before)
		}
		s.awaitDirector(t, lone)
		s.awaitEven(t)
	})
	wantNoneFailed(t, sums, allGroups...)
}

func cordonsGroups(t *testing.T, s *suite) {
	cordon := func(yes bool) { s.patchNode(t, spare, fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, yes)) }
	t.Cleanup(func() { cordon(false) })
	sums := s.underGroups(t, func() {
		cordon(true)
		s.awaitShown(t, map[string]string{lone: "4/4 groups", spare: "0/4 groups"})
		cordon(false)
		s.awaitEven(t)
	})
	wantNoneFailed(t, sums, allGroups...)
}

func cutsPowerOfGroups(t *testing.T, s *suite) {
	stays, moves := s.groupsOf(t, lone), s.groupsOf(t, spare)
	before := s.epochs(t, stays)
	sums := s.underGroups(t, func() {
		if err := s.lab.Kill(t.Context(), spare); err != nil {
			t.Fatal(err)
		}
		s.awaitShown(t, map[string]string{lone: "4/4 groups"})
	})
	wantNoneFailed(t, sums, stays...)
	for _, number := range moves {
		// The Lease lasts 3 s, and is renewed every second.
		if limit := 4 * time.Second; sums[number].Outage > limit {
			t.Errorf("group %d: outage %s, want at most %s", number, sums[number].Outage, limit)
		}
	}
	if after := s.epochs(t, stays); after != before {
		t.Errorf("the epochs of the groups %v, which were to stay, are %s, and were %s", stays, after, before)
	}
	sums = s.underGroups(t, func() {
		if err := s.lab.Start(t.Context(), spare); err != nil {
			t.Fatal(err)
		}
		s.awaitDirector(t, spare)
		s.awaitEven(t)
	})
	wantNoneFailed(t, sums, allGroups...)
}
