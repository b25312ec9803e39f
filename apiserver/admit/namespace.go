package admit

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// namespaceLifecycle lets nothing be created in a namespace that is not there
// or is going, and keeps the namespaces that the cluster cannot do without.
func (c Config) namespaceLifecycle(ctx context.Context, a admission.Attributes) error {
	if a.GetKind().GroupKind() == corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind() {
		if a.GetOperation() == admission.Delete && immortal(a.GetName()) {
			return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	if a.GetNamespace() == "" || a.GetOperation() == admission.Delete || a.GetResource().Group == "authorization.k8s.io" {
		return nil
	}
	ns := namespaceOf(c.Reader, a.GetNamespace())
	if ns == nil {
		if err := c.Reader.CatchUp(ctx); err != nil {
			return err
		}
		if ns = namespaceOf(c.Reader, a.GetNamespace()); ns == nil {
			return apierrors.NewNotFound(corev1.Resource("namespaces"), a.GetNamespace())
		}
	}
	if a.GetOperation() != admission.Create || ns.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	err := admission.NewForbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", ns.Name))
	if st, ok := err.(*apierrors.StatusError); ok { //nolint:errorlint // it was made a line above
		st.ErrStatus.Details.Causes = append(st.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", ns.Name), Field: "metadata.namespace",
		})
	}
	return err
}

func immortal(name string) bool {
	return name == metav1.NamespaceDefault || name == metav1.NamespaceSystem || name == metav1.NamespacePublic
}
