package cluster

import (
	"context"

	"github.com/lvs-operator/lvs-operator/hack/lab/node"
)

// kubelet is the name of its service and program.
const kubelet = "kubelet"

// StopKubelet ends a node's kubelet and keeps it ended. Pods live on.
func (l *Lab) StopKubelet(ctx context.Context, name string) error {
	_, err := l.Output(ctx, name, "sh", "-c", "touch "+node.HoldFile(kubelet)+" && kill $(pidof "+kubelet+")")
	return err
}

// StartKubelet lets a node's kubelet start again.
func (l *Lab) StartKubelet(ctx context.Context, name string) error {
	_, err := l.Output(ctx, name, "rm", "-f", node.HoldFile(kubelet))
	return err
}
