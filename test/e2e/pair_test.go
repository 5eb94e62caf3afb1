//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

const (
	pairVIP = "192.168.11.217"
	// preferred is the label of a node that is given a priority.
	preferred = "lvs-operator.io/preferred"
)

// leaseName is the Lease of the pool's one group.
var leaseName = types.NamespacedName{Namespace: deploy.Namespace, Name: "default-0"}

// pair runs what takes two directors, with 50 connections a second throughout.
func pair(t *testing.T, s *suite) {
	s.setSpare(t, new("true"))
	t.Cleanup(func() { s.setSpare(t, nil) })
	s.awaitDirector(t, spare)
	s.serve(t, web("pair", pairVIP))
	s.awaitPair(t)
	for _, scenario := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"at rest the holder renews its Lease once a second, and nobody else writes it", restsQuietly},
		{"the active director's pod is deleted", stopsActive},
		{"the active director's node is cordoned", cordonsActive},
		{"the active director's process is killed", killsActive},
		{"both directors are killed at once", killsBoth},
		{"the DaemonSet is updated", rollsOut},
		{"the active director cannot reach the API server", cutsActive},
		{"the API server is away for a minute", stopsAPI},
		{"the active director's process stands still and wakes", freezesActive},
		{"the active director's cable is pulled", unplugsActive},
		{"a stranger that answers for the VIP changes no role", withstandsStranger},
		{"a node of higher priority takes over, dies and comes back", prefersNode},
		{"a second director joins while the lone one's process is dead", joinsDead},
	} {
		if !t.Run(scenario.name, func(t *testing.T) {
			s.wantAgreement(t, "pair")
			scenario.run(t, s)
		}) {
			s.explain(t)
		}
	}
	s.takeovers(t)
}

// peerOf is the other one of the two directors.
func peerOf(node string) string {
	if node == lone {
		return spare
	}
	return lone
}

// holder is the node that holds the Lease.
func (s *suite) holder(t *testing.T) string {
	t.Helper()
	var lease coordinationv1.Lease
	if err := s.api.Get(t.Context(), leaseName, &lease); err != nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// awaitPair waits until both directors are there and one of them is active and
// knows the other for a candidate, so that no kernel answers.
func (s *suite) awaitPair(t *testing.T) {
	t.Helper()
	s.awaitDirector(t, lone)
	s.awaitDirector(t, spare)
	await(t, 2*time.Minute, func() string {
		var directors v1alpha1.DirectorList
		if err := s.api.List(t.Context(), &directors); err != nil {
			return err.Error()
		}
		candidates := 0
		for _, director := range directors.Items {
			for _, condition := range director.Status.Conditions {
				if condition.Type == v1alpha1.ConditionCandidate && condition.Status == metav1.ConditionTrue {
					candidates++
				}
				if condition.Type == v1alpha1.ConditionKernelAnswers && condition.Status == metav1.ConditionTrue {
					return "the kernel of " + director.Name + " answers"
				}
			}
		}
		if candidates < 2 || s.holder(t) == "" {
			return fmt.Sprintf("%d candidates, and the holder is %q", candidates, s.holder(t))
		}
		return ""
	})
}

func (s *suite) awaitHolder(t *testing.T, node string) {
	t.Helper()
	await(t, 2*time.Minute, func() string {
		if now := s.holder(t); now != node {
			return fmt.Sprintf("the Lease is %q's, want it to be %s's", now, node)
		}
		return ""
	})
}

// under runs something while a client opens 50 connections a second, and a
// little longer, and returns what the client saw.
func (s *suite) under(t *testing.T, happens func()) load.Summary {
	t.Helper()
	stop := s.traffic(t, cluster.Client, "tcp", pairVIP, 50)
	pause(t, 2*time.Second)
	happens()
	pause(t, 5*time.Second)
	sum := stop()
	t.Logf("%d requests, %d failed, outage %s, %v %v", sum.Requests, sum.Failed, sum.Outage, sum.PerServer, sum.Errors)
	return sum
}

// held is how many connections stay open through whatever happens.
const held = 20

// nextPort returns ports that no other connection comes from: one that was used
// lately may still be known to the director that has yet to take over, as a
// connection to another real server.
func nextPort() func() int {
	const first, last = 2000, 11980
	// Two seconds apart, so that two calls have other ports for over half an hour.
	next := first + int(time.Now().Unix()/2*held)%(last-first)
	return func() int {
		next++
		return next
	}
}

// wantNoLoss runs something under traffic and wants that no new connection
// failed and that none that was open is lost.
func (s *suite) wantNoLoss(t *testing.T, happens func()) {
	t.Helper()
	open, err := load.Hold(t.Context(), load.Options{Address: pairVIP + ":80", Dial: s.lab.DialFrom(cluster.Client, nextPort())}, held)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	if sum := s.under(t, happens); sum.Failed > 0 || sum.Requests == 0 {
		t.Errorf("%d of %d requests failed, %d of them reset; want none", sum.Failed, sum.Requests, sum.Reset)
	}
	lost := open.Ask(10 * time.Second)
	t.Logf("of %d open connections %d live", held, held-len(lost))
	if len(lost) > 0 {
		t.Errorf("%d of %d open connections are lost: %v", len(lost), held, lost[0])
	}
}

// deletePod deletes a director's pod.
func (s *suite) deletePod(t *testing.T, node string) {
	t.Helper()
	var pods corev1.PodList
	if err := s.api.List(t.Context(), &pods, client.InNamespace(deploy.Namespace), deploy.DirectorPods()); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName != node {
			continue
		}
		if err := s.api.Delete(t.Context(), &pods.Items[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func stopsActive(t *testing.T, s *suite) {
	active := s.holder(t)
	s.wantNoLoss(t, func() {
		s.deletePod(t, active)
		s.awaitHolder(t, peerOf(active))
		s.awaitPair(t)
	})
	if now := s.holder(t); now == active {
		t.Errorf("%s took the VIPs back, with no higher priority", active)
	}
}

func (s *suite) patchNode(t *testing.T, node, patch string) {
	t.Helper()
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if err := s.api.Patch(context.Background(), object, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Error(err)
	}
}

func cordonsActive(t *testing.T, s *suite) {
	active := s.holder(t)
	t.Cleanup(func() { s.patchNode(t, active, `{"spec":{"unschedulable":null}}`) })
	s.wantNoLoss(t, func() {
		s.patchNode(t, active, `{"spec":{"unschedulable":true}}`)
		s.awaitHolder(t, peerOf(active))
	})
}

// kill kills a director's process and returns a function that waits for the next
// one.
func (s *suite) kill(t *testing.T, node string) (awaitNext func()) {
	t.Helper()
	before := s.directorProcess(node)
	s.run(t, node, "sh", "-c", "kill -9 "+before)
	return func() {
		t.Helper()
		await(t, 5*time.Minute, func() string {
			if now := s.directorProcess(node); now == "" || now == before {
				return "the director of " + node + " has not been started again"
			}
			return ""
		})
	}
}

// killsActive kills the holder's process. Its machine answers and forwards, so
// nobody takes its Lease before that has expired, whatever gossip says.
func killsActive(t *testing.T, s *suite) {
	active := s.holder(t)
	early := s.roleChanges(t, peerOf(active), "HolderDead")
	s.wantNoLoss(t, func() {
		s.kill(t, active)()
		s.awaitPair(t)
	})
	if now := s.roleChanges(t, peerOf(active), "HolderDead"); now != early {
		t.Errorf("%s took the Lease early %d times, although the machine of %s answers", peerOf(active), now-early, active)
	}
}

func killsBoth(t *testing.T, s *suite) {
	s.wantNoLoss(t, func() {
		first, second := s.kill(t, lone), s.kill(t, spare)
		first()
		second()
		s.awaitPair(t)
	})
}

func rollsOut(t *testing.T, s *suite) {
	s.wantNoLoss(t, func() {
		ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.Namespace, Name: deploy.DaemonSet}}
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"lvs-operator.io/restarted":%q}}}}}`, time.Now().Format(time.RFC3339))
		if err := s.api.Patch(t.Context(), ds, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		await(t, 5*time.Minute, func() string {
			if err := s.api.Get(t.Context(), client.ObjectKeyFromObject(ds), ds); err != nil {
				return err.Error()
			}
			if st := ds.Status; st.ObservedGeneration == ds.Generation && st.UpdatedNumberScheduled == 2 && st.NumberReady == 2 {
				return ""
			}
			return fmt.Sprintf("the DaemonSet is %+v", ds.Status)
		})
		s.awaitPair(t)
	})
}

// healer returns what mends a node's connections; the end of the test does it too.
func (s *suite) healer(t *testing.T, node string) (heal func()) {
	heal = func() {
		if err := s.lab.Heal(context.Background(), node); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(heal)
	return heal
}

// cutsActive cuts the holder off from the API server. The other one takes the
// Lease when it expires, and the holder stops when it hears it.
func cutsActive(t *testing.T, s *suite) {
	active := s.holder(t)
	heal := s.healer(t, active)
	s.wantNoLoss(t, func() {
		if err := s.lab.Cut(t.Context(), active, "api"); err != nil {
			t.Fatal(err)
		}
		s.awaitHolder(t, peerOf(active))
		announced := time.Now()
		await(t, 10*time.Second, func() string {
			if s.announces(active) {
				return fmt.Sprintf("%s still announces %s after the Lease was %s's", active, time.Since(announced), peerOf(active))
			}
			return ""
		})
		if !s.announces(peerOf(active)) {
			t.Errorf("nobody announces")
		}
		heal()
		s.awaitPair(t)
	})
	if now := s.holder(t); now != peerOf(active) {
		t.Errorf("the Lease is %q's when the API server can be reached again, want that it stays", now)
	}
}

func stopsAPI(t *testing.T, s *suite) {
	active := s.holder(t)
	s.wantNoLoss(t, func() {
		if err := s.lab.StopAPI(t.Context()); err != nil {
			t.Fatal(err)
		}
		pause(t, time.Minute)
		if !s.announces(active) || s.announces(peerOf(active)) {
			t.Errorf("without the API server %s does not announce, or %s does", active, peerOf(active))
		}
		if err := s.lab.StartAPI(t.Context()); err != nil {
			t.Fatal(err)
		}
		await(t, 2*time.Minute, func() string { return s.listError(t) })
		s.awaitPair(t)
	})
	if now := s.holder(t); now != active {
		t.Errorf("the Lease is %q's after the API server's absence, want %s's", now, active)
	}
}

// listError says why the API server does not answer, or nothing.
func (s *suite) listError(t *testing.T) string {
	if err := s.api.List(t.Context(), &v1alpha1.DirectorList{}); err != nil {
		return err.Error()
	}
	return ""
}

// freezesActive stops the holder's process until the other one serves. What it
// does when it wakes must turn no client back to it.
func freezesActive(t *testing.T, s *suite) {
	active := s.holder(t)
	process := s.directorProcess(active)
	mac := map[string]string{lone: "52:54:00:11:00:15", spare: "52:54:00:11:00:16"}
	neighbour := func() string { return s.run(t, cluster.Client, "ip", "neigh", "show", pairVIP) }
	s.wantNoLoss(t, func() {
		s.run(t, active, "sh", "-c", "kill -STOP "+process)
		t.Cleanup(func() {
			_, _ = s.lab.Output(context.Background(), active, "sh", "-c", "kill -CONT "+process)
		})
		s.awaitHolder(t, peerOf(active))
		await(t, 30*time.Second, func() string {
			if now := neighbour(); !strings.Contains(now, mac[peerOf(active)]) {
				return "the client has not moved: " + now
			}
			return ""
		})
		s.run(t, active, "sh", "-c", "kill -CONT "+process)
		for range 10 {
			pause(t, time.Second)
			if now := neighbour(); !strings.Contains(now, mac[peerOf(active)]) {
				t.Fatalf("the client went back: %s", now)
			}
		}
		s.awaitPair(t)
	})
}

// unplugsActive pulls the cable of the holder's announcement interface. It sees
// that and hands over, so nobody waits for the Lease to expire.
func unplugsActive(t *testing.T, s *suite) {
	active := s.holder(t)
	heal := s.healer(t, active)
	sum := s.under(t, func() {
		if err := s.lab.Cut(t.Context(), active, cluster.CutLink); err != nil {
			t.Fatal(err)
		}
		s.awaitHolder(t, peerOf(active))
	})
	// The Lease lasts 3 s and was renewed a second before at most.
	if limit := 1500 * time.Millisecond; sum.Failed == 0 || sum.Outage > limit {
		t.Errorf("outage %s with %d failed, want some, and at most %s", sum.Outage, sum.Failed, limit)
	}
	s.wantNoLoss(t, func() {
		heal()
		s.awaitPair(t)
	})
	if now := s.holder(t); now != peerOf(active) {
		t.Errorf("the Lease is %q's when the cable is back, want that it stays", now)
	}
}

// prefersNode gives the standby's node a higher priority: it takes the VIPs.
// Then its power is cut, and comes back.
func prefersNode(t *testing.T, s *suite) {
	node := peerOf(s.holder(t))
	s.patchNode(t, node, fmt.Sprintf(`{"metadata":{"labels":{%q:"true"}}}`, preferred))
	t.Cleanup(func() { s.patchNode(t, node, fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, preferred)) })
	pool := &v1alpha1.DirectorPool{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	patch := fmt.Sprintf(`{"spec":{"election":{"priorities":[{"nodeSelector":{"matchLabels":{%q:"true"}},"priority":100}],"preemption":{"delay":"5s"}}}}`, preferred)
	s.wantNoLoss(t, func() {
		if err := s.api.Patch(t.Context(), pool, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = s.api.Patch(context.Background(), pool, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"election":{"priorities":null,"preemption":null}}}`)))
		})
		s.awaitHolder(t, node)
	})
	t.Run("its power is cut", func(t *testing.T) { s.cutsPower(t, node) })
	s.wantNoLoss(t, func() {
		if err := s.lab.Start(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		await(t, 5*time.Minute, func() string {
			if now := s.holder(t); now != node {
				return fmt.Sprintf("the Lease is %q's, want %s to take it back", now, node)
			}
			return ""
		})
		s.awaitPair(t)
	})
}
