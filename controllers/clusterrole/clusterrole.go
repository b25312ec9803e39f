// Package clusterrole fills the aggregated ClusterRoles.
//
// Its invariant: an aggregated role has the rules of the roles that its
// selectors choose, each rule once, in order of their names, and no others.
package clusterrole

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles ClusterRoles.
type Controller struct {
	kit   component.Kit
	roles rbaclisters.ClusterRoleLister
}

// New takes its informer from kit.
func New(kit component.Kit) (run.Controller, error) {
	roles := kit.Informers.Rbac().V1().ClusterRoles()
	c := &Controller{kit: kit, roles: roles.Lister()}
	return run.Controller{
		Name:      "clusterrole-aggregation-controller",
		Reads:     []run.Source{{Informer: roles.Informer(), Keys: c.aggregated, Changed: changed}},
		Writes:    []string{"clusterroles.rbac.authorization.k8s.io"},
		Reconcile: c.reconcile,
	}, nil
}

func changed(before, after any) bool {
	a, ok := before.(*rbacv1.ClusterRole)
	b, ok2 := after.(*rbacv1.ClusterRole)
	return !ok || !ok2 || !equality.Semantic.DeepEqual(a.Rules, b.Rules) || !equality.Semantic.DeepEqual(a.Labels, b.Labels) ||
		!equality.Semantic.DeepEqual(a.AggregationRule, b.AggregationRule)
}

// aggregated are the roles that may have to change with obj: itself, and
// those whose selectors choose it or whose rules it may have given.
func (c *Controller) aggregated(obj any) []run.Key {
	r, ok := obj.(*rbacv1.ClusterRole)
	if !ok {
		return nil
	}
	all, err := c.roles.List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	var keys []run.Key
	for _, a := range all {
		if a.AggregationRule != nil && (a.Name == r.Name || chooses(a, r)) {
			keys = append(keys, run.Key{Name: a.Name})
		}
	}
	return keys
}

func chooses(a, r *rbacv1.ClusterRole) bool {
	return a.Name != r.Name && slices.ContainsFunc(a.AggregationRule.ClusterRoleSelectors, func(s metav1.LabelSelector) bool {
		sel, err := metav1.LabelSelectorAsSelector(&s)
		return err == nil && sel.Matches(labels.Set(r.Labels))
	})
}

// Rules are what the aggregated role a should have.
func Rules(a *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	all = slices.Clone(all)
	slices.SortFunc(all, func(x, y *rbacv1.ClusterRole) int { return strings.Compare(x.Name, y.Name) })
	out := []rbacv1.PolicyRule{}
	for _, r := range all {
		if !chooses(a, r) {
			continue
		}
		for _, rule := range r.Rules {
			if !slices.ContainsFunc(out, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
				out = append(out, rule)
			}
		}
	}
	return out
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	a, err := c.roles.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read cluster role: %w", err)
	}
	if a.AggregationRule == nil {
		return 0, nil
	}
	all, err := c.roles.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list cluster roles: %w", err)
	}
	want := Rules(a, all)
	if equality.Semantic.DeepEqual(a.Rules, want) || (len(a.Rules) == 0 && len(want) == 0) {
		return 0, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": a.UID, "resourceVersion": a.ResourceVersion}, "rules": want})
	if err != nil {
		return 0, fmt.Errorf("encode rules: %w", err)
	}
	_, err = c.kit.Client.RbacV1().ClusterRoles().Patch(ctx, a.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("write rules of %s: %w", a.Name, err)
	}
	return 0, nil
}
