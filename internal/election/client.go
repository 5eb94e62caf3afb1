package election

import (
	"context"
	"fmt"
	"net"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
)

// Leases are the Leases of one namespace. A client of client-go is one.
type Leases interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*coordinationv1.Lease, error)
	Create(ctx context.Context, lease *coordinationv1.Lease, options metav1.CreateOptions) (*coordinationv1.Lease, error)
	Update(ctx context.Context, lease *coordinationv1.Lease, options metav1.UpdateOptions) (*coordinationv1.Lease, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// NewLeases returns a client of its own for the Leases of the namespace: it
// shares no connection with other clients of the process, so that no amount of
// their traffic delays a renewal, and it limits no rate.
//
// It speaks HTTP/1.1. There a request that is given up closes its connection
// and the next one makes a new one, so that a connection that has gone silent
// costs one request. The one connection of HTTP/2 would be kept until its pings
// fail, which client-go waits 45 s for.
func NewLeases(config *rest.Config, namespace string, leaseDuration time.Duration) (Leases, error) {
	config = rest.CopyConfig(config)
	dialer := &net.Dialer{
		Timeout: leaseDuration / 3,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: leaseDuration, Interval: leaseDuration / 3, Count: 3,
		},
	}
	// client-go shares transports between equal configurations; one with a
	// dialer equals no other.
	config.Dial = dialer.DialContext
	config.NextProtos = []string{"http/1.1"}
	config.QPS = -1
	rest.AddUserAgent(config, "elector")

	client, err := coordinationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the Lease client: %w", err)
	}
	return client.Leases(namespace), nil
}
