package clients

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// seen is what an informer has told of ConfigMaps.
type seen struct {
	mu      sync.Mutex // guards the fields below
	objects map[string]string
	wrong   []string // what cannot have happened
}

func (s *seen) set(o any, new bool) {
	cm, ok := o.(*corev1.ConfigMap)
	if !ok || cm.Name == "kube-root-ca.crt" { // a controller's
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, had := s.objects[cm.Name]; had == new {
		s.wrong = append(s.wrong, fmt.Sprintf("%s: told as new: %t, but known: %t", cm.Name, new, had))
	}
	s.objects[cm.Name] = cm.Data["n"]
}

func (s *seen) drop(o any) {
	if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	if cm, ok := o.(*corev1.ConfigMap); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.objects, cm.Name)
	}
}

func (s *seen) all() (map[string]string, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.objects), s.wrong
}

// follow runs an informer on a namespace against one peer until the test ends.
func (m *mesh) follow(p *peer, namespace string) *seen {
	m.Helper()
	s := &seen{objects: map[string]string{}}
	f := informers.NewSharedInformerFactoryWithOptions(p.client, 0, informers.WithNamespace(namespace))
	informer := f.Core().V1().ConfigMaps().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, _ bool) { s.set(o, true) }, UpdateFunc: func(_, o any) { s.set(o, false) }, DeleteFunc: s.drop,
	}); err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.Context()))
	f.StartWithContext(ctx)
	m.Cleanup(func() { cancel(); f.Shutdown() })
	if !cache.WaitForCacheSync(m.Context().Done(), informer.HasSynced) {
		m.Fatal("informer did not sync")
	}
	return s
}

func (m *mesh) namespace(name string) {
	m.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := m.peers[0].client.CoreV1().Namespaces().Create(m.Context(), ns, metav1.CreateOptions{}); err != nil {
		m.Fatal(err)
	}
}

// TestInformersOfEveryPeerSeeTheSame writes through all peers in turn, with
// one peer away in the middle, and compares what informers end with.
func TestInformersOfEveryPeerSeeTheSame(t *testing.T) {
	m := startMesh(t)
	const ns = "informers"
	m.namespace(ns)
	var followers []*seen
	for _, p := range m.peers {
		followers = append(followers, m.follow(p, ns))
	}
	want := map[string]string{}
	write := func(p *peer, i int) {
		t.Helper()
		c := p.client.CoreV1().ConfigMaps(ns)
		name, value := fmt.Sprintf("c%d", i%20), fmt.Sprint(i)
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": value}}
		_, had := want[name]
		var err error
		switch {
		case had && i%5 == 0:
			err = c.Delete(t.Context(), name, metav1.DeleteOptions{})
			delete(want, name)
		case had:
			_, err = c.Update(t.Context(), cm, metav1.UpdateOptions{})
			want[name] = value
		default:
			_, err = c.Create(t.Context(), cm, metav1.CreateOptions{})
			want[name] = value
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		write(m.peers[i%3], i)
	}
	m.stop(m.peers[2]) // its informer loses its server
	for i := range 100 {
		write(m.peers[i%2], 100+i)
	}
	m.start(m.peers[2])
	for i := range 100 {
		write(m.peers[i%3], 200+i)
	}
	for i, s := range followers {
		eventually(t, fmt.Sprintf("informer %d has it all", i), func() bool {
			got, _ := s.all()
			return maps.Equal(got, want)
		})
		if _, wrong := s.all(); len(wrong) > 0 {
			t.Errorf("informer %d: %v", i, wrong)
		}
	}
}

// TestWatchListsAndBookmarks asks every peer for a stream that begins with
// what there is.
func TestWatchListsAndBookmarks(t *testing.T) {
	m := startMesh(t)
	const ns = "watchlist"
	m.namespace(ns)
	for i := range 10 {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d", i)}}
		if _, err := m.peers[i%3].client.CoreV1().ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range m.peers {
		t.Run(p.name, func(t *testing.T) {
			yes := true
			w, err := p.client.CoreV1().ConfigMaps(ns).Watch(t.Context(), metav1.ListOptions{
				AllowWatchBookmarks: true, SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			added := map[string]bool{}
			end := time.After(time.Minute)
			for {
				select {
				case e := <-w.ResultChan():
					cm, ok := e.Object.(*corev1.ConfigMap)
					if !ok {
						t.Fatalf("event %s carries a %T", e.Type, e.Object)
					}
					if e.Type == watch.Added {
						added[cm.Name] = true
						continue
					}
					if e.Type != watch.Bookmark || cm.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
						t.Fatalf("event %s %v before the initial ones ended", e.Type, cm)
					}
					if len(added) != 11 { // the cluster's root certificate is the eleventh
						t.Errorf("%d objects came first, want 11: %v", len(added), added)
					}
					return
				case <-end:
					t.Fatal("the initial events never ended")
				}
			}
		})
	}
}
