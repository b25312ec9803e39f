package registry

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
)

// table shows objects as the rows that kubectl prints.
type table struct{ kind *Kind }

var _ rest.TableConvertor = table{}

// ConvertToTable implements rest.TableConvertor.
func (t table) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	add := func(obj runtime.Object) error {
		m, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		out.Rows = append(out.Rows, metav1.TableRow{
			Cells: t.cells(obj, m), Object: runtime.RawExtension{Object: obj},
		})
		return nil
	}
	defer t.mark(out)
	if meta.IsListType(object) {
		if err := meta.EachListItem(object, add); err != nil {
			return nil, err
		}
	} else if err := add(object); err != nil {
		return nil, err
	}
	if m, err := meta.ListAccessor(object); err == nil {
		out.ResourceVersion, out.Continue, out.RemainingItemCount = m.GetResourceVersion(), m.GetContinue(), m.GetRemainingItemCount()
	} else if m, err := meta.CommonAccessor(object); err == nil {
		out.ResourceVersion = m.GetResourceVersion()
	}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		out.ColumnDefinitions = t.columns()
	}
	return out, nil
}

// mark names the defaults of a kind among the rows.
func (t table) mark(out *metav1.Table) {
	if t.kind.Marked == nil {
		return
	}
	var all []runtime.Object
	for i := range out.Rows {
		all = append(all, out.Rows[i].Object.Object)
	}
	names := t.kind.Marked(all)
	for i := range out.Rows {
		if name, ok := out.Rows[i].Cells[0].(string); ok && names[name] {
			out.Rows[i].Cells[0] = name + " (default)"
		}
	}
}

func (t table) cells(obj runtime.Object, m metav1.Object) []any {
	switch created := m.GetCreationTimestamp(); {
	case t.kind.NameInRow:
		return t.kind.Row(obj)
	case t.kind.Row != nil:
		return append([]any{m.GetName()}, t.kind.Row(obj)...)
	default:
		return []any{m.GetName(), created.UTC().Format(time.RFC3339)}
	}
}

func (t table) columns() []metav1.TableColumnDefinition {
	if t.kind.NameInRow {
		return t.kind.Columns
	}
	docs := metav1.ObjectMeta{}.SwaggerDoc()
	name := metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: docs["name"]}
	if t.kind.Row == nil {
		return []metav1.TableColumnDefinition{name, {Name: "Created At", Type: "date", Description: docs["creationTimestamp"]}}
	}
	return append([]metav1.TableColumnDefinition{name}, t.kind.Columns...)
}
