package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/director"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

// Outcome implements directorcontroller.Reported.
func (m member) Outcome() conditions.DirectorOutcome { return outcomeOf(m.c.director.Status()) }

// outcomeOf says in the words of the API how a director finds itself.
func outcomeOf(s director.Status) conditions.DirectorOutcome {
	outcome := conditions.DirectorOutcome{
		Address: s.Address, IPv6Address: s.IPv6Address, Interface: s.Link.Name, MAC: s.Link.MAC.String(),
		KernelVersion:       s.Facts.Release,
		ConnectionTableSize: int64(s.Facts.ConnectionTableSize),
		RolePending:         s.RolePending,
		TotalGroups:         int32(max(s.Groups, 1)),
		Counts: v1alpha1.DirectorCounts{
			VirtualIPs: int32(s.VIPs), Services: int32(s.Services), Destinations: int32(s.Destinations),
		},
		Programmed: s.Programmed,
		Failure:    failureOf(s.Err),
		Waiting:    waitingOf(s.Waiting),
		Lacking:    lackingOf(s.Failures),
		Refused:    refusedOf(s.Refused),
		IPVS:       ipvsOf(s),
		API:        conditions.APIUnreachable,
		Answering:  answeringOf(s),

		SyncAddress: s.Sync.Source,
		Syncing:     syncingOf(s),
	}
	if s.APIReachable {
		outcome.API = conditions.APIReachable
	}
	for name, usable := range s.Facts.Schedulers {
		if usable {
			outcome.Schedulers = append(outcome.Schedulers, name)
		}
	}
	slices.Sort(outcome.Schedulers)
	for _, g := range s.Active {
		outcome.Groups = append(outcome.Groups, v1alpha1.GroupStatus{Group: int32(g.Group), Epoch: g.Epoch, Since: timeOf(g.Since)})
	}
	for _, conflict := range s.Conflicts {
		outcome.Conflicts = append(outcome.Conflicts, conditions.Conflict{Addr: conflict.VIP, MAC: conflict.MAC.String(), Peer: conflict.Peer})
	}
	if s.Last != nil {
		outcome.LastTransition = new(transitionOf(*s.Last, s.Groups))
	}
	outcome.Transitions = map[int32]v1alpha1.DirectorTransition{}
	for _, t := range s.Transitions {
		outcome.Transitions[int32(t.Group)] = transitionOf(t, s.Groups)
	}
	return outcome
}

// lackingOf names the first thing that the kernel's IPVS lacks.
func lackingOf(failures []director.Failure) conditions.Failure {
	for _, failure := range failures {
		if named := failureOf(failure.Err); named.Reason == v1alpha1.ReasonSchedulerUnavailable {
			named.Message = fmt.Sprintf("%s: %s", failure.Key, named.Message)
			return named
		}
	}
	return conditions.Failure{}
}

// refusedOf names the first key that the kernel refuses, and says how many there
// are.
func refusedOf(refused []director.Failure) conditions.Failure {
	if len(refused) == 0 {
		return conditions.Failure{}
	}
	named := failureOf(refused[0].Err)
	named.Message = fmt.Sprintf("%d VIPs; %s: %s", len(refused), refused[0].Key, named.Message)
	return named
}

// waitingOf names what keeps a director from becoming active.
func waitingOf(w director.Waiting) conditions.Failure {
	reasons := map[director.Wait]string{
		director.WaitingForPool:      v1alpha1.ReasonNoDirectorPool,
		director.WaitingForNode:      v1alpha1.ReasonStarting,
		director.WaitingForLink:      v1alpha1.ReasonLinkDown,
		director.WaitingForPlan:      v1alpha1.ReasonStarting,
		director.WaitingForKernel:    v1alpha1.ReasonStarting,
		director.WaitingForVerdicts:  v1alpha1.ReasonWaitingForVerdicts,
		director.WaitingForPeer:      v1alpha1.ReasonPeerKernelAnswers,
		director.WaitingForPeerGuard: v1alpha1.ReasonUnknownToPeer,
	}
	return conditions.Failure{Reason: reasons[w.For], Message: w.Message}
}

func ipvsOf(s director.Status) conditions.IPVS {
	switch {
	case s.Facts.IPVS:
		return conditions.IPVSAvailable
	case s.Facts.Release != "":
		return conditions.IPVSMissing
	default:
		return conditions.IPVSUnknown
	}
}

func answeringOf(s director.Status) conditions.Answering {
	switch {
	case s.KernelAnswers:
		return conditions.AnsweringAlone
	case s.Announcing:
		return conditions.AnsweringPeer
	default:
		return conditions.AnsweringStandby
	}
}

// syncingOf says how connections are shared. A director that belongs to no pool
// has nobody to share them with.
func syncingOf(s director.Status) conditions.Syncing {
	syncing := conditions.Syncing{Disabled: s.Pool != "" && !s.Sync.Enabled, Running: s.Sync.Running}
	if s.Sync.Cold {
		syncing.ColdUntil = s.Sync.ColdUntil.Round(time.Second)
	}
	switch {
	case s.Sync.Err == nil:
	case errors.Is(s.Sync.Err, kernel.ErrSyncDaemonTaken):
		syncing.Failure = conditions.Failure{Reason: v1alpha1.ReasonSyncDaemonTaken, Message: s.Sync.Err.Error()}
	default:
		syncing.Failure = conditions.Failure{Reason: v1alpha1.ReasonSyncFailed, Message: s.Sync.Err.Error()}
	}
	return syncing
}

// transitionOf tells of a transition in a pool of so many groups: of one alone it
// need not say which.
func transitionOf(last director.Transition, groups int) v1alpha1.DirectorTransition {
	role, of := "Standby", ""
	if last.Active {
		role = "Active"
	}
	if groups > 1 {
		of = fmt.Sprintf(" for group %d", last.Group)
	}
	t := v1alpha1.DirectorTransition{Reason: role + of + ": " + last.Reason, Time: timeOf(last.At)}
	if last.Gap > 0 {
		t.Gap = &metav1.Duration{Duration: last.Gap.Round(time.Millisecond)}
	}
	return t
}

// timeOf returns the time as the API stores it, so that what is read back
// equals what was written.
func timeOf(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

// failureOf names what keeps a director from serving.
func failureOf(err error) conditions.Failure {
	var scheduler kernel.SchedulerUnavailable
	switch {
	case err == nil, errors.Is(err, director.ErrPending), errors.Is(err, director.ErrUnconfirmed),
		errors.Is(err, director.ErrDirectorsUnknown):
		return conditions.Failure{}
	case errors.Is(err, kernel.ErrNoIPVS):
		return conditions.Failure{Reason: v1alpha1.ReasonIPVSUnavailable, Message: "the kernel has no IPVS (module ip_vs)"}
	case errors.Is(err, director.ErrKubeProxyIPVS):
		return conditions.Failure{Reason: v1alpha1.ReasonKubeProxyIPVS, Message: err.Error()}
	case errors.As(err, &scheduler):
		return conditions.Failure{Reason: v1alpha1.ReasonSchedulerUnavailable, Message: scheduler.Error()}
	default:
		return conditions.Failure{Reason: v1alpha1.ReasonKernelError, Message: err.Error()}
	}
}
