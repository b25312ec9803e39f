package apiserver_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/api/sealkey"
	"skein.dev/skein/apiserver"
)

func sealKeys(t *testing.T, c *kubernetes.Clientset, verb string) (list sealkey.List, err error) {
	t.Helper()
	raw, err := c.RESTClient().Verb(verb).AbsPath(sealkey.Path).DoRaw(t.Context())
	if err != nil {
		return list, err
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	return list, nil
}

func TestANewSealingKeyTakesOverEverything(t *testing.T) {
	f := start(t)
	// Another peer has the same store and keyring; one that joins later too.
	same := func(c *apiserver.Config) { c.Store, c.ServiceAccountKey = f.store, f.key }
	other := start(t, same)
	c, far := f.client(t, f.admin(t)), other.client(t, other.admin(t))
	secret := func(by *kubernetes.Clientset, name string) {
		t.Helper()
		o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"of": name}}
		if _, err := by.CoreV1().Secrets("default").Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	under := func(key string) (id string) {
		t.Helper()
		e := f.store.Local().Get(key)
		if e == nil {
			t.Fatalf("%s is not stored", key)
		}
		rest, ok := strings.CutPrefix(string(e.Value), "skein:seal:v1:")
		if !ok {
			t.Fatalf("%s is not sealed", key)
		}
		id, _, _ = strings.Cut(rest, ":")
		return id
	}
	for i := range 20 {
		secret(c, fmt.Sprint("old-", i))
	}
	if _, err := tokenKeys(t, c, "POST", ""); err != nil { // those are sealed as well
		t.Fatal(err)
	}
	list, err := sealKeys(t, c, "GET")
	if err != nil || len(list.Keys) != 1 || !list.Keys[0].Seals || list.Keys[0].Created != nil || list.Keys[0].Values != 21 {
		t.Fatalf("at first: %+v, %v; want the keyring's key alone, with 21 values", list, err)
	}
	first := list.Keys[0].ID
	watch, err := far.CoreV1().Secrets("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	if list, err = sealKeys(t, c, "POST"); err != nil {
		t.Fatal(err)
	}
	if len(list.Keys) != 2 || list.Keys[0].Created == nil || list.Keys[0].Values != 21 || list.Keys[1].ID != first || list.Keys[1].Values != 0 {
		t.Fatalf("after a rotation: %+v; want all 21 values under a new key", list)
	}
	secret(far, "new")
	for _, key := range []string{"/registry/core/secrets/default/old-7", "/registry/core/secrets/default/new", "/skein/token-keys"} {
		if got := under(key); got != list.Keys[0].ID {
			t.Errorf("%s is under key %s, want %s", key, got, list.Keys[0].ID)
		}
	}
	if got := under("/skein/sealing-keys"); got != first {
		t.Errorf("the keys are under key %s, want the keyring's %s", got, first)
	}
	late := start(t, same)
	for name, peer := range map[string]*kubernetes.Clientset{"this peer": c, "another": far, "one that joins": late.client(t, late.admin(t))} {
		all, err := peer.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(all.Items) != 21 {
			t.Fatalf("%s lists %d, %v; want 21", name, len(all.Items), err)
		}
		for _, o := range all.Items {
			if string(o.Data["of"]) != o.Name {
				t.Errorf("%s reads %s as %q", name, o.Name, o.Data["of"])
			}
		}
		if _, err := tokenKeys(t, peer, "GET", ""); err != nil {
			t.Errorf("%s: keys of tokens: %v", name, err)
		}
	}
	if list, err = sealKeys(t, far, "POST"); err != nil || len(list.Keys) != 3 || list.Keys[0].Values != 22 {
		t.Fatalf("after another on another peer: %+v, %v", list, err)
	}
	before := f.store.Local().Revision()
	if _, err := sealKeys(t, c, "PUT"); err != nil || f.store.Local().Revision() != before {
		t.Errorf("sealing anew what is already: %v, revision %d, was %d", err, f.store.Local().Revision(), before)
	}
	for range 20 { // who watches sees the same objects, in new versions
		e := <-watch.ResultChan()
		if o, ok := e.Object.(*corev1.Secret); !ok || string(o.Data["of"]) != o.Name {
			t.Fatalf("a watch says %s of %v", e.Type, e.Object)
		}
	}
	nobody := f.client(t, f.user(t, "ann"))
	if _, err := sealKeys(t, nobody, "POST"); !apierrors.IsForbidden(err) {
		t.Errorf("a user without rights rotates keys: %v", err)
	}
}
