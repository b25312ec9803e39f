package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skein.dev/skein/api/store"
)

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}

func mustCreate(t *testing.T, c kubernetes.Interface, cm *corev1.ConfigMap) *corev1.ConfigMap {
	t.Helper()
	out, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryPatchTypeChangesWhatItNames(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	cms := c.CoreV1().ConfigMaps("default")
	mustCreate(t, c, configMap("p", map[string]string{"a": "1", "b": "2"}))
	for _, p := range []struct {
		kind types.PatchType
		body string
		want string
	}{
		{types.JSONPatchType, `[{"op":"replace","path":"/data/a","value":"json"}]`, "json"},
		{types.MergePatchType, `{"data":{"a":"merge"}}`, "merge"},
		{types.StrategicMergePatchType, `{"data":{"a":"strategic"}}`, "strategic"},
	} {
		got, err := cms.Patch(t.Context(), "p", p.kind, []byte(p.body), metav1.PatchOptions{})
		if err != nil {
			t.Fatalf("%s: %v", p.kind, err)
		}
		if got.Data["a"] != p.want || got.Data["b"] != "2" {
			t.Errorf("%s: got %v, want a=%s b=2", p.kind, got.Data, p.want)
		}
	}
}

func TestServerSideApplyRefusesConflictsAndForceTakesOwnership(t *testing.T) {
	f := start(t)
	cms := f.client(t, f.admin(t)).CoreV1().ConfigMaps("default")
	apply := func(manager, value string, force bool) (*corev1.ConfigMap, error) {
		return cms.Apply(t.Context(), corev1apply.ConfigMap("s", "default").WithData(map[string]string{"k": value}),
			metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	if _, err := apply("one", "1", false); err != nil {
		t.Fatal(err)
	}
	if _, err := apply("two", "2", false); !apierrors.IsConflict(err) {
		t.Fatalf("second manager: got %v, want a conflict", err)
	}
	got, err := apply("two", "2", true)
	if err != nil {
		t.Fatal(err)
	}
	if got.Data["k"] != "2" || len(got.ManagedFields) != 1 || got.ManagedFields[0].Manager != "two" {
		t.Errorf("forced apply: got %v managed by %v", got.Data, got.ManagedFields)
	}
}

func TestAVersionThatIsNoneIsTheUsersMistake(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	ns, err := c.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns.ResourceVersion = "-1"
	if _, err := c.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("update: got %v, want that the request is bad", err)
	}
}

func TestTextThatIsNoneIsRefusedInProtobuf(t *testing.T) {
	f := start(t)
	cfg := rest.CopyConfig(f.admin(t))
	cfg.ContentType = runtime.ContentTypeProtobuf
	c := f.client(t, cfg)
	const bad = "\xff"
	for name, o := range map[string]*corev1.ConfigMap{
		"value":      configMap("v", map[string]string{"a": bad}),
		"annotation": {ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{"a": bad}}},
	} {
		if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), o, metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: got %v, want that the request is bad", name, err)
		}
	}
	o := configMap("good", map[string]string{"a": "é\u202e\x00"})
	o.BinaryData = map[string][]byte{"b": []byte(bad)}
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
		t.Errorf("bytes are no text: %v", err)
	}
}

func TestCustomObjectsInProtobufAreRefused(t *testing.T) {
	f := start(t)
	everyKind(t, f) // defines the kind
	client, err := rest.HTTPClientFor(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, directive := range []string{"", "?fieldValidation=Ignore"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.admin(t).Host+"/apis/example.com/v1/namespaces/default/widgets"+directive, strings.NewReader("k8s\x00"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", runtime.ContentTypeProtobuf)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%q: %s, want 415", directive, resp.Status)
		}
	}
}

func TestDryRunStoresNothing(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	before := f.store.Local().Revision()
	got, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("dry", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || got.UID == "" {
		t.Fatalf("dry run: got uid %q, error %v", got.UID, err)
	}
	if e := f.store.Local().Get("/registry/core/configmaps/default/dry"); e != nil {
		t.Errorf("dry run stored an object at %d (was %d)", e.Mod, before)
	}
}

func TestTablesHaveTheColumnsThatKubectlShows(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	mustCreate(t, c, configMap("t", map[string]string{"a": "1", "b": "2"}))
	raw, err := c.CoreV1().RESTClient().Get().Namespace("default").Resource("configmaps").Name("t").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(raw, &table); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range table.ColumnDefinitions {
		names = append(names, c.Name)
	}
	if got, want := strings.Join(names, " "), "Name Data Age"; got != want {
		t.Errorf("columns: got %q, want %q", got, want)
	}
	if got, want := fmt.Sprint(table.Rows[0].Cells[:2]), "[t 2]"; got != want {
		t.Errorf("cells: got %s, want %s", got, want)
	}
}

func TestUnknownFieldsAreRefusedWhenAskedFor(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	body := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"u"},"dta":{}}`)
	post := func(mode string) error {
		return c.CoreV1().RESTClient().Post().Namespace("default").Resource("configmaps").
			Param("fieldValidation", mode).SetHeader("Content-Type", "application/json").Body(body).Do(t.Context()).Error()
	}
	if err := post("Strict"); err == nil || !strings.Contains(err.Error(), `unknown field "dta"`) {
		t.Errorf("strict: got %v", err)
	}
	if err := post("Ignore"); err != nil {
		t.Errorf("ignore: got %v", err)
	}
}

func TestChunksComeFromOneStateAndExpireAsGone(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	cms := c.CoreV1().ConfigMaps("default")
	for i := range 5 {
		mustCreate(t, c, configMap(fmt.Sprintf("c%d", i), nil))
	}
	first, err := cms.List(t.Context(), metav1.ListOptions{Limit: 2})
	if err != nil || len(first.Items) != 2 || first.Continue == "" || *first.RemainingItemCount != 3 {
		t.Fatalf("first chunk: %d items, continue %q, %v", len(first.Items), first.Continue, err)
	}
	mustCreate(t, c, configMap("c00", nil)) // lies in the part already read, and one in the other
	mustCreate(t, c, configMap("c9", nil))
	rest, err := cms.List(t.Context(), metav1.ListOptions{Continue: first.Continue})
	if err != nil || len(rest.Items) != 3 || rest.ResourceVersion != first.ResourceVersion {
		t.Fatalf("rest: %d items at %s, want 3 at %s: %v", len(rest.Items), rest.ResourceVersion, first.ResourceVersion, err)
	}
	f.store.Compact(f.store.Local().Revision())
	_, err = cms.List(t.Context(), metav1.ListOptions{Continue: first.Continue})
	if !apierrors.IsResourceExpired(err) {
		t.Fatalf("compacted: got %v, want 410", err)
	}
	st := err.(apierrors.APIStatus)
	again, err := cms.List(t.Context(), metav1.ListOptions{Continue: st.Status().Continue})
	if err != nil || len(again.Items) != 4 {
		t.Errorf("inconsistent continuation: %d items, want 4: %v", len(again.Items), err)
	}
}

func TestListsObeyTheResourceVersion(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	cms := c.CoreV1().ConfigMaps("default")
	a := mustCreate(t, c, configMap("a", nil))
	mustCreate(t, c, configMap("b", nil))
	got, err := cms.List(t.Context(), metav1.ListOptions{ResourceVersion: a.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if err != nil || len(got.Items) != 1 {
		t.Errorf("exact: %d items, want 1: %v", len(got.Items), err)
	}
	got, err = cms.List(t.Context(), metav1.ListOptions{ResourceVersion: a.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil || len(got.Items) != 2 {
		t.Errorf("not older than: %d items, want 2: %v", len(got.Items), err)
	}
	_, err = cms.List(t.Context(), metav1.ListOptions{ResourceVersion: "999999", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err == nil || !strings.Contains(err.Error(), "Too large resource version") {
		t.Errorf("future: got %v", err)
	}
}

func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case e, ok := <-w.ResultChan():
		if !ok {
			t.Fatal("the watch has ended")
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
	}
	return watch.Event{}
}

func TestWatchBeginsWithTheStateMarksItsEndAndFollowsSelectors(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	cms := c.CoreV1().ConfigMaps("default")
	cm := mustCreate(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "w", Labels: map[string]string{"x": "1"}}})
	yes := true
	w, err := cms.Watch(t.Context(), metav1.ListOptions{
		SendInitialEvents: &yes, AllowWatchBookmarks: true, LabelSelector: "x=1",
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := next(t, w); e.Type != watch.Added {
		t.Fatalf("got %s, want ADDED", e.Type)
	}
	if e := next(t, w); e.Type != watch.Bookmark || e.Object.(*corev1.ConfigMap).Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Fatalf("got %v, want the bookmark that ends the initial events", e)
	}
	for _, step := range []struct {
		label string
		want  watch.EventType
	}{{"1b", watch.Deleted}, {"1", watch.Added}} {
		cm.Labels["x"] = step.label
		if cm, err = cms.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		e := next(t, w)
		if e.Type != step.want || e.Object.(*corev1.ConfigMap).ResourceVersion != cm.ResourceVersion {
			t.Errorf("label %s: got %s at %s, want %s at %s", step.label, e.Type, e.Object.(*corev1.ConfigMap).ResourceVersion, step.want, cm.ResourceVersion)
		}
	}
}

func TestWatchFromACompactedRevisionSaysGone(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	cm := mustCreate(t, c, configMap("g", nil))
	mustCreate(t, c, configMap("h", nil))
	f.store.Compact(f.store.Local().Revision())
	w, err := c.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: cm.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e := next(t, w)
	if st, ok := e.Object.(*metav1.Status); e.Type != watch.Error || !ok || st.Code != http.StatusGone {
		t.Errorf("got %v, want 410", e)
	}
}

func TestEventsAreOneObjectInTwoVersions(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	made, err := c.EventsV1().Events("default").Create(t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e"}, EventTime: metav1.NowMicro(), ReportingController: "skein.dev/test",
		ReportingInstance: "a", Action: "Try", Reason: "Because", Type: "Normal", Note: "a note",
		Regarding: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: "default"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old, err := c.CoreV1().Events("default").Get(t.Context(), "e", metav1.GetOptions{})
	if err != nil || old.Message != "a note" || old.InvolvedObject.Name != "p" || old.UID != made.UID {
		t.Fatalf("core/v1: got %+v, %v", old, err)
	}
	list, err := c.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("regarding.name", "p").String(),
	})
	if err != nil || len(list.Items) != 1 || list.Items[0].Note != "a note" {
		t.Errorf("events.k8s.io/v1 by field: %d items, %v", len(list.Items), err)
	}
	_, err = c.EventsV1().Events("default").Create(t.Context(), &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: "f"}}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("an event without its fields: got %v, want 422", err)
	}
	if e := f.store.Local().Get("/registry/core/events/default/e"); e == nil || e.TTL != 3600 {
		t.Errorf("stored event: %+v, want a TTL of an hour", e)
	}
}

func TestSecretsAreSealedInTheStore(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	_, err := c.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"password": "correct horse"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e := f.store.Local().Get("/registry/core/secrets/default/s")
	if e == nil || strings.Contains(string(e.Value), "correct horse") || !strings.HasPrefix(string(e.Value), "skein:seal:v1:k1:") {
		t.Errorf("the store has %q", e.Value)
	}
	got, err := c.CoreV1().Secrets("default").Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil || string(got.Data["password"]) != "correct horse" {
		t.Errorf("read back: %v, %v", got.Data, err)
	}
}

func TestStoreTroubleReachesClientsAsWhatTheyCanActOn(t *testing.T) {
	f := start(t)
	client := f.client(t, f.admin(t)).CoreV1().RESTClient()
	i := 0
	for err, want := range map[error]int{
		store.ErrNoQuorum:   http.StatusServiceUnavailable,
		store.ErrOverloaded: http.StatusTooManyRequests,
		store.ErrTooLarge:   http.StatusRequestEntityTooLarge,
		store.ErrUnknown:    http.StatusGatewayTimeout,
		store.ErrFenced:     http.StatusForbidden,
	} {
		i++
		f.store.Fail(err)
		// Without retries: clients retry what tells them when to come again.
		got := client.Post().Namespace("default").Resource("configmaps").MaxRetries(0).
			Body(configMap(fmt.Sprintf("trouble%d", i), nil)).Do(t.Context()).Error()
		f.store.Fail(nil)
		st, ok := got.(apierrors.APIStatus)
		if !ok || int(st.Status().Code) != want {
			t.Errorf("%v: got %v, want code %d", err, got, want)
		}
	}
}

func TestNamespacesGoInTwoSteps(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	if _, err := c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "two"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.CoreV1().Namespaces().Delete(t.Context(), "two", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ns, err := c.CoreV1().Namespaces().Get(t.Context(), "two", metav1.GetOptions{})
	if err != nil || ns.Status.Phase != corev1.NamespaceTerminating {
		t.Fatalf("after the first step: %v, %v", ns.Status.Phase, err)
	}
	_, err = c.CoreV1().ConfigMaps("two").Create(t.Context(), configMap("x", nil), metav1.CreateOptions{})
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("create in a terminating namespace: got %v", err)
	}
	ns.Spec.Finalizers = nil
	if _, err := c.CoreV1().Namespaces().Finalize(t.Context(), ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Namespaces().Get(t.Context(), "two", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the second step: got %v, want not found", err)
	}
	if err := c.CoreV1().Namespaces().Delete(t.Context(), "default", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("delete default: got %v, want forbidden", err)
	}
	if _, err := c.CoreV1().ConfigMaps("nowhere").Create(t.Context(), configMap("x", nil), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("create in no namespace: got %v, want not found", err)
	}
}
