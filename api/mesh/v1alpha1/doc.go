// Package v1alpha1 is the mesh's own API group, mesh.skein.dev/v1alpha1.
//
// Its invariant: a Peer's spec changes only when an operator or the peer
// itself acts; what is observed (health, leadership) is never stored in it,
// so an idle mesh writes nothing.
//
// +k8s:deepcopy-gen=package
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=dev.skein.mesh.v1alpha1
// +groupName=mesh.skein.dev
package v1alpha1
