package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// SchemeGroupVersion is mesh.skein.dev/v1alpha1.
var SchemeGroupVersion = schema.GroupVersion{Group: "mesh.skein.dev", Version: "v1alpha1"} //nolint:gochecknoglobals // Kubernetes' own form for API groups

// AddToScheme registers the group's kinds in s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(SchemeGroupVersion, &Peer{}, &PeerList{})
	metav1.AddToGroupVersion(s, SchemeGroupVersion)
	return nil
}

// Class says how much a machine is trusted with.
type Class string

// Full peers hold the cluster's state; others come later.
const Full Class = "Full"

// Peer is one machine of the mesh. Its name is the peer's and its Node's.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type Peer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"` //nolint:modernize // as all of Kubernetes' kinds have it

	Spec PeerSpec `json:"spec"`
}

// PeerSpec is what the mesh must know to reach and to trust a peer.
type PeerSpec struct {
	// ServerID is the raft server id of the peer's data directory.
	ServerID string `json:"serverID"`
	// Class is Full for a peer with a replica.
	Class Class `json:"class"`
	// Addresses are the IP addresses peers dial, the preferred one first.
	Addresses []string `json:"addresses"`
	// Port is the peer's one port, 6443 by default.
	Port int32 `json:"port"`
	// Fingerprint is the hex SHA-256 of the public key (SPKI) of the peer's certificate.
	Fingerprint string `json:"fingerprint"`
	// Zone is the failure domain voters are spread over; may be empty.
	Zone string `json:"zone,omitempty"`
	// PodCIDRs are the ranges the peer gives pods addresses from, one per IP family.
	PodCIDRs []string `json:"podCIDRs,omitempty"`
	// Leaving is set by the peer's goodbye: the store leader then removes it from raft.
	Leaving bool `json:"leaving,omitempty"`
	// APIOnly says that the peer runs no pods and registers no Node.
	APIOnly bool `json:"apiOnly,omitempty"`
	// Declines are the roles that the peer never holds: scheduler, controllers.
	// +listType=set
	Declines []string `json:"declines,omitempty"`
}

// PeerList is a list of peers.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type PeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"` //nolint:modernize // as all of Kubernetes' kinds have it

	Items []Peer `json:"items"`
}
