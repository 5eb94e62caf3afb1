package realserver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// obedient is an agent that prepares pods when it is told to, of those that it
// does not ignore.
type obedient struct {
	mu      sync.Mutex
	wanted  [][]Pod
	reports map[types.UID]Report
	ignored map[types.UID]bool
	err     error
	changed func()
}

func (o *obedient) Want(pods []Pod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted = append(o.wanted, pods)
	for _, pod := range pods {
		report := Report{UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name, Problem: "it is ignored"}
		if !o.ignored[pod.UID] {
			report.Sandbox, report.Problem = "sandbox-"+string(pod.UID), ""
			for _, vip := range pod.VIPs {
				report.VIPs = append(report.VIPs, vip.Addr)
			}
		}
		if o.reports == nil {
			o.reports = map[types.UID]Report{}
		}
		o.reports[pod.UID] = report
	}
	if o.changed != nil {
		o.changed()
	}
}

func (o *obedient) Reports() ([]Report, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []Report
	for _, report := range o.reports {
		all = append(all, report)
	}
	return all, o.err
}

// has is what the agent was last told that a pod is to have.
func (o *obedient) has(uid types.UID) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.wanted) == 0 {
		return nil
	}
	for _, pod := range o.wanted[len(o.wanted)-1] {
		if pod.UID == uid {
			return vipsOf(pod)
		}
	}
	return nil
}

func vipsOf(pod Pod) []string {
	var texts []string
	for _, vip := range pod.VIPs {
		texts = append(texts, vip.Addr.String())
	}
	return texts
}

// pool allows what the tests' VirtualServers ask for, but 198.51.100.0/24.
func pool() *v1alpha1.DirectorPool {
	return &v1alpha1.DirectorPool{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec: v1alpha1.DirectorPoolSpec{
			NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			Allow:        []v1alpha1.AllowRule{{Addresses: []v1alpha1.AddressRange{"192.0.2.0/24", "10.0.0.0/8"}}},
		},
	}
}

// setting is a node with a controller, on a fake API server and a clock of its
// own.
type setting struct {
	t      *testing.T
	api    client.WithWatch
	agent  *obedient
	now    time.Time
	made   *Controller
	broken bool
}

var errAway = errors.New("the API server is away")

func newSetting(t *testing.T, objects ...client.Object) *setting {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	s := &setting{t: t, agent: &obedient{ignored: map[types.UID]bool{}}, now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)}
	objects = append(objects,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a", UID: "node-uid"}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
		}},
		pool(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
	)
	s.api = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&corev1.Pod{}, &v1alpha1.RealServerNode{}).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		Build()
	s.restart()
	return s
}

// restart makes the controller anew; the agent stays as it is.
func (s *setting) restart() {
	live := interceptor.NewClient(s.api, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if s.broken {
				return errAway
			}
			return c.List(ctx, list, opts...)
		},
	})
	s.made = &Controller{
		Client: s.api, Live: live, Node: "node-a", Agent: s.agent, Prepare: plan.Preparations,
		Events: events.NewFakeRecorder(100), Now: func() time.Time { return s.now },
	}
}

// pass lets time go by and the controller work twice: what the agent does in
// the first is seen in the second.
func (s *setting) pass(after time.Duration) {
	s.t.Helper()
	s.now = s.now.Add(after)
	for range 2 {
		if _, err := s.made.Reconcile(s.t.Context(), request); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *setting) create(objects ...client.Object) {
	s.t.Helper()
	for _, object := range objects {
		if err := s.api.Create(s.t.Context(), object); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *setting) delete(objects ...client.Object) {
	s.t.Helper()
	for _, object := range objects {
		if err := s.api.Delete(s.t.Context(), object); err != nil {
			s.t.Fatal(err)
		}
	}
}

// gate returns the status and reason of a pod's gate: "True Prepared".
func (s *setting) gate(name string) string {
	s.t.Helper()
	var pod corev1.Pod
	if err := s.api.Get(s.t.Context(), types.NamespacedName{Namespace: "shop", Name: name}, &pod); err != nil {
		s.t.Fatal(err)
	}
	if condition := gate(&pod); condition != nil {
		return string(condition.Status) + " " + condition.Reason
	}
	return ""
}

func (s *setting) node() v1alpha1.RealServerNode {
	s.t.Helper()
	var node v1alpha1.RealServerNode
	if err := s.api.Get(s.t.Context(), types.NamespacedName{Name: "node-a"}, &node); err != nil {
		s.t.Fatal(err)
	}
	return node
}

// pod makes a pod of the node with the gate; app is its label.
func pod(name, app string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			NodeName:       "node-a",
			Containers:     []corev1.Container{{Name: "c", Image: "i"}},
			ReadinessGates: []corev1.PodReadinessGate{{ConditionType: v1alpha1.PodConditionRealServerReady}},
		},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}}},
	}
}

// selecting makes a VirtualServer that selects pods by their label app.
func selecting(name, app string, vips ...v1alpha1.IPAddress) *v1alpha1.VirtualServer {
	vs := &v1alpha1.VirtualServer{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}}
	vs.Spec.DirectorPoolName = "default"
	vs.Spec.Addresses = vips
	vs.Spec.Ports = []v1alpha1.Port{{Port: 80, Protocol: v1alpha1.ProtocolTCP}}
	vs.Spec.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	return vs
}

// naming makes a VirtualServer that names a Service, and the Service, which
// selects pods by their label app.
func naming(name, service, app string, vips ...v1alpha1.IPAddress) (*v1alpha1.VirtualServer, *corev1.Service) {
	vs := selecting(name, app, vips...)
	vs.Spec.PodSelector, vs.Spec.ServiceName = nil, service
	return vs, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: service},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

// endpoints makes a slice of a Service with these pods.
func endpoints(service string, pods ...*corev1.Pod) *discoveryv1.EndpointSlice {
	node := "node-a"
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, pod := range pods {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{pod.Status.PodIPs[0].IP}, NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		})
	}
	return slice
}
