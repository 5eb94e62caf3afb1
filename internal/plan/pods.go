package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// selection is what a VirtualServer names real servers by that it does not write
// down.
type selection struct {
	// selector is nil if there is none.
	selector labels.Selector
	// service is empty if there is none.
	service string
}

func readSelection(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	selected, err := selectionOf(spec)
	c.selection = selected
	return err
}

// selectionOf returns what can be read, with an error if that is not all.
func selectionOf(spec *v1alpha1.VirtualServerSpec) (selection, error) {
	selected := selection{service: spec.ServiceName}
	if spec.PodSelector == nil {
		return selected, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.PodSelector)
	if err != nil {
		return selected, fmt.Errorf("podSelector: %w", err)
	}
	selected.selector = selector
	return selected, nil
}

// selects says whether the podSelector selects a pod of its namespace.
func (s *selection) selects(pod *Pod) bool {
	return s.selector != nil && s.selector.Matches(labels.Set(pod.Labels))
}

// podIndex finds pods.
type podIndex struct {
	byUID       map[types.UID]*Pod
	byNamespace map[string][]*Pod
}

// indexPods leaves out those that have finished: they answer nothing, and their
// addresses may be others' by now.
func indexPods(all []Pod) podIndex {
	index := podIndex{byUID: make(map[types.UID]*Pod, len(all)), byNamespace: map[string][]*Pod{}}
	for i := range all {
		pod := &all[i]
		if pod.Finished || pod.UID == "" {
			continue
		}
		index.byUID[pod.UID] = pod
		index.byNamespace[pod.Name.Namespace] = append(index.byNamespace[pod.Name.Namespace], pod)
	}
	return index
}

// selected offers the pods that the podSelector selects.
func (s *sources) selected(c *claim, offer func(*candidate)) {
	if c.selection.selector == nil {
		return
	}
	for _, pod := range s.pods.byNamespace[c.name.Namespace] {
		if !c.selection.selects(pod) {
			continue
		}
		for _, addr := range pod.Addresses {
			if !s.ofFamily(addr) {
				continue
			}
			next := s.podCandidate(addr, pod, c)
			next.anyPort = true
			if !pod.Ready {
				next.unready = "its pod is not ready"
			}
			offer(next)
		}
	}
}

// podCandidate returns a pod as a real server, whoever named it.
func (s *sources) podCandidate(addr netip.Addr, pod *Pod, c *claim) *candidate {
	next := &candidate{addr: addr, source: ofPod, pod: pod, uid: pod.UID, standing: newStanding(), unready: s.unready(addr)}
	if pod.Terminating {
		next.leaving = "its pod is being deleted"
	}
	unread := next.readAnnotations(pod)
	s.readNodeState(pod.Node, &next.standing)
	c.drained.apply(addr, &next.standing)
	next.left = s.court.judgePod(addr, pod, c)
	if next.left == nil && addr == c.policy.sorry {
		next.left = refuse(v1alpha1.ReasonPodNotUsable, "its address %s is the sorry server's", addr)
	}
	if next.left == nil {
		next.left = s.adjacent(addr)
	}
	if next.left == nil {
		next.left = unread
	}
	if next.left == nil {
		next.left = s.prepared(addr, pod)
	}
	return next
}

// readAnnotations reads the pod's weight and state. A value that cannot be read
// is not guessed at: a weight nobody asked for, or a server that somebody
// thinks drained, is worse than one server less, which status tells of.
func (c *candidate) readAnnotations(pod *Pod) *refusal {
	c.weight = defaultWeight
	if text, ok := pod.Annotations[v1alpha1.AnnotationWeight]; ok {
		weight, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return refuse(v1alpha1.ReasonPodNotUsable, "annotation %s of pod %s is %.40q: it must be a number from 0 to 65535",
				v1alpha1.AnnotationWeight, pod.Name.Name, text)
		}
		c.weight = uint32(weight)
	}
	if text, ok := pod.Annotations[v1alpha1.AnnotationState]; ok {
		state := v1alpha1.RealServerState(text)
		if !isState(state) {
			return refuse(v1alpha1.ReasonPodNotUsable, "annotation %s of pod %s is %.40q: it must be Enabled, Drained or Disabled",
				v1alpha1.AnnotationState, pod.Name.Name, text)
		}
		c.add(state, "an annotation of the pod")
	}
	return nil
}

// readNodeState adds what the annotation of the pod's node wants. One that cannot
// be read is told of and no more, since all pods of the node would go with it.
func (s *sources) readNodeState(node string, to *standing) {
	text, ok := s.snapshot.NodeStates[node]
	if !ok {
		return
	}
	state := v1alpha1.RealServerState(text)
	if !isState(state) {
		to.notes = append(to.notes, fmt.Sprintf("annotation %s of node %s is %.40q, and means nothing: it must be Enabled, Drained or Disabled",
			v1alpha1.AnnotationState, node, text))
		return
	}
	to.add(state, "an annotation of node "+node)
}

// prepared says why the pod is not ready to be sent packets for the VIP, if so.
// Without the VIP it would drop them; with it and without the sysctls it would
// answer for it. In the network of a director it is prepared as that director is.
func (s *sources) prepared(addr netip.Addr, pod *Pod) *refusal {
	if s.court.directorOf(addr, pod) != "" {
		return nil
	}
	vip := s.snapshot.Key.Addr
	preparation, told := s.snapshot.Prepared[pod.UID]
	switch {
	case !told:
		return refuse(v1alpha1.ReasonNotPrepared, "no agent on node %s tells of it", pod.Node)
	case !slices.Contains(preparation.PodAddresses, addr):
		return refuse(v1alpha1.ReasonNotPrepared, "the agent of node %s has not yet prepared the network namespace that has %s", pod.Node, addr)
	case !slices.Contains(preparation.VIPs, vip):
		return refuse(v1alpha1.ReasonNotPrepared, "the agent of node %s has not yet given it %s", pod.Node, vip)
	default:
		return nil
	}
}
