package realserver

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
)

// report makes the RealServerNode of the node, and has it say what was found.
func (c *Controller) report(ctx context.Context, found map[types.UID]Report, unknown error) error {
	var node v1alpha1.RealServerNode
	err := c.Client.Get(ctx, types.NamespacedName{Name: c.Node}, &node)
	if apierrors.IsNotFound(err) {
		err = c.create(ctx, &node)
	}
	if err != nil {
		return fmt.Errorf("reading RealServerNode %s: %w", c.Node, err)
	}
	if unknown != nil || c.Now().Sub(c.started) < settling {
		found = withTold(&node, c.last, found)
	}
	wanted := conditions.RealServerNode(outcomeOf(&node, c.last, found, unknown, c.Now()))
	if !conditions.RealServerNodeDiffers(&node, wanted) {
		return nil
	}
	apply, err := conditions.RealServerNodeApply(&node, wanted)
	if err != nil {
		return err
	}
	if err := c.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(apply),
		client.FieldOwner(conditions.RealServerNodeManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("writing the status of RealServerNode %s: %w", c.Node, err)
	}
	c.tell(&node, wanted)
	return nil
}

// create makes the RealServerNode. It goes with its Node.
func (c *Controller) create(ctx context.Context, made *v1alpha1.RealServerNode) error {
	var node corev1.Node
	if err := c.Client.Get(ctx, types.NamespacedName{Name: c.Node}, &node); err != nil {
		return fmt.Errorf("reading node %s: %w", c.Node, err)
	}
	*made = v1alpha1.RealServerNode{
		ObjectMeta: metav1.ObjectMeta{
			Name:            c.Node,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
		},
		Spec: v1alpha1.RealServerNodeSpec{NodeName: c.Node},
	}
	if err := c.Client.Create(ctx, made); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making it: %w", err)
	}
	return nil
}

// tell makes an event of a change of the condition.
func (c *Controller) tell(node *v1alpha1.RealServerNode, wanted v1alpha1.RealServerNodeStatus) {
	before := meta.FindStatusCondition(node.Status.Conditions, v1alpha1.ConditionReady)
	after := meta.FindStatusCondition(wanted.Conditions, v1alpha1.ConditionReady)
	if after == nil || before != nil && before.Reason == after.Reason {
		return
	}
	// That a new pod is not prepared yet is nothing to tell of.
	if after.Reason == v1alpha1.ReasonCRIUnavailable {
		c.Events.Eventf(node, nil, corev1.EventTypeWarning, after.Reason, "Prepare", "%s", after.Message)
	} else if before != nil && before.Reason == v1alpha1.ReasonCRIUnavailable {
		c.Events.Eventf(node, nil, corev1.EventTypeNormal, "CRIAvailable", "Prepare", "the container runtime answers again")
	}
}
