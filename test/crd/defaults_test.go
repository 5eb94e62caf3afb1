//go:build envtest

package crd

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

func TestDefaultsOfVirtualServer(t *testing.T) {
	weight := int32(1)
	want := v1alpha1.VirtualServerSpec{
		DirectorPoolName: "default",
		Addresses:        []v1alpha1.IPAddress{"192.168.11.200"},
		Ports:            []v1alpha1.Port{{Port: 80, Protocol: v1alpha1.ProtocolTCP}},
		Scheduler:        v1alpha1.SchedulerWeightedLeastConnection,
		ForwardingMethod: v1alpha1.ForwardingMethodDR,
		Persistence:      &v1alpha1.Persistence{Timeout: metav1.Duration{Duration: 5 * time.Minute}, IPv4PrefixLength: 32, IPv6PrefixLength: 128},
		RealServers:      []v1alpha1.RealServer{{Address: "192.168.11.135", Weight: &weight, State: v1alpha1.RealServerEnabled}},
		HealthChecks: []v1alpha1.HealthCheck{{
			Name:             "default",
			Type:             v1alpha1.HealthCheckTCP,
			Interval:         metav1.Duration{Duration: 2 * time.Second},
			Timeout:          metav1.Duration{Duration: time.Second},
			FailureThreshold: 3,
			SuccessThreshold: 2,
			RetryInterval:    metav1.Duration{Duration: time.Second},
			InitialState:     v1alpha1.InitialStateDown,
		}},
		OnFailure: v1alpha1.OnFailureRemove,
		Quorum:    &v1alpha1.Quorum{MinimumWeight: intstr.FromInt32(1)},
		Drain:     &v1alpha1.Drain{Timeout: &metav1.Duration{Duration: 30 * time.Second}},
		SlowStart: &v1alpha1.SlowStart{},
	}

	var got v1alpha1.VirtualServer
	made := object(t, "VirtualServer", `{spec: {persistence: {}, healthChecks: [{}], quorum: {}, drain: {}, slowStart: {}}}`)
	admit(t, made, &got)
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("spec differs (-want +got):\n%s", diff)
	}
	if duration, _, _ := unstructured.NestedString(made.Object, "spec", "slowStart", "duration"); duration != "0s" {
		t.Errorf("slowStart.duration %q, want 0s", duration)
	}
}

// TestDefaultsAreNotMadeOfNothing shows that what changes behaviour when it is
// left out is not filled in.
func TestDefaultsAreNotMadeOfNothing(t *testing.T) {
	var got v1alpha1.VirtualServer
	admit(t, object(t, "VirtualServer", `{spec: {realServers: []}}`), &got)
	want := v1alpha1.VirtualServerSpec{
		DirectorPoolName: "default",
		Addresses:        []v1alpha1.IPAddress{"192.168.11.200"},
		Ports:            []v1alpha1.Port{{Port: 80, Protocol: v1alpha1.ProtocolTCP}},
		Scheduler:        v1alpha1.SchedulerWeightedLeastConnection,
		ForwardingMethod: v1alpha1.ForwardingMethodDR,
		RealServers:      []v1alpha1.RealServer{},
		OnFailure:        v1alpha1.OnFailureRemove,
	}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("spec differs (-want +got):\n%s", diff)
	}
}

// TestAnEmptyListIsASource shows that no real servers at all, written down from
// Go, are not the same as a list that was forgotten; and that the other sources
// need no list, nor get one.
func TestAnEmptyListIsASource(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.VirtualServerSpec)
		want   string
	}{
		"none at all":     {change: func(*v1alpha1.VirtualServerSpec) {}, want: noSource},
		"an empty list":   {change: func(s *v1alpha1.VirtualServerSpec) { s.RealServers = []v1alpha1.RealServer{} }},
		"a pod selector":  {change: func(s *v1alpha1.VirtualServerSpec) { s.PodSelector = &metav1.LabelSelector{} }},
		"a Service":       {change: func(s *v1alpha1.VirtualServerSpec) { s.ServiceName = "web" }},
		"an empty string": {change: func(s *v1alpha1.VirtualServerSpec) { s.ServiceName = "" }, want: noSource},
	} {
		t.Run(name, func(t *testing.T) {
			made := &v1alpha1.VirtualServer{
				ObjectMeta: metav1.ObjectMeta{Name: "source", Namespace: "default"},
				Spec: v1alpha1.VirtualServerSpec{
					Addresses: []v1alpha1.IPAddress{"192.168.11.200"},
					Ports:     []v1alpha1.Port{{Port: 80}},
				},
			}
			tc.change(&made.Spec)
			hadList := made.Spec.RealServers != nil
			err := server.Client.Create(t.Context(), made, client.DryRunAll)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if has := made.Spec.RealServers != nil; err == nil && has != hadList {
				t.Errorf("realServers came back as %v", made.Spec.RealServers)
			}
		})
	}
}

func TestDefaultsOfDirectorPool(t *testing.T) {
	want := v1alpha1.DirectorPoolSpec{
		Allow: []v1alpha1.AllowRule{{Addresses: []v1alpha1.AddressRange{"192.168.11.200"}}},
		Election: v1alpha1.Election{
			Groups:        1,
			LeaseDuration: metav1.Duration{Duration: 3 * time.Second},
			// The delay's depends on connectionSync, and is the director's to know.
			Preemption: v1alpha1.Preemption{Policy: v1alpha1.PreemptHigherPriority},
		},
		ConnectionSync: v1alpha1.ConnectionSync{Mode: v1alpha1.ConnectionSyncEnabled, Port: 8848, Group: "224.0.0.81"},
		Announcement:   v1alpha1.Announcement{RefreshInterval: metav1.Duration{Duration: time.Minute}},
		Gossip:         v1alpha1.Gossip{Port: 7956, ProbeInterval: metav1.Duration{Duration: 100 * time.Millisecond}},
		IPVS: v1alpha1.IPVSSettings{
			TCPTimeout:    metav1.Duration{Duration: 15 * time.Minute},
			TCPFinTimeout: metav1.Duration{Duration: 2 * time.Minute},
			UDPTimeout:    metav1.Duration{Duration: 5 * time.Minute},
		},
		Guard: v1alpha1.GuardEnabled,
	}

	var got v1alpha1.DirectorPool
	admit(t, object(t, "DirectorPool", `{spec: {allow: [{addresses: [192.168.11.200]}]}}`), &got)
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("spec differs (-want +got):\n%s", diff)
	}
}

// TestGoZerosAreDefaulted shows that an object made in Go, whose durations
// are zero because nobody set them, gets the defaults too.
func TestGoZerosAreDefaulted(t *testing.T) {
	made := &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Name: "zeros", Namespace: "default"},
		Spec: v1alpha1.VirtualServerSpec{
			Addresses:    []v1alpha1.IPAddress{"192.168.11.200"},
			Ports:        []v1alpha1.Port{{Port: 80}},
			RealServers:  []v1alpha1.RealServer{{Address: "192.168.11.135"}},
			HealthChecks: []v1alpha1.HealthCheck{{}},
			Quorum:       &v1alpha1.Quorum{},
			Drain:        &v1alpha1.Drain{},
			SlowStart:    &v1alpha1.SlowStart{},
		},
	}
	if err := server.Client.Create(t.Context(), made, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if got := made.Spec.HealthChecks[0].Interval.Duration; got != 2*time.Second {
		t.Errorf("interval %s, want 2s", got)
	}
	if got := made.Spec.RealServers[0].Weight; got == nil || *got != 1 {
		t.Errorf("weight %v, want 1", got)
	}
	if got := made.Spec.Quorum.MinimumWeight; got != intstr.FromInt32(1) {
		t.Errorf("minimumWeight %v, want 1", got)
	}
	if got := made.Spec.Drain.Timeout; got == nil || got.Duration != 30*time.Second {
		t.Errorf("drain.timeout %v, want 30s", got)
	}
}

// TestADrainOfZeroStaysZero shows that what a zero means is not lost on the way.
func TestADrainOfZeroStaysZero(t *testing.T) {
	made := &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Name: "zero", Namespace: "default"},
		Spec: v1alpha1.VirtualServerSpec{
			Addresses:   []v1alpha1.IPAddress{"192.168.11.200"},
			Ports:       []v1alpha1.Port{{Port: 80}},
			PodSelector: &metav1.LabelSelector{},
			Drain:       &v1alpha1.Drain{Timeout: &metav1.Duration{}},
		},
	}
	if err := server.Client.Create(t.Context(), made, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if got := made.Spec.Drain.Timeout; got == nil || got.Duration != 0 {
		t.Errorf("drain.timeout %v, want 0s", got)
	}
}

// admit sends an object through a dry run and reads what became of it.
func admit(t *testing.T, object *unstructured.Unstructured, into any) {
	t.Helper()
	if err := server.Client.Create(t.Context(), object, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into); err != nil {
		t.Fatal(err)
	}
}
