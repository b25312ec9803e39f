#!/usr/bin/env bash
# Writes the generated code again; what differs afterwards is to be committed.
# The tools are pinned in tools/go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."

module=skein.dev/skein
groups=("$module/api/mesh/v1alpha1")
tool() {
	go tool -modfile=tools/go.mod "$@"
}

tool deepcopy-gen --go-header-file /dev/null --output-file zz_generated.deepcopy.go "${groups[@]}"

# The definitions of everything served, upstream's types read from the module
# cache; the rules that openapi-gen's linter names are upstream's to follow.
served=(
	k8s.io/api/{admissionregistration,apps,authentication,authorization,autoscaling,batch,certificates}/v1
	k8s.io/api/{coordination,core,discovery,events,flowcontrol,networking,node,policy,rbac,resource,scheduling,storage,storagemigration}/v1
	k8s.io/api/autoscaling/v2
	k8s.io/api/scheduling/v1alpha3 # what a Job's spec refers to
	k8s.io/apimachinery/pkg/{api/resource,apis/meta/v1,runtime,util/intstr,version}
)
tool openapi-gen --go-header-file /dev/null -r /dev/null \
	--output-dir "${OPENAPI_DIR:-apiserver/openapi}" --output-pkg "$module/apiserver/openapi" \
	--output-file zz_generated.openapi.go --output-model-name-file zz_generated.model_name.go \
	"${served[@]}" "${groups[@]}"
