//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/agreement"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
)

// wantAgreement wants that until the end of the test all that kubectl shows of
// who serves says the same, but for a moment after each change of role.
func (s *suite) wantAgreement(t *testing.T, name string) {
	t.Helper()
	report := agreement.Start(context.Background(), agreement.Options{
		Reader: s.api, Pool: "default", Lease: leaseName, VirtualServer: types.NamespacedName{Namespace: "default", Name: name},
	})
	t.Cleanup(func() {
		shown := report()
		t.Log(shown)
		for _, d := range shown.Disagreements {
			t.Logf("%s, %d ms after a change of role: the Lease was %q's, DIRECTOR %q, ACTIVE %q",
				d.At.Format(time.TimeOnly), d.SinceChangeMs, d.Holder, d.Director, d.Active)
		}
		if err := shown.Err(); err != nil {
			t.Error(err)
		}
	})
}

// restsQuietly counts the writes of the Lease while nothing happens. With a Lease
// of 3 s its holder renews it every second.
func restsQuietly(t *testing.T, s *suite) {
	const rest, most = 20 * time.Second, 24
	before := s.lease(t)
	watching, err := s.api.Watch(t.Context(), &coordinationv1.LeaseList{}, client.InNamespace(leaseName.Namespace),
		client.MatchingFields{"metadata.name": leaseName.Name}, &client.ListOptions{
			Raw: &metav1.ListOptions{ResourceVersion: before.ResourceVersion},
		})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Stop()
	over := time.After(rest)
	writes := 0
	for {
		select {
		case <-over:
			t.Logf("%d writes of the Lease in %s", writes, rest)
			if writes > most || writes < most/2 {
				t.Errorf("the Lease was written %d times in %s, want about one write a second, and at most %d", writes, rest, most)
			}
			return
		case event, open := <-watching.ResultChan():
			now, isLease := event.Object.(*coordinationv1.Lease)
			if !open || !isLease || event.Type != watch.Modified {
				t.Fatalf("the watch of the Lease said %s: %+v", event.Type, event.Object)
			}
			writes++
			if why := noRenewal(before, now); why != "" {
				t.Errorf("somebody wrote the Lease who does not hold it: %s", why)
			}
			before = now
		}
	}
}

func (s *suite) lease(t *testing.T) *coordinationv1.Lease {
	t.Helper()
	var lease coordinationv1.Lease
	if err := s.api.Get(t.Context(), leaseName, &lease); err != nil {
		t.Fatal(err)
	}
	return &lease
}

// noRenewal says what in a write of the Lease is not its holder's renewal. All
// directors write as the same field manager, so it is told by what changes: a
// renewal moves renewTime, and nothing else.
func noRenewal(before, now *coordinationv1.Lease) string {
	was, is := before.Spec.DeepCopy(), now.Spec.DeepCopy()
	was.RenewTime, is.RenewTime = nil, nil
	switch {
	case !equality.Semantic.DeepEqual(was, is):
		return fmt.Sprintf("spec was %+v and is %+v", before.Spec, now.Spec)
	case !maps.Equal(before.Annotations, now.Annotations):
		return fmt.Sprintf("annotations were %v and are %v", before.Annotations, now.Annotations)
	case before.Spec.RenewTime == nil || now.Spec.RenewTime == nil || !before.Spec.RenewTime.Before(now.Spec.RenewTime):
		return fmt.Sprintf("renewTime was %v and is %v", before.Spec.RenewTime, now.Spec.RenewTime)
	case managers(before) != managers(now):
		return fmt.Sprintf("managers of its fields were %s and are %s", managers(before), managers(now))
	default:
		return ""
	}
}

func TestNoRenewalIsToldFromARenewal(t *testing.T) {
	at := metav1.NewMicroTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	before := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"epoch": "1"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "director"}}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new(lone), RenewTime: &at},
	}
	for name, tc := range map[string]struct {
		change  func(*coordinationv1.Lease)
		renewal bool
	}{
		"a renewal":       {func(*coordinationv1.Lease) {}, true},
		"another holder":  {func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new(spare) }, false},
		"a request":       {func(l *coordinationv1.Lease) { l.Spec.RenewTime = &at; l.Annotations["requested-by"] = spare }, false},
		"nothing to see":  {func(l *coordinationv1.Lease) { l.Spec.RenewTime = &at }, false},
		"another manager": {func(l *coordinationv1.Lease) { l.ManagedFields[0].Manager = "kubectl" }, false},
	} {
		now := before.DeepCopy()
		later := metav1.NewMicroTime(at.Add(time.Second))
		now.Spec.RenewTime = &later
		tc.change(now)
		if why := noRenewal(before, now); (why == "") != tc.renewal {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// managers lists who manages fields of the Lease.
func managers(lease *coordinationv1.Lease) string {
	var names []string
	for _, entry := range lease.ManagedFields {
		names = append(names, fmt.Sprintf("%s (%s)", entry.Manager, entry.Operation))
	}
	return strings.Join(names, ", ")
}

// directorCondition returns a condition of a Director, the zero one if it has
// none.
func (s *suite) directorCondition(t *testing.T, node, kind string) metav1.Condition {
	t.Helper()
	var director v1alpha1.Director
	if err := s.api.Get(t.Context(), types.NamespacedName{Name: node}, &director); err != nil {
		return metav1.Condition{Message: err.Error()}
	}
	if condition := meta.FindStatusCondition(director.Status.Conditions, kind); condition != nil {
		return *condition
	}
	return metav1.Condition{}
}

// awaitDirectorCondition waits until a condition of a Director has a reason.
func (s *suite) awaitDirectorCondition(t *testing.T, node, kind, reason string) metav1.Condition {
	t.Helper()
	var now metav1.Condition
	await(t, 4*time.Minute, func() string {
		if now = s.directorCondition(t, node, kind); now.Reason == reason {
			return ""
		}
		return fmt.Sprintf("condition %s of Director %s is %+v, want reason %s", kind, node, now, reason)
	})
	return now
}

// joinsDead lets a director join whose only peer died alone, and left the VIP to
// its kernel. That the peer is dead is known when its node is not ready.
func joinsDead(t *testing.T, s *suite) {
	s.setSpare(t, nil)
	s.awaitHolder(t, lone)
	s.awaitDirectorCondition(t, lone, v1alpha1.ConditionKernelAnswers, v1alpha1.ReasonAlone)
	await(t, time.Minute, func() string {
		if s.directorProcess(spare) != "" {
			return "the director still runs on the node that is none any more"
		}
		return ""
	})
	s.wantNoLoss(t, func() {
		startKubelet := s.killForGood(t, lone)
		s.setSpare(t, new("true"))
		s.awaitHolder(t, spare)
		if s.directorProcess(lone) != "" {
			t.Fatal("the first director runs again, so nothing is shown")
		}
		said := s.awaitDirectorCondition(t, spare, v1alpha1.ConditionAddressConflict, v1alpha1.ReasonKernelAnswersElsewhere)
		for _, part := range []string{pairVIP, "52:54:00:11:00:15", lone} {
			if said.Status != metav1.ConditionTrue || !strings.Contains(said.Message, part) {
				t.Errorf("the condition is %s and says %q, want it to be True and to name %s", said.Status, said.Message, part)
			}
		}
		await(t, time.Minute, func() string { return s.noEvent(t, spare, v1alpha1.ReasonKernelAnswersElsewhere) })
		pause(t, 10*time.Second)
		startKubelet()
		s.awaitPair(t)
	})
	if now := s.holder(t); now != spare || !s.announces(spare) || s.announces(lone) {
		t.Errorf("the Lease is %q's; %s announces: %t, %s: %t; want %s alone", now, spare, s.announces(spare), lone, s.announces(lone), spare)
	}
	if kernel := s.run(t, lone, "ip", "-o", "address", "show", "dev", "eth0"); strings.Contains(kernel, pairVIP) {
		t.Errorf("the VIP is still on the first director's interface: %s", kernel)
	}
	s.awaitDirectorCondition(t, spare, v1alpha1.ConditionAddressConflict, v1alpha1.ReasonNoConflict)
	s.awaitDirectorCondition(t, lone, v1alpha1.ConditionAlive, v1alpha1.ReasonAlive)
	answers := s.run(t, cluster.Client, "sh", "-c", "ip neigh flush dev eth0; busybox ping -c 1 -W 3 "+pairVIP+" >/dev/null; ip neigh show "+pairVIP)
	if !strings.Contains(answers, "52:54:00:11:00:16") {
		t.Errorf("the client knows %q, want the second director's MAC", answers)
	}
}

// noEvent says that no event of a Director has the reason, or nothing.
func (s *suite) noEvent(t *testing.T, node, reason string) string {
	t.Helper()
	var events corev1.EventList
	if err := s.api.List(t.Context(), &events, client.InNamespace(metav1.NamespaceDefault)); err != nil {
		return err.Error()
	}
	for _, event := range events.Items {
		if event.InvolvedObject.Kind == "Director" && event.InvolvedObject.Name == node && event.Reason == reason && event.Type == corev1.EventTypeWarning {
			return ""
		}
	}
	return fmt.Sprintf("no event of Director %s says %s among %d", node, reason, len(events.Items))
}
