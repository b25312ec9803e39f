package apiserver

import (
	"context"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta/table"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
)

// components serves componentstatuses, which are asked for and never stored.
// Here the parts of a cluster are the checks that make a peer ready.
type components struct{ checks []component }

type component struct {
	name  string
	check func(*http.Request) error
}

var (
	_ rest.Lister               = (*components)(nil) // and by it a rest.TableConvertor
	_ rest.Getter               = (*components)(nil)
	_ rest.Scoper               = (*components)(nil)
	_ rest.ShortNamesProvider   = (*components)(nil)
	_ rest.SingularNameProvider = (*components)(nil)
)

func (s *Server) components() *components {
	c := &components{checks: []component{{"first-objects", s.first}, {"store-quorum", s.quorum}}}
	if s.audit.log != nil {
		c.checks = append(c.checks, component{"audit-log", s.audit.log.state})
	}
	return c
}

// New implements rest.Storage.
func (*components) New() runtime.Object { return &corev1.ComponentStatus{} }

// NewList implements rest.Lister.
func (*components) NewList() runtime.Object { return &corev1.ComponentStatusList{} }

// Destroy implements rest.Storage.
func (*components) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*components) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (*components) GetSingularName() string { return "componentstatus" }

// ShortNames implements rest.ShortNamesProvider.
func (*components) ShortNames() []string { return []string{"cs"} }

// List implements rest.Lister. Like upstream's it knows no labels.
func (c *components) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	list := &corev1.ComponentStatusList{Items: []corev1.ComponentStatus{}}
	if options != nil && options.LabelSelector != nil && !options.LabelSelector.Empty() {
		return list, nil
	}
	for _, one := range c.checks {
		list.Items = append(list.Items, *one.status(ctx))
	}
	return list, nil
}

// Get implements rest.Getter.
func (c *components) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	for _, one := range c.checks {
		if one.name == name {
			return one.status(ctx), nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("componentstatus"), name)
}

// ConvertToTable implements rest.TableConvertor.
func (*components) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		docs := corev1.ComponentCondition{}.SwaggerDoc()
		out.ColumnDefinitions = []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
			{Name: "Status", Type: "string", Description: docs["status"]},
			{Name: "Message", Type: "string", Description: docs["message"]},
			{Name: "Error", Type: "string", Description: docs["error"]},
		}
	}
	var err error
	if out.Rows, err = table.MetaToTableRow(obj, componentRow); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return out, nil
}

func componentRow(obj runtime.Object, _ metav1.Object, name, _ string) ([]any, error) {
	status, message, failure := "Unknown", "", ""
	if c, ok := obj.(*corev1.ComponentStatus); ok {
		for _, cond := range c.Conditions {
			if cond.Type != corev1.ComponentHealthy {
				continue
			}
			if status = "Unhealthy"; cond.Status == corev1.ConditionTrue {
				status = "Healthy"
			}
			message, failure = cond.Message, cond.Error
		}
	}
	return []any{name, status, message, failure}, nil
}

func (c *component) status(ctx context.Context) *corev1.ComponentStatus {
	cond := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/readyz", http.NoBody)
	if err == nil {
		err = c.check(req)
	}
	if err != nil {
		cond.Status, cond.Message, cond.Error = corev1.ConditionFalse, "", err.Error()
	}
	return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Conditions: []corev1.ComponentCondition{cond}}
}
