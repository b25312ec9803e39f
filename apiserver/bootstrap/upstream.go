package bootstrap

import (
	_ "embed" // of upstream.txt
	"fmt"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed upstream.txt
var upstream string

// Upstream returns the roles and bindings of Kubernetes itself, of the
// features that are on by default.
func Upstream() (Access, error) {
	var a Access
	var rules *[]rbacv1.PolicyRule // of the role that was read last
	for line := range strings.Lines(upstream) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		var err error
		switch {
		case strings.HasPrefix(line, " "):
			err = addRule(rules, fields)
		case len(fields) < 2:
			err = fmt.Errorf("%q has no name", line)
		case strings.HasSuffix(fields[0], "binding"):
			err = a.addBinding(fields)
		default:
			rules, err = a.addRole(fields)
		}
		if err != nil {
			return Access{}, fmt.Errorf("read the first roles: %w", err)
		}
	}
	return a, nil
}

func addRule(rules *[]rbacv1.PolicyRule, fields []string) error {
	if rules == nil || len(fields) < 3 {
		return fmt.Errorf("rule %q belongs to no role or lacks a part", fields)
	}
	r := rbacv1.PolicyRule{Verbs: strings.Split(fields[0], ",")}
	if fields[1] == "url" {
		r.NonResourceURLs = strings.Split(fields[2], ",")
		*rules = append(*rules, r)
		return nil
	}
	for group := range strings.SplitSeq(fields[1], ",") {
		if group == "core" {
			group = ""
		}
		r.APIGroups = append(r.APIGroups, group)
	}
	r.Resources = strings.Split(fields[2], ",")
	if len(fields) > 3 {
		r.ResourceNames = strings.Split(fields[3], ",")
	}
	*rules = append(*rules, r)
	return nil
}

func (a *Access) addRole(fields []string) (*[]rbacv1.PolicyRule, error) {
	if fields[0] == "role" {
		namespace, name, _ := strings.Cut(fields[1], "/")
		r := &rbacv1.Role{ObjectMeta: meta(namespace, name)}
		a.Roles = append(a.Roles, r)
		return &r.Rules, nil
	}
	if fields[0] != "clusterrole" {
		return nil, fmt.Errorf("%q is unknown", fields[0])
	}
	r := &rbacv1.ClusterRole{ObjectMeta: meta("", fields[1])}
	for _, f := range fields[2:] {
		kind, name, _ := strings.Cut(f, "=")
		switch kind {
		case "to":
			r.Labels[aggregateTo+name] = "true"
		case "sum":
			r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
				{MatchLabels: map[string]string{aggregateTo + name: "true"}},
			}}
		default:
			return nil, fmt.Errorf("%q is unknown", f)
		}
	}
	a.ClusterRoles = append(a.ClusterRoles, r)
	return &r.Rules, nil
}

func (a *Access) addBinding(fields []string) error {
	var ref rbacv1.RoleRef
	var subjects []rbacv1.Subject
	for _, f := range fields[2:] {
		kind, name, _ := strings.Cut(f, "=")
		switch kind {
		case "clusterrole":
			ref = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
		case "role":
			ref = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}
		case "user":
			subjects = append(subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name})
		case "group":
			subjects = append(subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name})
		case "account":
			namespace, account, _ := strings.Cut(name, "/")
			subjects = append(subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account})
		default:
			return fmt.Errorf("%q is unknown", f)
		}
	}
	if fields[0] == "rolebinding" {
		namespace, name, _ := strings.Cut(fields[1], "/")
		a.RoleBindings = append(a.RoleBindings, &rbacv1.RoleBinding{ObjectMeta: meta(namespace, name), RoleRef: ref, Subjects: subjects})
		return nil
	}
	a.ClusterRoleBindings = append(a.ClusterRoleBindings, &rbacv1.ClusterRoleBinding{ObjectMeta: meta("", fields[1]), RoleRef: ref, Subjects: subjects})
	return nil
}
