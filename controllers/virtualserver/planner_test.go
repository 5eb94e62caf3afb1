package virtualserver

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

var addresses = cmpopts.EquateComparable(netip.Addr{})

func newClient(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...)
	for name, index := range virtualServerIndexes() {
		builder.WithIndex(&v1alpha1.VirtualServer{}, name, index)
	}
	for _, kind := range every {
		object, indexes := watched(kind)
		for name, index := range indexes {
			builder.WithIndex(object, name, index)
		}
	}
	return builder.Build()
}

// world is what planning needs to accept VirtualServers of namespace shop.
func world(more ...client.Object) []client.Object {
	return append([]client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		&v1alpha1.DirectorPool{
			ObjectMeta: metav1.ObjectMeta{Name: "default"},
			Spec: v1alpha1.DirectorPoolSpec{Allow: []v1alpha1.AllowRule{{
				Addresses: []v1alpha1.AddressRange{"192.168.11.0/24"}, RealServers: []v1alpha1.AddressRange{"192.168.11.0/24"},
			}}},
		},
		&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "web-3"},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.11.3"}}},
		},
	}, more...)
}

func makeServer(name string, vips ...v1alpha1.IPAddress) *v1alpha1.VirtualServer {
	return &v1alpha1.VirtualServer{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)},
		Spec: v1alpha1.VirtualServerSpec{
			DirectorPoolName: "default", Addresses: vips, Scheduler: "wrr",
			Ports:       []v1alpha1.Port{{Port: 80, Protocol: "TCP"}},
			RealServers: []v1alpha1.RealServer{{Address: "192.168.11.135"}},
		},
	}
}

// programmer is a director that does nothing.
type programmer struct {
	site     Site
	programs map[netstate.Key]plan.Desired
	removed  []netstate.Key
	served   []netstate.Key
	synced   []string
}

func (p *programmer) Site() Site { return p.site }
func (p *programmer) Program(d plan.Desired) {
	if p.programs == nil {
		p.programs = map[netstate.Key]plan.Desired{}
	}
	p.programs[d.Key] = d
}
func (p *programmer) Remove(key netstate.Key) { p.removed = append(p.removed, key) }
func (p *programmer) Served() []netstate.Key  { return p.served }
func (p *programmer) Synced(pool string)      { p.synced = append(p.synced, pool) }

func (p *programmer) programmed() []netstate.Key {
	return slices.SortedFunc(maps.Keys(p.programs), netstate.Key.Compare)
}

func keys(texts ...string) []netstate.Key {
	var all []netstate.Key
	for _, text := range texts {
		all = append(all, netstate.Key{Addr: netip.MustParseAddr(text)})
	}
	return all
}

func siteOfDefault() Site {
	return Site{
		Node: "lb-1", Pool: "default", Interface: "eth0", Source: netip.MustParseAddr("192.168.11.11"),
		Reserved: map[netip.Addr]string{netip.MustParseAddr("192.168.11.1"): "a gateway of node lb-1"},
	}
}

func TestThePlannerHandsEverythingOverAndSaysSo(t *testing.T) {
	other := makeServer("other", "192.168.11.203")
	other.Spec.DirectorPoolName = "another"
	c := newClient(t, world(
		makeServer("web", "192.168.11.200"), makeServer("mail", "192.168.11.201"), other,
		makeServer("gateway", "192.168.11.1"), makeServer("node", "192.168.11.3"),
	)...)
	p := &programmer{site: siteOfDefault(), served: keys("192.168.11.250")}
	planner := &Planner{Reader: c, Live: c, Director: p}
	if _, err := planner.Reconcile(t.Context(), synced); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keys("192.168.11.200", "192.168.11.201"), p.programmed(), addresses); diff != "" {
		t.Errorf("programmed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(keys("192.168.11.1", "192.168.11.3", "192.168.11.250"), p.removed, addresses); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if !slices.Equal(p.synced, []string{"default"}) {
		t.Errorf("synced = %v", p.synced)
	}
}

func TestThePlannerSaysNothingThatItDoesNotKnow(t *testing.T) {
	broken := errors.New("the cache is broken")
	failing := interceptor.NewClient(newClient(t, world()...), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return broken },
	})
	for name, tc := range map[string]struct {
		reader   client.Reader
		site     Site
		wantErr  error
		wantTurn bool
	}{
		"while the node is not known": {reader: newClient(t, world(makeServer("web", "192.168.11.200"))...)},
		"when it cannot read":         {reader: failing, site: siteOfDefault(), wantErr: broken},
		"while there is no pool":      {reader: newClient(t, makeServer("web", "192.168.11.200")), site: siteOfDefault(), wantTurn: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := &programmer{site: tc.site, served: keys("192.168.11.200")}
			result, err := (&Planner{Reader: tc.reader, Live: tc.reader, Director: p}).Reconcile(t.Context(), synced)
			if !errors.Is(err, tc.wantErr) || (result.RequeueAfter > 0) != tc.wantTurn {
				t.Errorf("result %+v, err %v", result, err)
			}
			if len(p.synced)+len(p.removed)+len(p.programs) > 0 {
				t.Errorf("said %+v", p)
			}
		})
	}
}

func TestConfirm(t *testing.T) {
	all := world(makeServer("web", "192.168.11.200"), makeServer("node", "192.168.11.3"))
	for name, tc := range map[string]struct {
		cached, live []client.Object
		site         Site
		want         []netstate.Key
		wantErr      bool
	}{
		"what the API names and the plan serves": {cached: all, live: all, site: siteOfDefault(), want: keys("192.168.11.200")},
		"nothing":                                {cached: world(), live: world(), site: siteOfDefault()},
		"a cache that is behind removes nothing": {cached: world(), live: all, site: siteOfDefault(), want: keys("192.168.11.3", "192.168.11.200")},
		"a cache that is ahead":                  {cached: all, live: world(), site: siteOfDefault()},
		"the pool is gone":                       {cached: all[3:], live: all, site: siteOfDefault(), wantErr: true},
		"the node is not known":                  {cached: all, live: all, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			planner := &Planner{Reader: newClient(t, tc.cached...), Live: newClient(t, tc.live...), Director: &programmer{site: tc.site}}
			got, err := planner.Confirm(t.Context())
			if (err != nil) != tc.wantErr {
				t.Fatalf("err = %v", err)
			}
			if diff := cmp.Diff(tc.want, sortedKeys(got), addresses, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("wanted (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAVirtualServerTouchesTheKeysOfWhoeverSharesAnAddress(t *testing.T) {
	a, b, c := makeServer("a", "192.168.11.200", "192.168.11.201"), makeServer("b", "192.168.11.201", "192.168.11.202"), makeServer("c", "192.168.11.203")
	planner := &Planner{Reader: newClient(t, world(b, c)...), Director: &programmer{site: siteOfDefault()}}
	// a has just been deleted.
	if diff := cmp.Diff(keys("192.168.11.200", "192.168.11.201", "192.168.11.202"), planner.touched(t.Context(), a), addresses); diff != "" {
		t.Errorf("touched (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(keys("192.168.11.201", "192.168.11.202", "192.168.11.203"),
		planner.inNamespace(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}), addresses); diff != "" {
		t.Errorf("of the namespace (-want +got):\n%s", diff)
	}
}
