package conditions

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

const (
	// ReporterManager is the field manager of all of a VirtualServer's status
	// but its addresses. It belongs to whichever director reports, which is the
	// active one of the group of the first address.
	ReporterManager = "lvs-director/reporter"
	// DirectorManager is the field manager of a Director's status, which only
	// that director writes.
	DirectorManager = "lvs-director"
)

// AddressesManager is the field manager of the status.addresses entries of a
// group. It is the group's and not the director's, so that a successor takes
// the entries over by applying, and removes those that are gone. With a manager
// for each director a dead one would own its entries for ever.
func AddressesManager(pool string, group int32) string {
	return fmt.Sprintf("lvs-director/%s-%d", pool, group)
}

// AddressesApply returns the apply configuration, for the status subresource,
// of the entries of one group. Without any it gives up those that the group
// had.
func AddressesApply(vs *v1alpha1.VirtualServer, group int32, wanted v1alpha1.VirtualServerStatus) (*unstructured.Unstructured, error) {
	return applyOf("VirtualServer", vs.ObjectMeta, &v1alpha1.VirtualServerStatus{Addresses: ofGroup(wanted.Addresses, group)})
}

// AddressesDiffer says whether AddressesApply would change the object.
func AddressesDiffer(cached *v1alpha1.VirtualServer, group int32, wanted v1alpha1.VirtualServerStatus) bool {
	return !equality.Semantic.DeepEqual(byAddress(ofGroup(cached.Status.Addresses, group)), byAddress(ofGroup(wanted.Addresses, group)))
}

func ofGroup(all []v1alpha1.AddressStatus, group int32) []v1alpha1.AddressStatus {
	var of []v1alpha1.AddressStatus
	for _, status := range all {
		if status.Group == group {
			of = append(of, status)
		}
	}
	return of
}

// byAddress makes the order not matter, which after several appliers is the
// API server's choice.
func byAddress(all []v1alpha1.AddressStatus) map[string]v1alpha1.AddressStatus {
	by := make(map[string]v1alpha1.AddressStatus, len(all))
	for _, status := range all {
		by[status.Address] = status
	}
	return by
}

// Groups lists, in order, the groups that an object has or is to have entries
// of.
func Groups(cached *v1alpha1.VirtualServer, wanted v1alpha1.VirtualServerStatus) []int32 {
	groups := map[int32]struct{}{}
	for _, status := range slices.Concat(cached.Status.Addresses, wanted.Addresses) {
		groups[status.Group] = struct{}{}
	}
	return slices.Sorted(maps.Keys(groups))
}

// ReporterApply returns the apply configuration, for the status subresource, of
// everything but the addresses.
func ReporterApply(vs *v1alpha1.VirtualServer, wanted v1alpha1.VirtualServerStatus) (*unstructured.Unstructured, error) {
	wanted.Addresses = nil
	return applyOf("VirtualServer", vs.ObjectMeta, &wanted)
}

// ReportDiffers says whether ReporterApply would change the object.
func ReportDiffers(cached *v1alpha1.VirtualServer, wanted v1alpha1.VirtualServerStatus) bool {
	have := cached.Status
	have.Addresses, wanted.Addresses = nil, nil
	have.Conditions, wanted.Conditions = byType(have.Conditions), byType(wanted.Conditions)
	return !equality.Semantic.DeepEqual(have, wanted)
}

// byType returns the conditions ordered by type.
func byType(conditions []metav1.Condition) []metav1.Condition {
	return slices.SortedFunc(slices.Values(conditions), func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
}

// Urgent says whether the change is one of state, which users wait for, and not
// of wording alone: a condition, who announces, or how a real server is.
func Urgent(old, wanted v1alpha1.VirtualServerStatus) bool {
	return !equality.Semantic.DeepEqual(gist(old), gist(wanted))
}

// gist is a status without its wording and times.
func gist(status v1alpha1.VirtualServerStatus) map[string]string {
	gist := map[string]string{}
	for _, condition := range status.Conditions {
		gist["condition "+condition.Type] = string(condition.Status) + condition.Reason
	}
	for _, address := range status.Addresses {
		gist["address "+address.Address] = address.Director
	}
	for _, server := range status.RealServers {
		gist[fmt.Sprintf("real server %s:%d", server.Address, server.Port)] = string(server.State)
	}
	if status.RealServerCounts != nil {
		gist["counts"] = fmt.Sprint(*status.RealServerCounts)
	}
	if status.Display != nil {
		// Two directors write the one and the other during a handover: the columns may
		// be the one's and the addresses the other's.
		gist["directors"] = status.Display.Directors
	}
	return gist
}

// DirectorApply returns the apply configuration, for the status subresource, of
// a Director.
func DirectorApply(director *v1alpha1.Director, wanted v1alpha1.DirectorStatus) (*unstructured.Unstructured, error) {
	return applyOf("Director", director.ObjectMeta, &wanted)
}

// DirectorDiffers says whether DirectorApply would change the object. Whether the
// director is alive is not its own to say.
func DirectorDiffers(cached *v1alpha1.Director, wanted v1alpha1.DirectorStatus) bool {
	have := cached.Status
	have.Conditions = slices.DeleteFunc(slices.Clone(have.Conditions), func(c metav1.Condition) bool { return c.Type == v1alpha1.ConditionAlive })
	have.Conditions, wanted.Conditions = byType(have.Conditions), byType(wanted.Conditions)
	return !equality.Semantic.DeepEqual(have, wanted)
}

// AliveManager is the field manager of the condition Alive of all Directors.
const AliveManager = "lvs-director/alive"

// Alive returns the condition Alive of a Director: reason says why it is not, and
// is empty if it is.
func Alive(director *v1alpha1.Director, reason, message string, now time.Time) metav1.Condition {
	notes := &sheet{previous: director.Status.Conditions, generation: director.Generation, now: now}
	if reason == "" {
		return notes.set(v1alpha1.ConditionAlive, metav1.ConditionTrue, v1alpha1.ReasonAlive, "the director's node and pod are ready")
	}
	return notes.set(v1alpha1.ConditionAlive, metav1.ConditionFalse, reason, message)
}

// AliveApply returns the apply configuration, for the status subresource, of the
// condition Alive alone.
func AliveApply(director *v1alpha1.Director, alive metav1.Condition) (*unstructured.Unstructured, error) {
	return applyOf("Director", director.ObjectMeta, &struct {
		Conditions []metav1.Condition `json:"conditions"`
	}{[]metav1.Condition{alive}})
}

// applyOf returns an object with nothing but what is needed to find it and its
// status, since an apply takes ownership of all that it holds.
func applyOf(kind string, object metav1.ObjectMeta, status any) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return nil, fmt.Errorf("writing the status of %s %s: %w", kind, object.Name, err)
	}
	apply := &unstructured.Unstructured{Object: map[string]any{"status": fields}}
	apply.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	apply.SetNamespace(object.Namespace)
	apply.SetName(object.Name)
	return apply, nil
}
