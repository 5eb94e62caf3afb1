package virtualserver

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// makeSelecting makes a VirtualServer that selects pods by the label app.
func makeSelecting(name, app string, vips ...v1alpha1.IPAddress) *v1alpha1.VirtualServer {
	vs := makeServer(name, vips...)
	vs.Spec.RealServers = nil
	vs.Spec.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	return vs
}

func makeNaming(name, service string, vips ...v1alpha1.IPAddress) *v1alpha1.VirtualServer {
	vs := makeServer(name, vips...)
	vs.Spec.RealServers = nil
	vs.Spec.ServiceName = service
	return vs
}

func makePod(name, app, node, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": app},
			Annotations: map[string]string{v1alpha1.AnnotationWeight: "5", "elsewhere.example/checksum": "0123"},
		},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "web", Image: "web"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
}

func makeSlice(name, service string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service, "endpointslice.kubernetes.io/managed-by": "me"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(80))}},
		Endpoints:   endpoints,
	}
}

func endpointOf(pod *corev1.Pod) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses: []string{pod.Status.PodIP}, NodeName: &pod.Spec.NodeName, Zone: new("a"),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
}

func makeAgent(node string, pods ...v1alpha1.PreparedPod) *v1alpha1.RealServerNode {
	return &v1alpha1.RealServerNode{
		ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: v1alpha1.RealServerNodeSpec{NodeName: node},
		Status: v1alpha1.RealServerNodeStatus{Pods: pods, Conditions: []metav1.Condition{{Type: "Ready"}}},
	}
}

func preparedWith(pod *corev1.Pod, vips ...string) v1alpha1.PreparedPod {
	return v1alpha1.PreparedPod{UID: string(pod.UID), Name: pod.Name, Sandbox: "s1", PodAddresses: []string{pod.Status.PodIP}, Addresses: vips}
}

// filled are Workloads that have the kinds, out of c.
func filled(c client.Reader, has kinds) *Workloads {
	return &Workloads{reader: c, asked: has, filled: has}
}

const all = pods | endpointSlices | realServerNodes

func TestASnapshotHasThePodsEndpointsAndPreparations(t *testing.T) {
	web1, web2 := makePod("web-1", "web", "node-1", "10.0.0.1"), makePod("web-2", "web", "node-2", "10.0.0.2")
	mail := makePod("mail", "mail", "node-1", "10.0.0.3")
	db := makePod("db", "db", "", "")
	web2.DeletionTimestamp, web2.Finalizers = new(metav1.Now()), []string{"test.example/stay"}
	elsewhere := makePod("web-3", "web", "node-1", "10.0.0.4")
	elsewhere.Namespace = "other"
	leaving := endpointOf(web2)
	leaving.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
	gone := endpointOf(makePod("gone", "mail", "node-1", "10.0.0.9"))
	plain := discoveryv1.Endpoint{Addresses: []string{"192.168.11.77", "192.168.11.78"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false)}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Annotations: map[string]string{v1alpha1.AnnotationState: "Drained"}}}
	c := newClient(t, world(
		makeSelecting("web", "web", "192.168.11.200"), makeNaming("mail", "mail", "192.168.11.200"),
		web1, web2, mail, db, elsewhere, node,
		makeSlice("mail-1", "mail", endpointOf(mail), leaving), makeSlice("mail-2", "mail", gone, plain), makeSlice("db-1", "db", endpointOf(db)),
		// An agent speaks for its own node's pods alone.
		makeAgent("node-1", preparedWith(web1, "192.168.11.200"), preparedWith(web2, "192.168.11.200"), preparedWith(mail)),
	)...)

	site := siteOfDefault()
	site.Reach = func(netip.Addr) (plan.Reach, bool) { return plan.Reach{Link: "eth0"}, true }
	s, lacking, err := snapshot(t.Context(), c, filled(c, all), site, "default", keys("192.168.11.200")[0])
	if err != nil || lacking != 0 {
		t.Fatalf("lacking %b, %v", lacking, err)
	}
	weight := map[string]string{v1alpha1.AnnotationWeight: "5"}
	addr := netip.MustParseAddr
	wantPods := []plan.Pod{
		{
			Name: client.ObjectKeyFromObject(mail), UID: mail.UID, Node: "node-1", Labels: mail.Labels, Annotations: weight,
			Addresses: []netip.Addr{addr("10.0.0.3")}, Ready: true,
		},
		{
			Name: client.ObjectKeyFromObject(web1), UID: web1.UID, Node: "node-1", Labels: web1.Labels, Annotations: weight,
			Addresses: []netip.Addr{addr("10.0.0.1")}, Ready: true,
		},
		{
			Name: client.ObjectKeyFromObject(web2), UID: web2.UID, Node: "node-2", Labels: web2.Labels, Annotations: weight,
			Addresses: []netip.Addr{addr("10.0.0.2")}, Ready: true, Terminating: true,
		},
	}
	if diff := cmp.Diff(wantPods, s.Pods, addresses); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	ports := []plan.EndpointPort{{Name: "http", Protocol: netstate.TCP, Number: 80}}
	wantEndpoints := map[types.NamespacedName][]plan.Endpoint{{Namespace: "shop", Name: "mail"}: {
		{Addr: addr("10.0.0.3"), Ports: ports, Ready: true, Serving: true, Pod: mail.UID},
		{Addr: addr("10.0.0.2"), Ports: ports, Serving: true, Terminating: true, Pod: web2.UID},
		{Addr: addr("10.0.0.9"), Ports: ports, Ready: true, Serving: true, Pod: "uid-gone"},
		{Addr: addr("192.168.11.77"), Ports: ports},
	}}
	if diff := cmp.Diff(wantEndpoints, s.Endpoints, addresses); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	wantPrepared := map[types.UID]plan.Preparation{
		web1.UID: {PodAddresses: []netip.Addr{addr("10.0.0.1")}, VIPs: []netip.Addr{addr("192.168.11.200")}},
		mail.UID: {PodAddresses: []netip.Addr{addr("10.0.0.3")}},
	}
	if diff := cmp.Diff(wantPrepared, s.Prepared, addresses); diff != "" {
		t.Errorf("prepared (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"node-1": "Drained"}, s.NodeStates); diff != "" {
		t.Errorf("states of nodes (-want +got):\n%s", diff)
	}
	if reach, known := s.Reach(addr("10.0.0.1")); !known || reach.Link != "eth0" {
		t.Errorf("reach = %+v, %t", reach, known)
	}
}

// What is kept of an object in the cache must be all that plans depend on.
func TestNothingThatPlansDependOnIsStripped(t *testing.T) {
	pod := makePod("web-1", "web", "node-1", "10.0.0.1")
	pod.Spec.HostNetwork, pod.ManagedFields, pod.DeletionTimestamp = true, []metav1.ManagedFieldsEntry{{Manager: "m"}}, new(metav1.Now())
	kept, err := slimPod(pod.DeepCopy())
	slim, ok := kept.(*corev1.Pod)
	if err != nil || !ok {
		t.Fatal(kept, err)
	}
	if diff := cmp.Diff(PlanPod(pod), PlanPod(slim), addresses); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
	if len(slim.ManagedFields)+len(slim.Spec.Containers) > 0 || len(slim.Annotations) != 1 || len(slim.Status.Conditions) != 1 {
		t.Errorf("kept %+v", slim)
	}

	slice := makeSlice("web-1", "web", endpointOf(pod), discoveryv1.Endpoint{Addresses: []string{"10.0.0.2"}})
	kept, err = slimSlice(slice.DeepCopy())
	slimmed, ok := kept.(*discoveryv1.EndpointSlice)
	if err != nil || !ok {
		t.Fatal(kept, err)
	}
	if diff := cmp.Diff(PlanEndpoints(slice), PlanEndpoints(slimmed), addresses); diff != "" {
		t.Errorf("slice (-want +got):\n%s", diff)
	}
	for name, index := range map[string]client.IndexerFunc{"service": indexSliceService, "pods": indexSlicePods} {
		if diff := cmp.Diff(index(slice), index(slimmed)); diff != "" {
			t.Errorf("index by %s (-want +got):\n%s", name, diff)
		}
	}
	if slimmed.Endpoints[0].NodeName != nil || slimmed.Endpoints[0].Zone != nil || len(slimmed.Labels) != 1 {
		t.Errorf("kept %+v", slimmed)
	}

	agent := makeAgent("node-1", preparedWith(pod, "192.168.11.200"))
	kept, err = slimRealServerNode(agent.DeepCopy())
	node, ok := kept.(*v1alpha1.RealServerNode)
	if err != nil || !ok {
		t.Fatal(kept, err)
	}
	if diff := cmp.Diff(preparations(agent), preparations(node), addresses); diff != "" {
		t.Errorf("RealServerNode (-want +got):\n%s", diff)
	}
	if len(node.Status.Conditions) > 0 || node.Status.Pods[0].Sandbox != "" {
		t.Errorf("kept %+v", node)
	}
}

func TestEndpointPorts(t *testing.T) {
	for name, tc := range map[string]struct {
		port discoveryv1.EndpointPort
		want []plan.EndpointPort
	}{
		"nothing is said: all ports of TCP": {want: []plan.EndpointPort{{Protocol: netstate.TCP}}},
		"UDP":                               {discoveryv1.EndpointPort{Protocol: new(corev1.ProtocolUDP), Port: new(int32(53))}, []plan.EndpointPort{{Protocol: netstate.UDP, Number: 53}}},
		"SCTP":                              {discoveryv1.EndpointPort{Protocol: new(corev1.ProtocolSCTP), Port: new(int32(9))}, []plan.EndpointPort{{Protocol: netstate.SCTP, Number: 9}}},
		"a protocol that nobody knows":      {discoveryv1.EndpointPort{Protocol: new(corev1.Protocol("QUIC")), Port: new(int32(9))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, planPorts([]discoveryv1.EndpointPort{tc.port})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What needs workloads that are not there yet is neither planned nor removed;
// all else is.
func TestAPlanWaitsForTheWorkloadsThatItNeeds(t *testing.T) {
	c := newClient(t, world(
		makeSelecting("web", "web", "192.168.11.200"), makeNaming("mail", "mail", "192.168.11.201"), makeServer("static", "192.168.11.202"),
	)...)
	for name, tc := range map[string]struct {
		has                         kinds
		wantPlanned                 []netstate.Key
		wantAsked                   kinds
		wantWatched, wantSyncedCall int
	}{
		"nothing is there":         {0, keys("192.168.11.202"), all, 3, 0},
		"the slices are missing":   {pods | realServerNodes, keys("192.168.11.200", "192.168.11.202"), all, 1, 0},
		"the agents' word is":      {pods | endpointSlices, keys("192.168.11.202"), all, 1, 0},
		"everything is there":      {all, keys("192.168.11.200", "192.168.11.201", "192.168.11.202"), all, 0, 1},
		"the pods alone are there": {pods, keys("192.168.11.202"), all, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := &programmer{site: siteOfDefault(), served: keys("192.168.11.200", "192.168.11.201")}
			watched := 0
			planner := &Planner{
				Reader: c, Live: c, Director: p, Workloads: filled(c, tc.has),
				watch: func(source.TypedSource[netstate.Key]) error { watched++; return nil },
			}
			for range 2 { // what is asked for once is not asked for again
				if _, err := planner.Reconcile(t.Context(), synced); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tc.wantPlanned, p.programmed(), addresses); diff != "" {
				t.Errorf("planned (-want +got):\n%s", diff)
			}
			if len(p.removed) > 0 {
				t.Errorf("removed %v", p.removed)
			}
			if planner.Workloads.asked != tc.wantAsked || watched != tc.wantWatched || len(p.synced) != 2*tc.wantSyncedCall {
				t.Errorf("asked for %b, watches %d, synced %v", planner.Workloads.asked, watched, p.synced)
			}
			// Nor does a director take out of service what it cannot plan yet.
			wanted, err := planner.Confirm(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(keys("192.168.11.200", "192.168.11.201", "192.168.11.202"), sortedKeys(wanted), addresses); diff != "" {
				t.Errorf("confirmed (-want +got):\n%s", diff)
			}
		})
	}
}

// Even what would be refused is not taken out of service before all is known that
// its plan depends on.
func TestNothingIsRemovedForLackOfWorkloads(t *testing.T) {
	c := newClient(t, world(makeSelecting("gateway", "web", "192.168.11.1"))...)
	for has, want := range map[kinds][]netstate.Key{0: keys("192.168.11.1"), all: nil} {
		p := &programmer{site: siteOfDefault()}
		planner := &Planner{
			Reader: c, Live: c, Director: p, Workloads: filled(c, has),
			watch: func(source.TypedSource[netstate.Key]) error { return nil },
		}
		if _, err := planner.Reconcile(t.Context(), keys("192.168.11.1")[0]); err != nil {
			t.Fatal(err)
		}
		wanted, err := planner.Confirm(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := sortedKeys(wanted); !slices.Equal(got, want) || (len(p.removed) == 0) != (has == 0) {
			t.Errorf("with %b: confirmed %v, want %v; removed %v", has, got, want, p.removed)
		}
	}
}

func TestNothingIsWatchedThatNobodyNeeds(t *testing.T) {
	other := makeSelecting("other", "web", "192.168.11.201")
	other.Spec.DirectorPoolName = "another"
	c := newClient(t, world(makeServer("static", "192.168.11.200"), other)...)
	p := &programmer{site: siteOfDefault()}
	planner := &Planner{Reader: c, Live: c, Director: p, Workloads: filled(c, 0)}
	if _, err := planner.Reconcile(t.Context(), synced); err != nil {
		t.Fatal(err)
	}
	if planner.Workloads.asked != 0 || len(p.synced) != 1 {
		t.Errorf("asked for %b, synced %v", planner.Workloads.asked, p.synced)
	}
}
