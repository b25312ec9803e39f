package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// TestEveryKindIsAppliedShownAndDeleted sends a sample of each kind through
// server-side apply, which needs its schema, and through its table.
func TestEveryKindIsAppliedShownAndDeleted(t *testing.T) {
	f := start(t)
	cfg := f.admin(t)
	client := f.client(t, cfg)
	groups, err := restmapper.GetAPIGroupResources(client.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	anything, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	samples, err := os.ReadFile("testdata/kinds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(string(samples), "\n---\n") {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &obj.Object); err != nil {
			t.Fatal(err)
		}
		t.Run(obj.GroupVersionKind().GroupVersion().String()+" "+obj.GetKind(), func(t *testing.T) {
			gvk := obj.GroupVersionKind()
			mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
			if err != nil {
				t.Fatal(err)
			}
			var c dynamic.ResourceInterface = anything.Resource(mapping.Resource)
			path := "/apis/" + gvk.GroupVersion().String()
			if gvk.Group == "" {
				path = "/api/v1"
			}
			if mapping.Scope.Name() == "namespace" {
				c = anything.Resource(mapping.Resource).Namespace("default")
				path += "/namespaces/default"
			}
			got, err := c.Apply(context.Background(), obj.GetName(), obj, metav1.ApplyOptions{FieldManager: "test"})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.GetManagedFields()) != 1 {
				t.Errorf("managed fields: got %v, want those of one manager", got.GetManagedFields())
			}
			_, err = c.Patch(context.Background(), obj.GetName(), types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{})
			if err != nil {
				t.Errorf("merge patch: %v", err)
			} else {
				metadataIs(t, f, mapping.Resource, func() *unstructured.Unstructured {
					now, err := c.Get(t.Context(), obj.GetName(), metav1.GetOptions{})
					if err != nil {
						t.Fatal(err)
					}
					return now
				})
			}
			raw, err := client.CoreV1().RESTClient().Get().AbsPath(path+"/"+mapping.Resource.Resource).
				SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			table := metav1.Table{}
			if err := json.Unmarshal(raw, &table); err != nil {
				t.Fatal(err)
			}
			if len(table.Rows) == 0 || len(table.Rows[0].Cells) != len(table.ColumnDefinitions) {
				t.Errorf("table: got %d rows with %d columns, want each cell under a column", len(table.Rows), len(table.ColumnDefinitions))
			}
			if err := c.Delete(context.Background(), obj.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
	}
}

// TestDiscoveryListsWhatUpstreamServes compares with the resources that
// kube-apiserver v1.37 serves by default.
func TestDiscoveryListsWhatUpstreamServes(t *testing.T) {
	f := start(t)
	client := f.client(t, f.admin(t))
	_, lists, err := client.Discovery().ServerGroupsAndResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			scope := ""
			if r.Namespaced {
				scope = " namespaced"
			}
			line := l.GroupVersion + " " + r.Name + scope
			if names := strings.Join(append(r.ShortNames, r.Categories...), ","); names != "" {
				line += " " + names
			}
			got[line] = true
		}
	}
	want, err := os.ReadFile("testdata/resources.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(want)) {
		if line = strings.TrimSpace(line); line != "" && !got[line] {
			t.Errorf("missing: %s", line)
		}
		delete(got, line)
	}
	for line := range got {
		if !strings.Contains(line, "skein.dev") {
			t.Errorf("more than upstream: %s", line)
		}
	}
}

func TestComponentsSayWhetherThePeerIsReady(t *testing.T) {
	f := start(t)
	list, err := f.client(t, f.admin(t)).CoreV1().ComponentStatuses().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Items {
		if len(c.Conditions) != 1 || c.Conditions[0].Type != corev1.ComponentHealthy || c.Conditions[0].Status != corev1.ConditionTrue {
			t.Errorf("%s: got %v, want it healthy", c.Name, c.Conditions)
		}
	}
	if len(list.Items) == 0 {
		t.Error("no components")
	}
	raw, err := f.client(t, f.admin(t)).CoreV1().RESTClient().Get().Resource("componentstatuses").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var shown metav1.Table
	if err := json.Unmarshal(raw, &shown); err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, c := range shown.ColumnDefinitions {
		columns = append(columns, c.Name)
	}
	if want := []string{"Name", "Status", "Message", "Error"}; !slices.Equal(columns, want) {
		t.Errorf("columns: got %q, want %q", columns, want)
	}
	for i, r := range shown.Rows {
		if got, want := fmt.Sprint(r.Cells), fmt.Sprint([]any{list.Items[i].Name, "Healthy", "ok", ""}); got != want {
			t.Errorf("row: got %s, want %s", got, want)
		}
	}
}
