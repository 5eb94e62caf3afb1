package election

import (
	"fmt"
	"math"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// Annotations of a Lease, beside the fields that every election uses.
const (
	// InstanceAnnotation tells the holder's process from an earlier one on its
	// node. It is the uid of the pod.
	InstanceAnnotation = "lvs-operator.io/instance"
	// EpochAnnotation counts acquisitions. leaseTransitions would not do: it
	// starts again with a Lease that was deleted.
	EpochAnnotation = "lvs-operator.io/epoch"
	// SuccessorAnnotation is the node that the holder released the Lease for.
	SuccessorAnnotation = "lvs-operator.io/successor"
	// RequestedByAnnotation is the node of a director that asks for the Lease.
	RequestedByAnnotation = "lvs-operator.io/requested-by"
)

// LeaseName returns the name of the Lease of a group of a DirectorPool.
func LeaseName(pool string, group int) string {
	return fmt.Sprintf("%s-%d", pool, group)
}

// claim is what a Lease says; two different claims are a change, whatever else
// of the object is edited.
type claim struct {
	holder, instance, successor string
	epoch                       int64
	duration                    time.Duration
	// renewed is renewTime in microseconds of Unix time.
	renewed int64
}

// claimOf reads a Lease. An epoch that is no number counts as none: whoever
// acquires the Lease writes a proper one.
func claimOf(object *coordinationv1.Lease) claim {
	c := claim{instance: object.Annotations[InstanceAnnotation], successor: object.Annotations[SuccessorAnnotation]}
	if object.Spec.HolderIdentity != nil {
		c.holder = *object.Spec.HolderIdentity
	}
	if epoch, err := strconv.ParseInt(object.Annotations[EpochAnnotation], 10, 64); err == nil {
		// A number that cannot be exceeded by hand must not stop the counting.
		c.epoch = min(max(epoch, 0), math.MaxInt64/2)
	}
	if object.Spec.LeaseDurationSeconds != nil {
		c.duration = time.Duration(*object.Spec.LeaseDurationSeconds) * time.Second
	}
	if object.Spec.RenewTime != nil {
		c.renewed = object.Spec.RenewTime.UnixMicro()
	}
	return c
}

// writer makes the objects that a director writes.
type writer struct {
	namespace, name string
	self            Self
}

// object returns the Lease as the decision wants it, made from the one that was
// last read so that labels, annotations and the resourceVersion stay.
func (w writer) object(d Decision, read *coordinationv1.Lease, now time.Time, duration time.Duration) *coordinationv1.Lease {
	object := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: w.name}}
	if d.Write != Create {
		object = read.DeepCopy()
	}
	if object.Annotations == nil {
		object.Annotations = map[string]string{}
	}
	if d.Write == Request {
		// It is no renewal.
		object.Annotations[RequestedByAnnotation] = w.self.Node
		return object
	}
	stamp := metav1.NewMicroTime(now)
	object.Spec.RenewTime = &stamp
	switch d.Write {
	case Create, Acquire:
		w.claim(object, d.Epoch, stamp, duration)
		object.Spec.LeaseTransitions = transitions(read, d.Write)
	case Renew:
		object.Spec.LeaseDurationSeconds = seconds(duration)
	case Release:
		object.Spec.HolderIdentity = new("")
		delete(object.Annotations, InstanceAnnotation)
		delete(object.Annotations, RequestedByAnnotation)
		delete(object.Annotations, SuccessorAnnotation)
		if d.Successor != "" {
			object.Annotations[SuccessorAnnotation] = d.Successor
		}
	case None, Request:
	}
	return object
}

func (w writer) claim(object *coordinationv1.Lease, epoch int64, stamp metav1.MicroTime, duration time.Duration) {
	object.Spec.HolderIdentity = &w.self.Node
	object.Spec.LeaseDurationSeconds = seconds(duration)
	object.Spec.AcquireTime = &stamp
	delete(object.Annotations, RequestedByAnnotation)
	delete(object.Annotations, SuccessorAnnotation)
	object.Annotations[InstanceAnnotation] = w.self.Instance
	object.Annotations[EpochAnnotation] = strconv.FormatInt(epoch, 10)
}

// transitions counts the acquisitions of this Lease object after the first, as
// client-go's leader election does.
func transitions(read *coordinationv1.Lease, write Write) *int32 {
	count := int32(0)
	if write == Acquire && read.Spec.LeaseTransitions != nil {
		count = max(*read.Spec.LeaseTransitions, 0)
	}
	if write == Acquire {
		count++
	}
	return &count
}

func seconds(d time.Duration) *int32 {
	return new(int32(math.Ceil(d.Seconds())))
}

// newer says whether a is a later version of the Lease than b. Versions that
// cannot be compared count as newer: it is better to believe the last word
// than none.
func newer(a, b *coordinationv1.Lease) bool {
	if b == nil {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order > 0
}
