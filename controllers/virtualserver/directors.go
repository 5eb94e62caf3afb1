package virtualserver

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// directorsOf returns the addresses of the directors of the pool, and which of
// them say that they cannot serve, with why.
func directorsOf(ctx context.Context, reader client.Reader, pool string) (addresses map[netip.Addr]string, starting map[string]string, err error) {
	var directors v1alpha1.DirectorList
	if err := reader.List(ctx, &directors); err != nil {
		return nil, nil, fmt.Errorf("listing directors: %w", err)
	}
	addresses, starting = map[netip.Addr]string{}, map[string]string{}
	for i := range directors.Items {
		director := &directors.Items[i]
		if director.Spec.DirectorPoolName != pool {
			continue
		}
		for _, addr := range DirectorAddresses(director) {
			addresses[addr] = director.Name
		}
		if why := unready(director); why != "" {
			starting[director.Name] = why
		}
	}
	return addresses, starting, nil
}

// DirectorAddresses returns the addresses that a director tells of: those on its
// announcement interface.
func DirectorAddresses(director *v1alpha1.Director) []netip.Addr {
	var all []netip.Addr
	for _, text := range []string{director.Status.Address, director.Status.IPv6Address} {
		if addr, err := netip.ParseAddr(text); err == nil {
			all = append(all, addr.Unmap())
		}
	}
	return all
}

// unready returns why a director says that it cannot serve, or "".
func unready(director *v1alpha1.Director) string {
	ready := meta.FindStatusCondition(director.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		return v1alpha1.ReasonStarting
	case ready.Status == metav1.ConditionTrue:
		return ""
	default:
		return cmp.Or(ready.Reason, v1alpha1.ReasonStarting)
	}
}
