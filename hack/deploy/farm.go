package deploy

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
)

// Farm is a Deployment of the lab's responder on one node, with the readiness gate
// of real servers and a rollout that lets no pod go before another serves. Its
// pods have the label app, with its name.
func Farm(name, node string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(replicas),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxUnavailable: new(intstr.FromInt32(0)), MaxSurge: new(intstr.FromInt32(1)),
			}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					NodeSelector:                  map[string]string{corev1.LabelHostname: node},
					TerminationGracePeriodSeconds: new(int64(20)),
					ReadinessGates:                []corev1.PodReadinessGate{{ConditionType: v1alpha1.PodConditionRealServerReady}},
					Containers:                    []corev1.Container{responder()},
				},
			},
		},
	}
}

func responder() corev1.Container {
	return corev1.Container{
		Name: "responder", Image: cluster.ResponderImage, ImagePullPolicy: corev1.PullIfNotPresent,
		// Until every director knows that the pod leaves.
		Args: []string{"--grace=5s"},
		// Often until it is there, and seldom then: each takes the node some of its
		// processors' time.
		StartupProbe:   probe(1, 60),
		ReadinessProbe: probe(10, 3),
	}
}

func probe(seconds, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(80)}},
		PeriodSeconds: seconds, TimeoutSeconds: 5, FailureThreshold: failures,
	}
}
