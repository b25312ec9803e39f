// Package review answers the questions that clients ask about users: who is
// this token, may this user do that.
//
// Its invariant: the answers come from the very authenticator and authorizer
// that requests pass, and nothing is stored.
package review

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Config is whom the reviews ask.
type Config struct {
	Tokens     authenticator.Token
	Audiences  []string
	Authorizer authorizer.Authorizer
	Rules      authorizer.RuleResolver
}

// Storages returns the REST storages of all reviews.
func Storages(c Config) map[schema.GroupVersion]map[string]rest.Storage {
	return map[schema.GroupVersion]map[string]rest.Storage{
		authenticationv1.SchemeGroupVersion: {
			"tokenreviews": &answer{name: "tokenreview", make: func() runtime.Object { return &authenticationv1.TokenReview{} }, reply: c.token},
			"selfsubjectreviews": &answer{
				name: "selfsubjectreview", make: func() runtime.Object { return &authenticationv1.SelfSubjectReview{} }, reply: self,
			},
		},
		authorizationv1.SchemeGroupVersion: {
			"subjectaccessreviews": &answer{
				name: "subjectaccessreview", make: func() runtime.Object { return &authorizationv1.SubjectAccessReview{} }, reply: c.access,
			},
			"selfsubjectaccessreviews": &answer{
				name: "selfsubjectaccessreview", make: func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} }, reply: c.selfAccess,
			},
			"localsubjectaccessreviews": &answer{
				name: "localsubjectaccessreview", namespaced: true,
				make: func() runtime.Object { return &authorizationv1.LocalSubjectAccessReview{} }, reply: c.localAccess,
			},
			"selfsubjectrulesreviews": &answer{
				name: "selfsubjectrulesreview", make: func() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} }, reply: c.selfRules,
			},
		},
	}
}

// answer is a resource that can only be created, and answers by that.
type answer struct {
	name       string
	namespaced bool
	make       func() runtime.Object
	reply      func(ctx context.Context, obj runtime.Object) error
}

var (
	_ rest.Creater              = (*answer)(nil)
	_ rest.Scoper               = (*answer)(nil)
	_ rest.SingularNameProvider = (*answer)(nil)
)

// New implements rest.Storage.
func (a *answer) New() runtime.Object { return a.make() }

// Destroy implements rest.Storage.
func (*answer) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (a *answer) NamespaceScoped() bool { return a.namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (a *answer) GetSingularName() string { return a.name }

// Create implements rest.Creater.
func (a *answer) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := a.reply(ctx, obj); err != nil {
		return nil, err
	}
	return obj, nil
}

func wrong(obj runtime.Object) error {
	return apierrors.NewBadRequest(fmt.Sprintf("unexpected object %T", obj))
}

func requester(ctx context.Context) (user.Info, error) {
	u, ok := genericapirequest.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	return u, nil
}

func self(ctx context.Context, obj runtime.Object) error {
	r, ok := obj.(*authenticationv1.SelfSubjectReview)
	if !ok {
		return wrong(obj)
	}
	u, err := requester(ctx)
	if err != nil {
		return err
	}
	r.Status.UserInfo = infoOf(u)
	return nil
}

func infoOf(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

func (c Config) token(ctx context.Context, obj runtime.Object) error {
	r, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return wrong(obj)
	}
	if r.Spec.Token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	wanted := r.Spec.Audiences
	if len(wanted) == 0 {
		wanted = c.Audiences
	}
	resp, ok, err := c.Tokens.AuthenticateToken(authenticator.WithAudiences(ctx, wanted), r.Spec.Token)
	r.Status = authenticationv1.TokenReviewStatus{Authenticated: ok && err == nil}
	if err != nil {
		r.Status.Error = err.Error()
	}
	if r.Status.Authenticated {
		r.Status.User = infoOf(resp.User)
		r.Status.User.Groups = append(append([]string{}, r.Status.User.Groups...), user.AllAuthenticated)
		r.Status.Audiences = resp.Audiences
	}
	return nil
}

func (c Config) selfRules(ctx context.Context, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return wrong(obj)
	}
	if r.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	u, err := requester(ctx)
	if err != nil {
		return err
	}
	resources, paths, incomplete, err := c.Rules.RulesFor(ctx, u, r.Spec.Namespace)
	if err != nil {
		r.Status.EvaluationError = err.Error()
	}
	r.Status.Incomplete = incomplete
	r.Status.ResourceRules, r.Status.NonResourceRules = []authorizationv1.ResourceRule{}, []authorizationv1.NonResourceRule{}
	for _, rule := range resources {
		r.Status.ResourceRules = append(r.Status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: rule.GetVerbs(), APIGroups: rule.GetAPIGroups(), Resources: rule.GetResources(), ResourceNames: rule.GetResourceNames(),
		})
	}
	for _, rule := range paths {
		r.Status.NonResourceRules = append(r.Status.NonResourceRules, authorizationv1.NonResourceRule{
			Verbs: rule.GetVerbs(), NonResourceURLs: rule.GetNonResourceURLs(),
		})
	}
	return nil
}
