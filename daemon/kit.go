package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
)

// kits makes each component's access to the cluster.
type kits struct {
	peer      member.Name
	config    func(user string) *rest.Config
	informers informers.SharedInformerFactory
	settled   func() bool
	log       *slog.Logger
}

// make returns the kit of the component name, which acts as user. Its events
// are sent until ctx ends.
func (k *kits) make(ctx context.Context, name, user string) (component.Kit, error) {
	cfg := k.config(user)
	cfg.WarningHandlerWithContext = rest.NoWarnings{} // they are meant for people
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return component.Kit{}, fmt.Errorf("make client of %s: %w", name, err)
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return component.Kit{}, fmt.Errorf("start recorder of %s: %w", name, err)
	}
	return component.Kit{
		Peer: k.peer, Client: client, Informers: k.informers,
		Recorder: broadcaster.NewRecorder(scheme.Scheme, name),
		Log:      k.log.With("component", name), Settled: k.settled,
	}, nil
}
