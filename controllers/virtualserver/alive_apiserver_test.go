//go:build envtest

package virtualserver

import (
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	directorcontroller "github.com/lvs-operator/lvs-operator/controllers/director"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// successor is a director whose term begins when it is told.
type successor struct {
	mu    sync.Mutex
	epoch int64
	since time.Time
}

func (s *successor) PoolName() string { return "alive" }

func (s *successor) Term(int32) (int64, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch, s.since
}

func (s *successor) Holdings() []directorcontroller.Holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []directorcontroller.Holding{{Node: "lb-8", Epoch: s.epoch, Since: s.since}}
}

func (s *successor) Died(string) time.Time { return time.Time{} }

func (s *successor) begin(epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch, s.since = epoch, time.Now()
}

// show writes a director's status as that director does.
func show(t *testing.T, name string, groups ...v1alpha1.GroupStatus) {
	t.Helper()
	var director v1alpha1.Director
	if err := apiServer.Client.Get(t.Context(), client.ObjectKey{Name: name}, &director); err != nil {
		t.Fatal(err)
	}
	wanted := conditions.Director(conditions.DirectorOutcome{Director: &director, Now: time.Now(), Groups: groups, TotalGroups: 1})
	apply, err := conditions.DirectorApply(&director, wanted)
	if err != nil {
		t.Fatal(err)
	}
	if err := apiServer.Client.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(apply),
		client.FieldOwner(conditions.DirectorManager), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
}

func TestASupersededDirectorIsShownUntilItSpeaks(t *testing.T) {
	const dead = "lb-7"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: dead}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: dead,
			Labels: map[string]string{directorcontroller.ComponentLabel: directorcontroller.ComponentDirector},
		},
		Spec: corev1.PodSpec{NodeName: dead, TerminationGracePeriodSeconds: new(int64(0)), Containers: []corev1.Container{{Name: "director", Image: "director"}}},
	}
	create(t, node, pod, &v1alpha1.Director{
		ObjectMeta: metav1.ObjectMeta{Name: dead}, Spec: v1alpha1.DirectorSpec{NodeName: dead, DirectorPoolName: "alive"},
	})
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for _, object := range []client.Object{node, pod} {
		if err := apiServer.Client.Status().Update(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	show(t, dead, v1alpha1.GroupStatus{Epoch: 6, Since: metav1.Now()})

	who := &successor{}
	terms := judgeAlive(t, who)
	reason := func() string {
		var director v1alpha1.Director
		if err := apiServer.Client.Get(t.Context(), client.ObjectKey{Name: dead}, &director); err != nil {
			t.Fatal(err)
		}
		if have := meta.FindStatusCondition(director.Status.Conditions, v1alpha1.ConditionAlive); have != nil {
			return have.Reason
		}
		return ""
	}
	becomes := func(want string) {
		t.Helper()
		eventually(t, func() error {
			if now := reason(); now != want {
				return fmt.Errorf("condition Alive has reason %q, want %q", now, want)
			}
			return nil
		})
	}
	if now := reason(); now != "" {
		t.Errorf("condition Alive has reason %s, and nobody is active", now)
	}
	who.begin(7)
	terms <- event.TypedGenericEvent[netstate.Key]{}
	becomes(v1alpha1.ReasonSuperseded)
	if _, since := who.Term(0); time.Since(since) < time.Second {
		t.Errorf("superseded %s after the takeover: no director could have written by then", time.Since(since))
	}
	var director v1alpha1.Director
	if err := apiServer.Client.Get(t.Context(), client.ObjectKey{Name: dead}, &director); err != nil {
		t.Fatal(err)
	}
	if len(director.Status.Groups) != 1 || director.Status.Display.Active != "1/1 groups" {
		t.Errorf("what the director said of itself was changed: %+v", director.Status)
	}
	show(t, dead)
	becomes(v1alpha1.ReasonAlive)
}

// judgeAlive runs the controller for a director, whose term's changes are to be
// sent to the returned channel.
func judgeAlive(t *testing.T, who directorcontroller.Serving) chan<- event.TypedGenericEvent[netstate.Key] {
	t.Helper()
	mgr := newManager(t)
	terms := make(chan event.TypedGenericEvent[netstate.Key], 1)
	alive := &directorcontroller.Alive{Client: mgr.GetClient(), Node: "lb-8", Director: who, Changed: terms, Now: time.Now}
	if err := alive.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	startManager(t, mgr)
	if !mgr.GetCache().WaitForCacheSync(t.Context()) {
		t.Fatal("the cache has not synced")
	}
	return terms
}
