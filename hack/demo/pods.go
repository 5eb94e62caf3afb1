package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

// The second VIP, and the Deployment behind it.
const (
	farmVIP      = "192.168.11.201"
	farm         = "farm"
	farmReplicas = 3
	farmNode     = "worker1"
	// farmRate is how many connections a second the pods' client opens, and
	// farmPatience when one has failed. Where nodes are emulated, each connection to
	// a pod costs its node's processor some 20 ms, and starting one takes it whole.
	farmRate     = 10
	farmPatience = 10 * time.Second
)

// The steps that are about pods.
const podsServe, podsRestart = "pods", "podsRestart"

// deployFarm makes a Deployment with the readiness gate of real servers, and the
// VirtualServer that selects its pods, and waits until all of them serve.
func (s *stage) deployFarm(ctx context.Context) error {
	for _, object := range []client.Object{farmDeployment(), farmServer()} {
		if err := s.api.Create(ctx, object); client.IgnoreAlreadyExists(err) != nil {
			return fmt.Errorf("creating the pods and their VirtualServer: %w", err)
		}
	}
	began := time.Now()
	err := await(ctx, "all pods to get connections", func() (bool, error) {
		var now v1alpha1.VirtualServer
		err := s.api.Get(ctx, client.ObjectKeyFromObject(farmServer()), &now)
		return err == nil && now.Status.RealServerCounts != nil && now.Status.RealServerCounts.Ready == farmReplicas, err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "A Deployment of %d pods behind %s: all in service after %s.\n", farmReplicas, farmVIP, time.Since(began).Round(time.Second))
	return nil
}

func farmDeployment() *appsv1.Deployment { return deploy.Farm(farm, farmNode, farmReplicas) }

func farmServer() *v1alpha1.VirtualServer {
	return &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: farm},
		Spec: v1alpha1.VirtualServerSpec{
			Addresses:    []v1alpha1.IPAddress{farmVIP},
			Ports:        []v1alpha1.Port{{Name: "http", Port: 80, Protocol: v1alpha1.ProtocolTCP}},
			Scheduler:    v1alpha1.SchedulerRoundRobin,
			PodSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{"app": farm}},
			HealthChecks: []v1alpha1.HealthCheck{{Type: v1alpha1.HealthCheckTCP, Timeout: metav1.Duration{Duration: 3 * time.Second}}},
		},
	}
}

// servePods watches a client of the pods while all is well.
func (s *stage) servePods(ctx context.Context) (step, error) {
	return s.underFarmLoad(ctx, podsServe, func() error { return pause(ctx, forwardingTime) })
}

// restartPods replaces every pod, one after the other.
func (s *stage) restartPods(ctx context.Context) (step, error) {
	return s.underFarmLoad(ctx, podsRestart, func() error {
		d := farmDeployment()
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"restarted":%q}}}}}`, time.Now().Format(time.RFC3339))
		if err := s.api.Patch(ctx, d, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			return fmt.Errorf("restarting the pods: %w", err)
		}
		return await(ctx, "the Deployment to be restarted", func() (bool, error) {
			err := s.api.Get(ctx, client.ObjectKeyFromObject(d), d)
			st := d.Status
			return err == nil && st.ObservedGeneration == d.Generation && st.UpdatedReplicas == farmReplicas &&
				st.AvailableReplicas == farmReplicas && st.Replicas == farmReplicas, err
		})
	})
}

// underFarmLoad does something while a client opens connections to the second
// VIP, and tells what the client saw.
func (s *stage) underFarmLoad(ctx context.Context, name string, do func() error) (step, error) {
	loading, end := context.WithCancel(ctx)
	defer end()
	from := time.Now()
	recorder, wait := load.Start(loading, load.Options{
		Address: farmVIP + ":80", Network: "tcp", Rate: farmRate, Timeout: farmPatience, Dial: s.deployment.Lab.Dial(cluster.Client),
	})
	defer wait()
	defer end()
	if err := do(); err != nil {
		return step{}, err
	}
	end()
	wait()
	return stepOf(name, load.Summarize(recorder.Results(from, time.Now()))), nil
}
