package agent

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// news carries that something changed from the agent, which does not wait, to the
// controller that runs. Many changes are one.
type news struct{ wake chan struct{} }

func newNews() *news { return &news{wake: make(chan struct{}, 1)} }

// tell never waits.
func (n *news) tell() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// forward hands the news on until ctx ends.
func (n *news) forward(ctx context.Context, to chan<- event.GenericEvent) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		select {
		case <-ctx.Done():
			return
		case to <- event.GenericEvent{Object: &v1alpha1.RealServerNode{}}:
		}
	}
}
