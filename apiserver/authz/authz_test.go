package authz_test

import (
	"context"
	"iter"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skein.dev/skein/apiserver/authz"
	"skein.dev/skein/apiserver/bootstrap"
)

// request is written "verb group/resource/sub namespace/name" by its fields.
type request struct {
	user   string
	groups []string
	verb   string
	group  string
	res    string
	sub    string
	ns     string
	name   string
	path   string
	field  string // "name=value" of the field selector
}

func (r request) attributes() authorizer.Attributes {
	var wanted fields.Requirements
	if r.field != "" {
		wanted = fields.ParseSelectorOrDie(r.field).Requirements()
	}
	return authorizer.AttributesRecord{
		FieldSelectorRequirements: wanted,
		User:                      &user.DefaultInfo{Name: r.user, Groups: r.groups}, Verb: r.verb, APIGroup: r.group, Resource: r.res, Subresource: r.sub,
		Namespace: r.ns, Name: r.name, Path: r.path, ResourceRequest: r.path == "",
	}
}

// objects are a replica, by "group/resource".
type objects map[string][]runtime.Object

func (o objects) Each(resource, namespace string) iter.Seq[runtime.Object] {
	return func(yield func(runtime.Object) bool) {
		for _, obj := range o[resource] {
			m, err := meta.Accessor(obj)
			if err == nil && (namespace == "" || m.GetNamespace() == namespace) && !yield(obj) {
				return
			}
		}
	}
}

func (o objects) Get(resource, namespace, name string) runtime.Object {
	for obj := range o.Each(resource, namespace) {
		if m, err := meta.Accessor(obj); err == nil && m.GetName() == name {
			return obj
		}
	}
	return nil
}

// volume is one of a CSI driver that is opened with the secret csi/secret.
func volume(name, namespace, claim, secret string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef: &corev1.ObjectReference{Namespace: namespace, Name: claim},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			NodeStageSecretRef: &corev1.SecretReference{Namespace: "csi", Name: secret},
		}},
	}}
}

func decide(t *testing.T, a authorizer.Authorizer, r request) bool {
	t.Helper()
	d, _, err := a.Authorize(context.Background(), r.attributes())
	if err != nil {
		t.Fatal(err)
	}
	return d == authorizer.DecisionAllow
}

func TestRolesAllowWhatTheySayAndNothingElse(t *testing.T) {
	first, err := bootstrap.First()
	if err != nil {
		t.Fatal(err)
	}
	policy := authz.Policy{
		ClusterRoles: append(first.ClusterRoles,
			&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "crontab-view", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}}, Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{"stable.example.com"}, Resources: []string{"crontabs"}, Verbs: []string{"get"}},
			}}),
		ClusterRoleBindings: first.ClusterRoleBindings,
		Roles: []*rbacv1.Role{{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "one-map"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"mine"}, Verbs: []string{"get", "update"}},
			{APIGroups: []string{""}, Resources: []string{"*/log"}, Verbs: []string{"get"}},
		}}},
		RoleBindings: []*rbacv1.RoleBinding{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "one-map"}},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "b"}, Subjects: []rbacv1.Subject{{Kind: "Group", Name: "devs"}}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "admin"}},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "bot"}}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}},
		},
	}
	rbac := authz.NewRBAC(func() authz.Policy { return policy })
	rbac.Refresh()
	bot, finisher := "system:serviceaccount:n:bot", "system:serviceaccount:kube-system:namespace-controller"
	all := []string{user.AllAuthenticated}
	for name, row := range map[string]struct {
		request
		want bool
	}{
		"a named object":                  {request{user: "ann", verb: "get", res: "configmaps", ns: "n", name: "mine"}, true},
		"another name":                    {request{user: "ann", verb: "get", res: "configmaps", ns: "n", name: "yours"}, false},
		"a list of named objects":         {request{user: "ann", verb: "list", res: "configmaps", ns: "n"}, false},
		"another namespace":               {request{user: "ann", verb: "get", res: "configmaps", ns: "m", name: "mine"}, false},
		"a subresource by star":           {request{user: "ann", verb: "get", res: "pods", sub: "log", ns: "n", name: "p"}, true},
		"not the resource of it":          {request{user: "ann", verb: "get", res: "pods", ns: "n", name: "p"}, false},
		"admin by group":                  {request{user: "eve", groups: []string{"devs"}, verb: "create", group: "apps", res: "deployments", ns: "n"}, true},
		"admin sums up view of others":    {request{user: "eve", groups: []string{"devs"}, verb: "get", group: "stable.example.com", res: "crontabs", ns: "n"}, true},
		"admin of one namespace":          {request{user: "eve", groups: []string{"devs"}, verb: "create", group: "apps", res: "deployments", ns: "m"}, false},
		"admin makes no nodes":            {request{user: "eve", groups: []string{"devs"}, verb: "create", res: "nodes"}, false},
		"view reads pods":                 {request{user: bot, verb: "list", res: "pods", ns: "n"}, true},
		"view reads no secrets":           {request{user: bot, verb: "get", res: "secrets", ns: "n", name: "s"}, false},
		"view writes nothing":             {request{user: bot, verb: "create", res: "pods", ns: "n"}, false},
		"anybody discovers":               {request{user: "x", groups: all, verb: "get", path: "/apis/apps/v1"}, true},
		"nobody unknown discovers":        {request{user: user.Anonymous, groups: []string{user.AllUnauthenticated}, verb: "get", path: "/apis"}, false},
		"everybody sees the version":      {request{user: user.Anonymous, groups: []string{user.AllUnauthenticated}, verb: "get", path: "/version"}, true},
		"the scheduler binds":             {request{user: user.KubeScheduler, verb: "create", res: "pods", sub: "binding", ns: "n", name: "p"}, true},
		"the scheduler reads no secrets":  {request{user: user.KubeScheduler, verb: "get", res: "secrets", ns: "n", name: "s"}, false},
		"one controller ends namespaces":  {request{user: finisher, verb: "update", res: "namespaces", sub: "finalize", name: "n"}, true},
		"the others do not":               {request{user: user.KubeControllerManager, verb: "update", res: "namespaces", sub: "finalize", name: "n"}, false},
		"controllers create no role":      {request{user: user.KubeControllerManager, verb: "create", group: "rbac.authorization.k8s.io", res: "clusterrolebindings"}, false},
		"everybody may ask about himself": {request{user: "x", groups: all, verb: "create", group: "authorization.k8s.io", res: "selfsubjectaccessreviews"}, true},
		"not everybody asks about others": {request{user: "x", groups: all, verb: "create", group: "authorization.k8s.io", res: "subjectaccessreviews"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(t, rbac, row.request); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestNodesReachWhatTheirPodsNeed(t *testing.T) {
	pods := []*corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "here"}, Spec: corev1.PodSpec{
			NodeName: "a", ServiceAccountName: "bot", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
			Containers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}}}}},
			Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "projected"}}},
			}}}}, {Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}, {
				Name: "eph", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}},
			}},
			ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: new("gpu")}, {Name: "made", ResourceClaimTemplateName: new("t")}},
		}, Status: corev1.PodStatus{ResourceClaimStatuses: []corev1.PodResourceClaimStatus{{Name: "made", ResourceClaimName: new("here-made")}}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "mirror", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}}, Spec: corev1.PodSpec{
			NodeName: "a", Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "grabbed"}}}},
		}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "there"}, Spec: corev1.PodSpec{
			NodeName: "b", ServiceAccountName: "other", Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "theirs"}}}},
		}},
	}
	kept := objects{}
	for _, p := range pods {
		kept["/pods"] = append(kept["/pods"], p)
	}
	slice, own := "a", resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice-a"}}
	own.Spec.NodeName = &slice
	kept["/persistentvolumes"] = []runtime.Object{
		volume("mine", "n", "data", "stage"), volume("theirs", "n", "theirs", "other"),
	}
	kept["resource.k8s.io/resourceslices"] = []runtime.Object{&own, &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice-b"}}}
	kept["storage.k8s.io/volumeattachments"] = []runtime.Object{
		&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "va-a"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "a"}},
		&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "va-b"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "b"}},
	}
	kept["certificates.k8s.io/podcertificaterequests"] = []runtime.Object{
		&certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "pcr-a"}, Spec: certificatesv1.PodCertificateRequestSpec{NodeName: "a"}},
		&certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "pcr-b"}, Spec: certificatesv1.PodCertificateRequestSpec{NodeName: "b"}},
	}
	node := &authz.Node{Objects: kept}
	const certs, dra, storage = "certificates.k8s.io", "resource.k8s.io", "storage.k8s.io"
	for name, row := range map[string]struct {
		request
		want bool
	}{
		"its node's status":               {request{verb: "patch", res: "nodes", sub: "status", name: "a"}, true},
		"another node's status":           {request{verb: "patch", res: "nodes", sub: "status", name: "b"}, false},
		"deletes no node":                 {request{verb: "delete", res: "nodes", name: "a"}, false},
		"its pod's status":                {request{verb: "patch", res: "pods", sub: "status", ns: "n", name: "here"}, true},
		"another's pod's status":          {request{verb: "patch", res: "pods", sub: "status", ns: "n", name: "there"}, false},
		"deletes its pod":                 {request{verb: "delete", res: "pods", ns: "n", name: "here"}, true},
		"binds nothing":                   {request{verb: "create", res: "pods", sub: "binding", ns: "n", name: "here"}, false},
		"a pull secret":                   {request{verb: "get", res: "secrets", ns: "n", name: "pull"}, true},
		"a projected secret":              {request{verb: "get", res: "secrets", ns: "n", name: "projected"}, true},
		"another's secret":                {request{verb: "get", res: "secrets", ns: "n", name: "theirs"}, false},
		"all secrets":                     {request{verb: "list", res: "secrets", ns: "n"}, false},
		"writes no secret":                {request{verb: "update", res: "secrets", ns: "n", name: "pull"}, false},
		"a config map of the environment": {request{verb: "watch", res: "configmaps", ns: "n", name: "env"}, true},
		"a config map of nobody":          {request{verb: "get", res: "configmaps", ns: "n", name: "x"}, false},
		"its pod's account's token":       {request{verb: "create", res: "serviceaccounts", sub: "token", ns: "n", name: "bot"}, true},
		"another account's token":         {request{verb: "create", res: "serviceaccounts", sub: "token", ns: "n", name: "other"}, false},
		"services":                        {request{verb: "list", res: "services"}, true},
		"a secret by a mirror pod":        {request{verb: "get", res: "secrets", ns: "n", name: "grabbed"}, false},
		"its pod's account":               {request{verb: "get", res: "serviceaccounts", ns: "n", name: "bot"}, true},
		"another account":                 {request{verb: "get", res: "serviceaccounts", ns: "n", name: "other"}, false},
		"lists no accounts":               {request{verb: "list", res: "serviceaccounts", ns: "n"}, false},
		"its pod's claim":                 {request{verb: "get", res: "persistentvolumeclaims", ns: "n", name: "data"}, true},
		"its pod's ephemeral claim":       {request{verb: "get", res: "persistentvolumeclaims", ns: "n", name: "here-eph"}, true},
		"its pod's claim's status":        {request{verb: "patch", res: "persistentvolumeclaims", sub: "status", ns: "n", name: "data"}, true},
		"changes no claim":                {request{verb: "patch", res: "persistentvolumeclaims", ns: "n", name: "data"}, false},
		"its pod's volume":                {request{verb: "get", res: "persistentvolumes", name: "mine"}, true},
		"another's volume":                {request{verb: "get", res: "persistentvolumes", name: "theirs"}, false},
		"lists no volumes":                {request{verb: "list", res: "persistentvolumes"}, false},
		"its volume's secret":             {request{verb: "get", res: "secrets", ns: "csi", name: "stage"}, true},
		"another's volume's secret":       {request{verb: "get", res: "secrets", ns: "csi", name: "other"}, false},
		"its attachment":                  {request{verb: "get", group: storage, res: "volumeattachments", name: "va-a"}, true},
		"another's attachment":            {request{verb: "get", group: storage, res: "volumeattachments", name: "va-b"}, false},
		"its CSI node":                    {request{verb: "update", group: storage, res: "csinodes", name: "a"}, true},
		"another's CSI node":              {request{verb: "update", group: storage, res: "csinodes", name: "b"}, false},
		"lists no CSI nodes":              {request{verb: "list", group: storage, res: "csinodes"}, false},
		"its resource claim":              {request{verb: "get", group: dra, res: "resourceclaims", ns: "n", name: "gpu"}, true},
		"its claim from a template":       {request{verb: "get", group: dra, res: "resourceclaims", ns: "n", name: "here-made"}, true},
		"another's resource claim":        {request{verb: "get", group: dra, res: "resourceclaims", ns: "n", name: "x"}, false},
		"its slice":                       {request{verb: "update", group: dra, res: "resourceslices", name: "slice-a"}, true},
		"another's slice":                 {request{verb: "delete", group: dra, res: "resourceslices", name: "slice-b"}, false},
		"its slices by field":             {request{verb: "deletecollection", group: dra, res: "resourceslices", field: "spec.nodeName=a"}, true},
		"all slices":                      {request{verb: "deletecollection", group: dra, res: "resourceslices"}, false},
		"trust bundles":                   {request{verb: "watch", group: certs, res: "clustertrustbundles"}, true},
		"asks for a certificate":          {request{verb: "create", group: certs, res: "podcertificaterequests", ns: "n"}, true},
		"its request":                     {request{verb: "get", group: certs, res: "podcertificaterequests", ns: "n", name: "pcr-a"}, true},
		"another's request":               {request{verb: "get", group: certs, res: "podcertificaterequests", ns: "n", name: "pcr-b"}, false},
		"its requests by field":           {request{verb: "watch", group: certs, res: "podcertificaterequests", field: "spec.nodeName=a"}, true},
		"another's requests by field":     {request{verb: "watch", group: certs, res: "podcertificaterequests", field: "spec.nodeName=b"}, false},
		"signs nothing":                   {request{verb: "update", group: certs, res: "podcertificaterequests", sub: "status", ns: "n", name: "pcr-a"}, false},
		"its lease":                       {request{verb: "update", group: "coordination.k8s.io", res: "leases", ns: "kube-node-lease", name: "a"}, true},
		"another's lease":                 {request{verb: "update", group: "coordination.k8s.io", res: "leases", ns: "kube-node-lease", name: "b"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.request
			r.user, r.groups = "system:node:a", []string{user.NodesGroup}
			if got := decide(t, node, r); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
			r.groups = nil
			if decide(t, node, r) {
				t.Error("allowed without the nodes' group")
			}
		})
	}
}
