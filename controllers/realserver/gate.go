package realserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// setGates sets the readiness gate of each pod that declares it. A pod waits
// until it has every VIP that is wanted of it, which does not wait for the pod to
// be ready.
func (c *Controller) setGates(ctx context.Context, w *world, wanted wants, found map[types.UID]Report) error {
	services := map[types.NamespacedName]*corev1.Service{}
	var failed error
	for i := range w.pods {
		if err := c.setGate(ctx, w, i, wanted, found, services); err != nil {
			failed = errors.Join(failed, fmt.Errorf("setting the readiness gate of pod %s: %w", w.planned[i].Name, err))
		}
	}
	return failed
}

func (c *Controller) setGate(ctx context.Context, w *world, i int, wanted wants, found map[types.UID]Report, services map[types.NamespacedName]*corev1.Service) error {
	pod, planned := &w.pods[i], &w.planned[i]
	// What a pod is to have depends on the families of its addresses.
	if !declaresGate(pod) || planned.Finished || planned.Terminating || len(planned.Addresses) == 0 {
		return nil
	}
	selection, selected := wanted[pod.UID]
	report, before := found[pod.UID], gate(pod)
	asked := conditions.Gate{Existing: before, Wanted: selection.addresses(), Have: report.VIPs, Problem: problemOf(report), Now: c.Now()}
	if selected {
		asked.Selection = conditions.Selected
	}
	verdict := conditions.PodGate(asked)
	if verdict.Status == corev1.ConditionTrue && (before == nil || before.Status != corev1.ConditionTrue) {
		service, err := c.awaited(ctx, w, planned, services)
		if err != nil {
			return err
		}
		if service != "" {
			verdict = notEndpointYet(before, service, verdict.LastTransitionTime)
		}
	}
	return c.write(ctx, pod, before, verdict)
}

// notEndpointYet is the condition of a pod that is to be an endpoint of a Service.
func notEndpointYet(before *corev1.PodCondition, service string, now metav1.Time) corev1.PodCondition {
	condition := corev1.PodCondition{
		Type: v1alpha1.PodConditionRealServerReady, Status: corev1.ConditionFalse, Reason: v1alpha1.ReasonNotPrepared,
		Message: "waits to be an endpoint of Service " + service, LastTransitionTime: now,
	}
	if before != nil {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	return condition
}

// declaresGate says whether the pod waits for the condition.
func declaresGate(pod *corev1.Pod) bool {
	for _, gate := range pod.Spec.ReadinessGates {
		if gate.ConditionType == v1alpha1.PodConditionRealServerReady {
			return true
		}
	}
	return false
}

// gate returns the pod's condition, or nil.
func gate(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == v1alpha1.PodConditionRealServerReady {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// awaited names a Service that a VirtualServer names and that selects the pod,
// while the pod is not among its endpoints: EndpointSlices come a moment after
// the pod, and without this the gate would open in that moment. It is asked once
// in a pod's life or so, which is less than a watch of all Services.
func (c *Controller) awaited(ctx context.Context, w *world, pod *plan.Pod, known map[types.NamespacedName]*corev1.Service) (string, error) {
	for _, name := range slices.SortedFunc(maps.Keys(w.services()), compareNames) {
		if name.Namespace != pod.Name.Namespace || w.isEndpoint(name, pod.UID) {
			continue
		}
		service, asked := known[name]
		if !asked {
			service = &corev1.Service{}
			if err := c.Live.Get(ctx, name, service); apierrors.IsNotFound(err) {
				service = nil
			} else if err != nil {
				return "", fmt.Errorf("reading Service %s: %w", name, err)
			}
			known[name] = service
		}
		if service != nil && service.Spec.Type != corev1.ServiceTypeExternalName && len(service.Spec.Selector) > 0 &&
			labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			return name.Name, nil
		}
	}
	return "", nil
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func (w *world) isEndpoint(service types.NamespacedName, pod types.UID) bool {
	for _, endpoint := range w.endpoints[service] {
		if endpoint.Pod == pod {
			return true
		}
	}
	return false
}

// write sets the condition if it is another than before. A pod that is gone needs
// none; of another pod of the same name the API server does not take it.
func (c *Controller) write(ctx context.Context, pod *corev1.Pod, before *corev1.PodCondition, wanted corev1.PodCondition) error {
	if before != nil && before.Status == wanted.Status && before.Reason == wanted.Reason && before.Message == wanted.Message {
		return nil
	}
	apply := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{map[string]any{
		"type": string(wanted.Type), "status": string(wanted.Status), "reason": wanted.Reason, "message": wanted.Message,
		"lastTransitionTime": wanted.LastTransitionTime.UTC().Format(time.RFC3339),
	}}}}}
	apply.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	apply.SetNamespace(pod.Namespace)
	apply.SetName(pod.Name)
	apply.SetUID(pod.UID)
	return client.IgnoreNotFound(c.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(apply),
		client.FieldOwner(conditions.RealServerNodeManager), client.ForceOwnership))
}
