package crd

import (
	"encoding/json"
	"math/rand"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/apitesting/roundtrip"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// TestRoundTrip writes and reads random objects of every kind as JSON, as
// unstructured objects and by deep copy: what comes back is what went in.
func TestRoundTrip(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	codecs := serializer.NewCodecFactory(scheme)
	filler := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(1), codecs)
	roundtrip.RoundTripExternalTypesWithoutProtobuf(t, scheme, codecs, filler, nil)
}

// FuzzReadVirtualServer feeds bytes to the types: whatever can be read is
// written in a form that reads as the same. Two things may change on the first
// way: times lose what is below a second, and an empty optional list is left out.
func FuzzReadVirtualServer(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"spec":{"addresses":["192.168.11.200"],"ports":[{"port":80}],"realServers":[{"address":"192.168.11.135","weight":0}]}}`))
	f.Add([]byte(`{"spec":{"realServers":[],"healthChecks":[{"interval":"1.5s","timeout":"0s"}],"persistence":{}}}`))
	f.Add([]byte(`{"spec":{"podSelector":{"matchLabels":{"app":"web"}},"serviceName":"web","quorum":{"minimumWeight":"50%","hysteresis":1}}}`))
	f.Add([]byte(`{"spec":{"quorum":{"minimumWeight":2},"sorryServer":{"address":"10.0.0.1"},"drain":{"timeout":"0s"},"slowStart":{"duration":"0s"}}}`))
	f.Add([]byte(`{"status":{"addresses":[{"address":"a"}],"realServers":[{"since":"2026-01-02T03:04:05Z"}],"display":{}}}`))
	f.Add([]byte(`{"status":{"addresses":[]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var read v1alpha1.VirtualServer
		if json.Unmarshal(text, &read) != nil {
			return
		}
		first := rewrite(t, &read)
		second := rewrite(t, first)
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: written and read again, it differs:\n%s", text, diff)
		}
	})
}

// rewrite writes an object and reads it back.
func rewrite(t *testing.T, object *v1alpha1.VirtualServer) *v1alpha1.VirtualServer {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatalf("%+v can't be written: %v", object, err)
	}
	read := &v1alpha1.VirtualServer{}
	if err := json.Unmarshal(text, read); err != nil {
		t.Fatalf("%s can't be read back: %v", text, err)
	}
	return read
}

// TestZeroFieldsAreLeftOut pins what a server-side apply from Go sends: the
// fields that are set, and no others, so that a director owns what it means to.
func TestZeroFieldsAreLeftOut(t *testing.T) {
	cases := map[string]struct {
		object any
		want   string
	}{
		"a status of one address": {
			object: &v1alpha1.VirtualServer{Status: v1alpha1.VirtualServerStatus{
				Addresses: []v1alpha1.AddressStatus{{Address: "192.0.2.1", Director: "node-a"}},
			}},
			want: `{"status":{"addresses":[{"address":"192.0.2.1","group":0,"director":"node-a"}]}}`,
		},
		"a check whose durations are the defaults": {
			object: v1alpha1.HealthCheck{Name: "web"},
			want:   `{"name":"web"}`,
		},
		"a real server of weight 0 keeps it": {
			object: v1alpha1.RealServer{Address: "192.0.2.2", Weight: new(int32)},
			want:   `{"address":"192.0.2.2","port":0,"weight":0}`,
		},
		"no real servers are an empty list": {
			object: v1alpha1.VirtualServerSpec{RealServers: []v1alpha1.RealServer{}},
			want:   `{"realServers":[]}`,
		},
		"forgotten real servers are no list": {
			object: v1alpha1.VirtualServerSpec{ServiceName: "web"},
			want:   `{"serviceName":"web"}`,
		},
		"a selector of all pods": {
			object: v1alpha1.VirtualServerSpec{PodSelector: &metav1.LabelSelector{}},
			want:   `{"podSelector":{}}`,
		},
		"policies that are the defaults": {
			object: v1alpha1.VirtualServerSpec{Quorum: &v1alpha1.Quorum{}, Drain: &v1alpha1.Drain{}, SlowStart: &v1alpha1.SlowStart{}},
			want:   `{"quorum":{"hysteresis":0},"drain":{},"slowStart":{}}`,
		},
		"a quorum that is a share": {
			object: v1alpha1.Quorum{MinimumWeight: intstr.FromString("50%")},
			want:   `{"minimumWeight":"50%","hysteresis":0}`,
		},
		"a drain of no time keeps it": {
			object: v1alpha1.Drain{Timeout: &metav1.Duration{}},
			want:   `{"timeout":"0s"}`,
		},
		"a pod that has no VIP": {
			object: v1alpha1.RealServerNodeStatus{Pods: []v1alpha1.PreparedPod{{UID: "1"}}},
			want:   `{"pods":[{"uid":"1"}]}`,
		},
		"a pool that takes the defaults": {
			object: v1alpha1.DirectorPoolSpec{},
			want:   `{"nodeSelector":{}}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(tc.object)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("JSON differs (-want +got):\n%s", diff)
			}
		})
	}
}
