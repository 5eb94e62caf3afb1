package election

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// version returns a Lease as the API server has it.
func version(resourceVersion, holder, instance, epoch string, renewed int) *coordinationv1.Lease {
	stamp := metav1.NewMicroTime(at(renewed))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: "pool-0", ResourceVersion: resourceVersion,
			Annotations: map[string]string{InstanceAnnotation: instance, EpochAnnotation: epoch},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &holder, LeaseDurationSeconds: new(int32(3)), RenewTime: &stamp,
		},
	}
}

func fresh() *belief {
	return &belief{self: Self{Node: "a", Instance: "a1", Candidate: true}, duration: duration}
}

func TestBelief(t *testing.T) {
	byOther := func(resourceVersion string, renewed int) *coordinationv1.Lease {
		return version(resourceVersion, "b", "b1", "7", renewed)
	}
	byUs := func(resourceVersion string, renewed int) *coordinationv1.Lease {
		return version(resourceVersion, "a", "a1", "8", renewed)
	}
	acquire, renew := Decision{Write: Acquire, Reason: Expired}, Decision{Write: Renew}

	wrote := func(b *belief, now, sent int, d Decision, object *coordinationv1.Lease) {
		b.sending(at(sent), d)
		b.wrote(at(now), object)
	}

	awake := func(b *belief, from, to int) {
		for ms := from; ms <= to; ms += 50 {
			b.decide(at(ms))
		}
	}

	cases := map[string]struct {
		happens func(b *belief)
		now     int
		want    Decision
	}{
		"a successor that was heard is not forgotten before the release is answered": {
			happens: func(b *belief) {
				wrote(b, 0, 0, acquire, byUs("5", 0))
				awake(b, 0, 300)
				b.sending(at(300), Decision{Write: Release, Successor: "b", Why: Cordoned})
				awake(b, 300, 350)
				b.heard(at(360), at(360))
				awake(b, 360, 410)
			},
			now: 460, want: Decision{Epoch: 8, Reason: Cordoned},
		},
		"who heard another goes on if the release was refused": {
			happens: func(b *belief) {
				wrote(b, 0, 0, acquire, byUs("5", 0))
				awake(b, 0, 300)
				b.sending(at(300), Decision{Write: Release, Successor: "b", Why: Cordoned})
				b.heard(at(350), at(350))
				awake(b, 350, 350)
				b.refused(at(400))
				b.read(at(450), at(410), byUs("6", 0))
			},
			now: 460, want: Decision{Announce: true, Confirmed: true, Epoch: 8, NextAt: at(1000), Reason: Holding},
		},
		"a successor that has released the Lease again was one": {
			happens: func(b *belief) {
				wrote(b, 0, 0, acquire, byUs("5", 0))
				awake(b, 0, 300)
				wrote(b, 310, 300, Decision{Write: Release, Successor: "b", Why: Cordoned}, version("6", "", "", "8", 300))
				b.event(at(320), version("8", "", "", "9", 315), false)
				awake(b, 320, 800)
			},
			now: 820, want: Decision{Epoch: 9, Reason: Cordoned},
		},
		"a renewal starts the observer's clock when it is seen": {
			happens: func(b *belief) {
				b.read(at(100), at(50), byOther("5", 0))
				b.event(at(1200), byOther("6", 1000), false)
			},
			now: 2000, want: Decision{Epoch: 7, NextAt: at(4200), Reason: HeldByOther},
		},
		"an edit that is no renewal does not start it": {
			happens: func(b *belief) {
				b.read(at(100), at(50), byOther("5", 0))
				b.event(at(1200), byOther("6", 0), false)
			},
			now: 2000, want: Decision{Epoch: 7, NextAt: at(3100), Reason: HeldByOther},
		},
		"a renewal counts from when it was sent": {
			happens: func(b *belief) { wrote(b, 900, 100, acquire, byUs("6", 100)) },
			now:     950,
			want:    Decision{Announce: true, Confirmed: true, Epoch: 8, NextAt: at(1100), Reason: Holding},
		},
		"a write whose answer is lost is confirmed by an event": {
			happens: func(b *belief) {
				b.sending(at(100), acquire)
				b.event(at(900), byUs("6", 100), false)
			},
			now: 950, want: Decision{Announce: true, Confirmed: true, Epoch: 8, NextAt: at(1100), Reason: Holding},
		},
		"an event from before our write is old": {
			happens: func(b *belief) {
				wrote(b, 900, 100, acquire, byUs("6", 100))
				b.event(at(950), byOther("5", 0), false)
			},
			now: 960, want: Decision{Announce: true, Confirmed: true, Epoch: 8, NextAt: at(1100), Reason: Holding},
		},
		"an event after our write may come before its answer": {
			happens: func(b *belief) {
				b.sending(at(100), acquire)
				b.event(at(800), byOther("7", 700), false)
				b.wrote(at(900), byUs("6", 100))
			},
			now: 960, want: Decision{Epoch: 7, NextAt: at(3800), Reason: HeldByOther},
		},
		"a deletion from before our write is old": {
			happens: func(b *belief) {
				wrote(b, 900, 100, acquire, byUs("6", 100))
				b.event(at(950), byOther("5", 0), true)
			},
			now: 960, want: Decision{Announce: true, Confirmed: true, Epoch: 8, NextAt: at(1100), Reason: Holding},
		},
		"a GET that was sent before our write was answered is old": {
			happens: func(b *belief) {
				wrote(b, 900, 100, acquire, byUs("6", 100))
				b.read(at(950), at(80), byOther("5", 0))
				b.read(at(955), at(85), nil)
			},
			now: 960, want: Decision{Announce: true, Confirmed: true, Epoch: 8, NextAt: at(1100), Reason: Holding},
		},
		"a later GET is believed whatever its version": {
			happens: func(b *belief) {
				wrote(b, 900, 100, acquire, byUs("600", 100))
				b.read(at(1000), at(950), byOther("5", 0))
			},
			now: 1000, want: Decision{Epoch: 8, NextAt: at(4000), Reason: HeldByOther},
		},
		"after a conflict nothing is written before a read that was sent later": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				b.refused(at(1200))
				b.read(at(1300), at(1100), byUs("6", 100))
			},
			now: 1300, want: Decision{Announce: true, Confirmed: true, Epoch: 8, NextAt: at(2950), Reason: Holding},
		},
		"after a conflict and a read the renewal goes on": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				b.refused(at(1200))
				b.read(at(1300), at(1200), byUs("6", 100))
			},
			now:  1300,
			want: Decision{Announce: true, Confirmed: true, Write: Renew, Epoch: 8, NextAt: at(2950), Reason: Holding},
		},
		"a write without an answer leaves doubt and a failure": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				awake(b, 200, 2900)
				b.unanswered(at(2900), at(1900))
			},
			now: 4000, want: Decision{Announce: true, Epoch: 8, NextAt: at(5900), Reason: HoldingUnconfirmed},
		},
		"a request that the process slept through says nothing of the API": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				b.decide(at(1100))
				b.decide(at(9000))
				b.unanswered(at(9000), at(1100))
				b.read(at(9000), at(9000), byUs("6", 100))
			},
			now: 9000, want: Decision{Write: Renew, Epoch: 8, Reason: Stalled},
		},
		"a request that was sent after a stall does": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				b.decide(at(1100))
				b.decide(at(9000))
				awake(b, 9000, 10_050)
				b.failed(at(10_050), at(9050))
			},
			now:  10_050,
			want: Decision{Announce: true, Write: Renew, Epoch: 8, NextAt: at(13_050), Reason: HoldingUnconfirmed},
		},
		"an answer that comes after a stall is worth what is left of it": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				b.decide(at(200))
				wrote(b, 9000, 1100, renew, byUs("7", 1100))
			},
			now: 9000, want: Decision{Write: Renew, Epoch: 8, Reason: Stalled},
		},
		"who wakes to find the Lease deleted has not been announcing": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				b.decide(at(200))
				b.event(at(9000), byUs("9", 8000), true)
			},
			now: 9000, want: Decision{Epoch: 8, NextAt: at(12_000), Reason: Absent},
		},
		"who saw the Lease deleted makes it anew": {
			happens: func(b *belief) {
				wrote(b, 200, 100, acquire, byUs("6", 100))
				b.decide(at(200))
				b.event(at(300), byUs("9", 200), true)
			},
			now: 300, want: Decision{Announce: true, Write: Create, Epoch: 9, Reason: Reclaiming},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			b := fresh()
			tc.happens(b)
			tc.want.At = at(tc.now)
			got := b.decide(at(tc.now))
			got.Holder = "" // TestDecisionsAreSound has a word on it
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGapIsCountedFromTheLastSignOfAHolder(t *testing.T) {
	b := fresh()
	b.read(at(0), at(0), version("5", "b", "b1", "7", 0))
	b.sending(at(3100), Decision{Write: Acquire, Reason: Expired})
	b.wrote(at(3200), version("6", "a", "a1", "8", 3100))
	b.event(at(3300), version("6", "a", "a1", "8", 3100), false)
	want := acquisition{reason: Expired, since: at(0)}
	if b.acquired != want {
		t.Errorf("acquired %+v, want %+v", b.acquired, want)
	}
}

func TestWrites(t *testing.T) {
	read := version("5", "b", "b1", "7", 0)
	read.Labels = map[string]string{"team": "net"}
	read.Annotations["note"] = "kept"
	read.Annotations[RequestedByAnnotation], read.Annotations[SuccessorAnnotation] = "c", "c"
	read.Spec.LeaseTransitions = new(int32(4))
	acquiredAt := metav1.NewMicroTime(at(-5000))
	read.Spec.AcquireTime = &acquiredAt
	now := metav1.NewMicroTime(at(2000))
	w := writer{namespace: "system", name: "pool-0", self: Self{Node: "a", Instance: "a1"}}

	cases := map[string]struct {
		decision Decision
		want     func() *coordinationv1.Lease
	}{
		"an acquisition counts and stamps": {
			decision: Decision{Write: Acquire, Epoch: 8},
			want: func() *coordinationv1.Lease {
				l := read.DeepCopy()
				l.Annotations = map[string]string{"note": "kept", InstanceAnnotation: "a1", EpochAnnotation: "8"}
				l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = new("a"), new(int32(3))
				l.Spec.AcquireTime, l.Spec.RenewTime, l.Spec.LeaseTransitions = &now, &now, new(int32(5))
				return l
			},
		},
		"a renewal stamps": {
			decision: Decision{Write: Renew, Epoch: 7},
			want: func() *coordinationv1.Lease {
				l := read.DeepCopy()
				l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = new(int32(3)), &now
				return l
			},
		},
		"a release leaves the epoch": {
			decision: Decision{Write: Release, Epoch: 7},
			want: func() *coordinationv1.Lease {
				l := read.DeepCopy()
				l.Annotations = map[string]string{"note": "kept", EpochAnnotation: "7"}
				l.Spec.HolderIdentity, l.Spec.RenewTime = new(""), &now
				return l
			},
		},
		"a release names the successor": {
			decision: Decision{Write: Release, Epoch: 7, Successor: "a"},
			want: func() *coordinationv1.Lease {
				l := read.DeepCopy()
				l.Annotations = map[string]string{"note": "kept", EpochAnnotation: "7", SuccessorAnnotation: "a"}
				l.Spec.HolderIdentity, l.Spec.RenewTime = new(""), &now
				return l
			},
		},
		"a request renews nothing": {
			decision: Decision{Write: Request, Epoch: 7},
			want: func() *coordinationv1.Lease {
				l := read.DeepCopy()
				l.Annotations[RequestedByAnnotation] = "a"
				return l
			},
		},
		"a new Lease takes nothing from an old one": {
			decision: Decision{Write: Create, Epoch: 8},
			want: func() *coordinationv1.Lease {
				return &coordinationv1.Lease{
					ObjectMeta: metav1.ObjectMeta{
						Namespace: "system", Name: "pool-0",
						Annotations: map[string]string{InstanceAnnotation: "a1", EpochAnnotation: "8"},
					},
					Spec: coordinationv1.LeaseSpec{
						HolderIdentity: new("a"), LeaseDurationSeconds: new(int32(3)),
						AcquireTime: &now, RenewTime: &now, LeaseTransitions: new(int32(0)),
					},
				}
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := read.DeepCopy()
			got := w.object(tc.decision, read, at(2000), 2500*time.Millisecond)
			if diff := cmp.Diff(tc.want(), got); diff != "" {
				t.Errorf("object() (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, read); diff != "" {
				t.Errorf("object() changed the Lease it started from:\n%s", diff)
			}
		})
	}
}

func TestALeaseWithoutAnythingIsVacant(t *testing.T) {
	if diff := cmp.Diff(claim{}, claimOf(&coordinationv1.Lease{}), cmp.AllowUnexported(claim{})); diff != "" {
		t.Errorf("claimOf() (-want +got):\n%s", diff)
	}
}

func FuzzClaimOf(f *testing.F) {
	f.Add("7", "a1", "a", int32(3))
	f.Add("-1", "", "", int32(-1))
	f.Add("9223372036854775807", "x", "y", int32(0))
	f.Add("seven", "", "", int32(2147483647))
	f.Fuzz(func(t *testing.T, epoch, instance, holder string, seconds int32) {
		l := version("1", holder, instance, epoch, 0)
		l.Spec.LeaseDurationSeconds = &seconds
		c := claimOf(l)
		if c.epoch < 0 || c.epoch+1 < c.epoch {
			t.Errorf("epoch %q became %d, which cannot be counted on from", epoch, c.epoch)
		}
		b := fresh()
		b.read(at(0), at(0), l)
		if d := b.decide(at(0)); !d.NextAt.IsZero() && !d.NextAt.After(at(0)) {
			t.Errorf("next decision at %s", d.NextAt)
		}
	})
}
