// Package component is what a part of the control plane or of the node is
// given to work with: Kubernetes clients and nothing of the store.
//
// Its invariant: a component that needs only a Kit also runs out of process
// with a kubeconfig, as its own user, under RBAC.
package component

import (
	"log/slog"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/member"
)

// Kit is one component's access to the cluster.
type Kit struct {
	// Peer is the name of the peer the component runs on.
	Peer member.Name
	// Client acts as the component's own user. Its requests carry the fence
	// of their context (package role).
	Client kubernetes.Interface
	// Informers are shared by all components of the peer and read the local
	// replica. A component takes its informers and handlers in New; the
	// daemon starts the factory. Objects from listers are read-only.
	Informers informers.SharedInformerFactory
	// Recorder writes events.k8s.io/v1 Events as the component.
	Recorder events.EventRecorder
	// Log has the attribute component set. Never nil.
	Log *slog.Logger
	// Settled reports whether the replica has been verified against the
	// quorum since start: before that, adopt what is found, delete nothing.
	// Nil means always.
	Settled func() bool
}
