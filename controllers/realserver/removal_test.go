package realserver

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func TestAPoolThatWasRemovedHasNoVIPsOnPods(t *testing.T) {
	director := func() *v1alpha1.Director {
		return &v1alpha1.Director{
			ObjectMeta: metav1.ObjectMeta{Name: "lb-1"}, Spec: v1alpha1.DirectorSpec{NodeName: "lb-1", DirectorPoolName: "default"},
		}
	}
	s := newSetting(t, pod("web", "web"), selecting("first", "web", "192.0.2.1"), director())
	s.pass(0)
	marked := pool()
	var now v1alpha1.DirectorPool
	if err := s.api.Get(t.Context(), client.ObjectKeyFromObject(marked), &now); err != nil {
		t.Fatal(err)
	}
	marked.ResourceVersion = now.ResourceVersion
	marked.Annotations = map[string]string{v1alpha1.AnnotationRemoval: "set"}
	if err := s.api.Update(t.Context(), marked); err != nil {
		t.Fatal(err)
	}
	s.pass(time.Minute)
	s.pass(time.Minute)
	if got := s.agent.has("uid-web"); len(got) != 1 {
		t.Errorf("the pod is to have %v while a director may still send", got)
	}
	s.delete(director())
	s.pass(time.Minute)
	s.pass(time.Minute)
	if got := s.agent.has("uid-web"); got != nil {
		t.Errorf("the pod is to have %v after the last director left", got)
	}
	// The mark stays when the operator is installed again.
	s.create(director())
	s.pass(0)
	if got := s.agent.has("uid-web"); len(got) != 1 {
		t.Errorf("the pod is to have %v with a director of a new installation", got)
	}
}
