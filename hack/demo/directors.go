package main

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/hack/agreement"
	"github.com/lvs-operator/lvs-operator/hack/deploy"
)

// master is the director that is preferred, backup the other one, in VRRP's
// words.
const master, backup = "director1", "director2"

// The steps that are about directors.
const directorStop, directorFailure, comeback = "directorStop", "directorFailure", "return"

// preferFirst are the chart's values that give the master its priority, and have it
// come back soon.
func preferFirst() []string {
	const entry = "pool.election.priorities[0]."
	return []string{
		entry + "priority=100",
		entry + `nodeSelector.matchLabels.kubernetes\.io/hostname=` + master,
		"pool.election.preemption.delay=5s",
	}
}

// lease is the pool's.
var lease = types.NamespacedName{Namespace: deploy.Namespace, Name: "default-0"}

// watchAgreement samples what kubectl shows of who serves, until the returned
// function is called.
func (s *stage) watchAgreement(ctx context.Context) (report func() agreement.Report) {
	return agreement.Start(ctx, agreement.Options{Reader: s.api, Pool: "default", Lease: lease, VirtualServer: s.served})
}

// awaitHolder waits until the Lease is a director's.
func (s *stage) awaitHolder(ctx context.Context, node string) error {
	return await(ctx, "the Lease to be "+node+"'s", func() (bool, error) {
		var now coordinationv1.Lease
		err := s.api.Get(ctx, lease, &now)
		return err == nil && now.Spec.HolderIdentity != nil && *now.Spec.HolderIdentity == node, err
	})
}

// stopDirector deletes the pod of the active director, which hands over. Its
// successor on the same node takes the VIP back.
func (s *stage) stopDirector(ctx context.Context) (step, error) {
	from := time.Now()
	var pods corev1.PodList
	if err := s.api.List(ctx, &pods, client.InNamespace(deploy.Namespace), deploy.DirectorPods()); err != nil {
		return step{}, fmt.Errorf("listing the directors' pods: %w", err)
	}
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName != master {
			continue
		}
		if err := s.api.Delete(ctx, &pods.Items[i]); err != nil {
			return step{}, fmt.Errorf("deleting the active director's pod: %w", err)
		}
	}
	return s.moved(ctx, directorStop, from, backup, master)
}

// failDirector cuts the power of the active director's node.
func (s *stage) failDirector(ctx context.Context) (step, error) {
	from := time.Now()
	if err := s.deployment.Lab.Kill(ctx, master); err != nil {
		return step{}, err
	}
	return s.moved(ctx, directorFailure, from, backup)
}

// returnDirector boots the node again. Its director has the higher priority.
func (s *stage) returnDirector(ctx context.Context) (step, error) {
	from := time.Now()
	if err := s.deployment.Lab.Start(ctx, master); err != nil {
		return step{}, err
	}
	return s.moved(ctx, comeback, from, master)
}

// moved waits until the Lease has been each director's in turn, and tells what
// the client saw since from.
func (s *stage) moved(ctx context.Context, name string, from time.Time, nodes ...string) (step, error) {
	for _, node := range nodes {
		if err := s.awaitHolder(ctx, node); err != nil {
			return step{}, err
		}
	}
	if err := pause(ctx, settled); err != nil {
		return step{}, err
	}
	return s.summary(ctx, name, from)
}
