package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/controllers"
)

// kits makes each component's access to the cluster.
type kits struct {
	peer      member.Name
	config    func(user string) *rest.Config
	informers informers.SharedInformerFactory
	settled   func() bool
	log       *slog.Logger
}

// client returns a client that acts as user.
func (k *kits) client(user string) (*rest.Config, *kubernetes.Clientset, error) {
	cfg := k.config(user)
	cfg.WarningHandlerWithContext = rest.NoWarnings{} // they are meant for people
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("make client of %s: %w", user, err)
	}
	return cfg, client, nil
}

// make returns the kit of the component name, which acts as user. Its events
// are sent until ctx ends.
func (k *kits) make(ctx context.Context, name, user string) (component.Kit, error) {
	_, client, err := k.client(user)
	if err != nil {
		return component.Kit{}, err
	}
	broadcaster, err := recordTo(ctx, &events.EventSinkImpl{Interface: client.EventsV1()})
	if err != nil {
		return component.Kit{}, fmt.Errorf("start recorder of %s: %w", name, err)
	}
	return k.of(name, client, broadcaster), nil
}

func (k *kits) of(name string, client kubernetes.Interface, broadcaster events.EventBroadcaster) component.Kit {
	return component.Kit{
		Peer: k.peer, Client: client, Informers: k.informers,
		Recorder: broadcaster.NewRecorder(scheme.Scheme, name),
		Log:      k.log.With("component", name), Settled: k.settled,
	}
}

// recordTo sends events to sink until ctx ends.
func recordTo(ctx context.Context, sink events.EventSink) (events.EventBroadcaster, error) {
	b := events.NewBroadcaster(sink)
	if err := b.StartRecordingToSinkWithContext(ctx); err != nil {
		return nil, fmt.Errorf("start to record events: %w", err)
	}
	return b, nil
}

// controllers returns what gives each controller the access of its own user.
// Events of all go through one broadcaster, for each holds room for thousands.
func (k *kits) controllers(ctx context.Context) (func(user string) (controllers.Access, error), error) {
	sinks := reporters{}
	broadcaster, err := recordTo(ctx, sinks)
	if err != nil {
		return nil, err
	}
	return func(user string) (controllers.Access, error) {
		cfg, client, err := k.client(user)
		if err != nil {
			return controllers.Access{}, err
		}
		md, err := metadata.NewForConfig(cfg)
		if err != nil {
			return controllers.Access{}, fmt.Errorf("make metadata client of %s: %w", user, err)
		}
		name := user[strings.LastIndex(user, ":")+1:]
		sinks[name] = &events.EventSinkImpl{Interface: client.EventsV1()}
		return controllers.Access{Kit: k.of(name, client, broadcaster), Metadata: md}, nil
	}, nil
}

// reporters are where the events of controllers go, by who reports them. It
// is complete before the first event and implements events.EventSink.
type reporters map[string]events.EventSink

func (r reporters) of(e *eventsv1.Event) (events.EventSink, error) {
	if s := r[e.ReportingController]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%w: %q", errReporter, e.ReportingController)
}

var errReporter = errors.New("send event: nobody of that name reports")

// Create implements events.EventSink.
func (r reporters) Create(ctx context.Context, e *eventsv1.Event) (*eventsv1.Event, error) {
	s, err := r.of(e)
	if err != nil {
		return nil, err
	}
	return s.Create(ctx, e) //nolint:wrapcheck // the broadcaster looks at the kind
}

// Update implements events.EventSink.
func (r reporters) Update(ctx context.Context, e *eventsv1.Event) (*eventsv1.Event, error) {
	s, err := r.of(e)
	if err != nil {
		return nil, err
	}
	return s.Update(ctx, e) //nolint:wrapcheck // the broadcaster looks at the kind
}

// Patch implements events.EventSink.
func (r reporters) Patch(ctx context.Context, e *eventsv1.Event, data []byte) (*eventsv1.Event, error) {
	s, err := r.of(e)
	if err != nil {
		return nil, err
	}
	return s.Patch(ctx, e, data) //nolint:wrapcheck // the broadcaster looks at the kind
}
