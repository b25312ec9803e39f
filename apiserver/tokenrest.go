package apiserver

import (
	"context"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"skein.dev/skein/apiserver/authn"
)

const (
	tokenDefault = int64(3600)
	tokenMin     = int64(600)
	tokenMax     = int64(1) << 32
)

// tokenREST issues service account tokens: serviceaccounts/token.
type tokenREST struct{ server *Server }

var (
	_ rest.NamedCreater             = (*tokenREST)(nil)
	_ rest.GroupVersionKindProvider = (*tokenREST)(nil)
	// A request may name the UID of the account it is for.
	_ rest.SubresourceObjectMetaPreserver = (*tokenREST)(nil)
)

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate implements
// rest.SubresourceObjectMetaPreserver.
func (*tokenREST) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// New implements rest.Storage.
func (*tokenREST) New() runtime.Object { return &authenticationv1.TokenRequest{} }

// Destroy implements rest.Storage.
func (*tokenREST) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (*tokenREST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
}

// Create implements rest.NamedCreater.
func (t *tokenREST) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	req, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected a TokenRequest, got %T", obj))
	}
	namespace := genericapirequest.NamespaceValue(ctx)
	if err := sameMeta(req, name, namespace); err != nil {
		return nil, err
	}
	sa, err := t.account(ctx, name)
	if err != nil {
		return nil, err
	}
	if req.UID != "" && req.UID != sa.UID {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: authenticationv1.GroupName, Resource: "TokenRequest"}, name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", req.UID, sa.UID))
	}
	req.Name, req.Namespace, req.UID, req.CreationTimestamp = sa.Name, sa.Namespace, sa.UID, metav1.Now()
	req.Status = authenticationv1.TokenRequestStatus{}
	t.complete(req)
	if errs := checkTokenRequest(req); len(errs) > 0 {
		return nil, apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), "", errs)
	}
	if validate != nil {
		if err := validate(ctx, req.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	bound := authn.Bound{Account: sa, Audiences: req.Spec.Audiences, TTL: time.Duration(*req.Spec.ExpirationSeconds) * time.Second}
	if ref := req.Spec.BoundObjectRef; ref != nil {
		if err := t.bind(ctx, ref, namespace, sa, &bound); err != nil {
			return nil, err
		}
	}
	if len(options.DryRun) > 0 {
		req.Status = authenticationv1.TokenRequestStatus{ExpirationTimestamp: metav1.NewTime(time.Now().Add(bound.TTL))}
		return req, nil
	}
	token, expires, err := t.server.tokens.Issue(bound)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	req.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	return req, nil
}

// sameMeta demands that a request name the account of its path, if any.
func sameMeta(req *authenticationv1.TokenRequest, name, namespace string) error {
	var errs field.ErrorList
	if req.Name != "" && req.Name != name {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), req.Name, "must match the service account name if specified"))
	}
	if req.Namespace != "" && req.Namespace != namespace {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "namespace"), req.Namespace, "must match the service account namespace if specified"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), name, errs)
	}
	return nil
}

// account reads linearizably: a token for an account just made must be had.
func (t *tokenREST) account(ctx context.Context, name string) (*corev1.ServiceAccount, error) {
	obj, err := t.server.resources["/serviceaccounts"].Store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	sa, ok := obj.(*corev1.ServiceAccount)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("service account is a %T", obj))
	}
	return sa, nil
}

func (t *tokenREST) complete(req *authenticationv1.TokenRequest) {
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = t.server.tokens.Audiences()
	}
	if req.Spec.ExpirationSeconds == nil {
		seconds := tokenDefault
		req.Spec.ExpirationSeconds = &seconds
	}
}

func checkTokenRequest(req *authenticationv1.TokenRequest) (errs field.ErrorList) {
	path, seconds := field.NewPath("spec", "expirationSeconds"), *req.Spec.ExpirationSeconds
	if seconds < tokenMin {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	}
	if seconds > tokenMax {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}

// bind finds the object that the token is to die with.
func (t *tokenREST) bind(ctx context.Context, ref *authenticationv1.BoundObjectReference, namespace string, sa *corev1.ServiceAccount, b *authn.Bound) error {
	r := reader{t.server}
	var uid types.UID
	found := false
	// What was created a moment ago through another peer must be found.
	if err := r.CatchUp(ctx); err != nil {
		return err
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	if gvk.Group != "" {
		return apierrors.NewBadRequest("cannot bind token to object of type " + gvk.String())
	}
	switch ref.Kind {
	case "Pod":
		if b.Pod = r.Pod(namespace, ref.Name); b.Pod != nil {
			found, uid = true, b.Pod.UID
			if b.Pod.Spec.ServiceAccountName != sa.Name {
				return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
			}
			if name := b.Pod.Spec.NodeName; name != "" {
				if b.Node = r.Node(name); b.Node == nil {
					b.Node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} // its name is worth knowing all the same
				}
			}
		}
	case "Secret":
		if b.Secret = r.Secret(namespace, ref.Name); b.Secret != nil {
			found, uid = true, b.Secret.UID
		}
	case "Node":
		if b.Node = r.Node(ref.Name); b.Node != nil {
			found, uid = true, b.Node.UID
		}
	default:
		return apierrors.NewBadRequest("cannot bind token to object of type " + gvk.String())
	}
	gr := schema.GroupResource{Resource: strings.ToLower(ref.Kind) + "s"}
	if !found {
		return apierrors.NewNotFound(gr, ref.Name)
	}
	if ref.UID != "" && ref.UID != uid {
		return apierrors.NewConflict(schema.GroupResource{Resource: ref.Kind}, ref.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return nil
}
