package kubelet

import (
	"context"
	"fmt"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// objects reads what pods refer to. Version "0" is served from the local
// replica, which is as new as the binding of the pod that it also served:
// informers of other kinds may lag behind the pods' one.
type objects struct{ client kubernetes.Interface }

func local() metav1.GetOptions { return metav1.GetOptions{ResourceVersion: "0"} }

// ConfigMap implements the readers of packages spec and volume.
func (o *objects) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return o.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, local())
}

// Secret implements the readers of packages spec and volume.
func (o *objects) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return o.client.CoreV1().Secrets(namespace).Get(ctx, name, local())
}

// Token implements volume.Objects.
func (o *objects) Token(ctx context.Context, namespace, account string, req *authv1.TokenRequest) (*authv1.TokenRequest, error) {
	return o.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, req, metav1.CreateOptions{})
}

// Claimed implements volume.Objects.
func (o *objects) Claimed(ctx context.Context, namespace, claim string) (*corev1.PersistentVolume, error) {
	c, err := o.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, claim, local())
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	if c.Status.Phase != corev1.ClaimBound || c.Spec.VolumeName == "" {
		return nil, fmt.Errorf("persistentvolumeclaim %q is not bound", claim)
	}
	pv, err := o.client.CoreV1().PersistentVolumes().Get(ctx, c.Spec.VolumeName, local())
	if err != nil {
		return nil, fmt.Errorf("read volume: %w", err)
	}
	return pv, nil
}

// runtimeHandler returns the runtime's own name of a RuntimeClass.
func (o *objects) runtimeHandler(ctx context.Context, class string) (string, error) {
	rc, err := o.client.NodeV1().RuntimeClasses().Get(ctx, class, local())
	if err != nil {
		return "", fmt.Errorf("read runtime class: %w", err)
	}
	return rc.Handler, nil
}
