//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
)

// uninstalls takes the chart away while two directors serve, and a pod is a real
// server. A DirectorPool that the chart did not make stays, and a later
// installation serves it.
func uninstalls(t *testing.T, s *suite) {
	if strings.Contains(s.found[lone], "dummy-lvs") {
		t.Fatal("the lab stayed up from a run before, so nobody knows how its nodes were found: take it down first (go run ./hack/lab --name e2e down)")
	}
	const name = "uninstall"
	s.setSpare(t, new("true"))
	t.Cleanup(func() { s.setSpare(t, nil) })
	kept := &v1alpha1.DirectorPool{ObjectMeta: metav1.ObjectMeta{Name: name}}
	kept.Spec.NodeSelector.MatchLabels = map[string]string{"none": "such"}
	if err := s.api.Create(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.api.Delete(context.Background(), kept) })
	s.deploy(t, podFarm(name))
	pod := s.onePod(t, name)
	asFound := s.inPod(t, pod, "ip -o address show dev lo")
	s.create(t, servedByPods(name, name, podVIP))
	s.awaitPods(t, name, 1)
	s.awaitDirector(t, spare)

	if err := s.deployment.Uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	for node, now := range s.nodeStates(t) {
		if was := s.found[node]; now != was {
			t.Errorf("%s is\n%s\nand was\n%s", node, now, was)
		}
	}
	if now := s.inPod(t, pod, "ip -o address show dev lo"); now != asFound {
		t.Errorf("the pod's lo is\n%s\nand was\n%s", now, asFound)
	}
	var directors v1alpha1.DirectorList
	if err := s.api.List(t.Context(), &directors); err != nil || len(directors.Items) != 0 {
		t.Errorf("%d Directors are left (%v)", len(directors.Items), err)
	}
	if err := s.api.Get(t.Context(), types.NamespacedName{Name: name}, kept); err != nil || kept.Annotations[v1alpha1.AnnotationRemoval] == "" {
		t.Errorf("the pool has annotations %v (%v), want it marked", kept.Annotations, err)
	}

	if err := s.deployment.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	var set appsv1.DaemonSet
	key := types.NamespacedName{Namespace: deploy.Namespace, Name: deploy.DaemonSet}
	if err := s.api.Get(t.Context(), key, &set); err != nil || string(set.UID) == kept.Annotations[v1alpha1.AnnotationRemoval] {
		t.Errorf("the mark %v is the new DaemonSet's too (%v)", kept.Annotations, err)
	}
	s.awaitPods(t, name, 1)
	await(t, time.Minute, func() string {
		if s.announces(lone) || s.announces(spare) {
			return ""
		}
		return "no director of the new installation announces"
	})
}

// nodeStates is nodeState of every node. Interfaces of pods come and go.
func (s *suite) nodeStates(t *testing.T) map[string]string {
	t.Helper()
	states := map[string]string{}
	for _, node := range []string{lone, spare, other} {
		var lines []string
		for line := range strings.Lines(s.nodeState(t, node)) {
			if !strings.HasPrefix(line, "cali") {
				lines = append(lines, line)
			}
		}
		states[node] = strings.Join(lines, "")
	}
	return states
}
