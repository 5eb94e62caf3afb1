package director

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// Installation is the one that a director belongs to: that of the DaemonSet which
// made its pod. The zero Installation is never removed.
type Installation struct {
	Reader    client.Reader
	Namespace string
	PodUID    types.UID
}

// uid returns the DaemonSet's UID, empty for a director without a pod.
func (i Installation) uid(ctx context.Context) (types.UID, error) {
	if i.Reader == nil {
		return "", nil
	}
	var pods corev1.PodList
	if err := i.Reader.List(ctx, &pods, client.InNamespace(i.Namespace)); err != nil {
		return "", fmt.Errorf("looking for the director's own pod: %w", err)
	}
	for _, pod := range pods.Items {
		if owner := metav1.GetControllerOf(&pod); pod.UID == i.PodUID && owner != nil {
			return owner.UID, nil
		}
	}
	return "", nil
}

// removed says whether the pool is marked for the removal of this installation.
func (i Installation) removed(ctx context.Context, pool *v1alpha1.DirectorPool) (bool, error) {
	mark := pool.Annotations[v1alpha1.AnnotationRemoval]
	if mark == "" {
		return false, nil
	}
	own, err := i.uid(ctx)
	if err != nil {
		return false, err
	}
	if string(own) != mark {
		log.FromContext(ctx).V(1).Info("Passing over the mark of an installation that was removed", "pool", pool.Name, "daemonSet", mark)
		return false, nil
	}
	log.FromContext(ctx).Info("The DirectorPool is marked for removal; its director leaves", "pool", pool.Name)
	return true, nil
}
