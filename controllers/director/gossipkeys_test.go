package director

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

// gossiper notes the keys that it gets.
type gossiper struct{ keys [][]byte }

func (g *gossiper) SetGossipKeys(keys [][]byte) { g.keys = keys }

func TestTheFirstDirectorMakesTheKeysAndAllUseThem(t *testing.T) {
	client := newClient(t)
	recorder := events.NewFakeRecorder(10)
	var all [2]gossiper
	for range 2 {
		for i := range all {
			keys := GossipKeys{Client: client, Namespace: "lvs", Director: &all[i], Events: recorder}
			if _, err := keys.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(all[0].keys) != 1 || !cmp.Equal(all[0].keys, all[1].keys) {
		t.Errorf("one has %d keys, the other %d, and they are not one and the same", len(all[0].keys), len(all[1].keys))
	}
}

// TestWhoIsSecondTakesWhatIsThere has a cache that does not know the Secret yet.
func TestWhoIsSecondTakesWhatIsThere(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "lvs", Name: KeysSecret}}
	client := newClient(t, secret)
	keys := GossipKeys{Client: client, Namespace: "lvs"}
	if err := keys.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got corev1.Secret
	if err := client.Get(t.Context(), types.NamespacedName{Namespace: "lvs", Name: KeysSecret}, &got); err != nil || len(got.Data) != 0 {
		t.Errorf("the Secret has %d entries now, %v", len(got.Data), err)
	}
}

func TestAnEditedSecretIsUsedIfItCanBeRead(t *testing.T) {
	first, second := keylist.NewKey(), keylist.NewKey()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "lvs", Name: KeysSecret},
		Data:       map[string][]byte{KeysEntry: keylist.Format([][]byte{first})},
	}
	client := newClient(t, secret)
	recorder := events.NewFakeRecorder(10)
	var director gossiper
	keys := GossipKeys{Client: client, Namespace: "lvs", Director: &director, Events: recorder}
	edit := func(content string) error {
		t.Helper()
		secret.Data = map[string][]byte{KeysEntry: []byte(content)}
		if err := client.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		_, err := keys.Reconcile(t.Context(), reconcile.Request{})
		return err
	}
	both := [][]byte{second, first}
	if err := edit(string(keylist.Format(both))); err != nil || !cmp.Equal(director.keys, both) {
		t.Errorf("%d keys, %v; want both", len(director.keys), err)
	}
	err := edit("hunter2")
	if !errors.Is(err, reconcile.TerminalError(nil)) || !cmp.Equal(director.keys, both) {
		t.Errorf("%d keys, %v; want those of before, and an error that is not tried again", len(director.keys), err)
	}
	select {
	case event := <-recorder.Events:
		if !strings.Contains(event, reasonKeysInvalid) || !strings.Contains(event, "line 1") || strings.Contains(event, "hunter2") {
			t.Errorf("event %q", event)
		}
	default:
		t.Error("there is no event")
	}
	if err := edit(""); err == nil || !cmp.Equal(director.keys, both) {
		t.Errorf("%d keys, %v; want those of before, and an error", len(director.keys), err)
	}
}
