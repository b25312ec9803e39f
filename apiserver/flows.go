package apiserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	flowbootstrap "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/client-go/kubernetes"
	flowcontrolclient "k8s.io/client-go/kubernetes/typed/flowcontrol/v1"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/registry"
)

const (
	schemasResource = flowcontrolv1.GroupName + "/flowschemas"
	levelsResource  = flowcontrolv1.GroupName + "/prioritylevelconfigurations"
)

// keepFlows keeps the flows and levels that every cluster has, and follows
// those that users declare, until ctx ends. Upstream looks once a minute; here
// it is done when one of them changes.
func (s *Server) keepFlows(ctx context.Context) error {
	if s.resources[schemasResource] == nil || s.resources[levelsResource] == nil {
		return nil
	}
	client, err := kubernetes.NewForConfig(s.ClientConfig(selfUser))
	if err != nil {
		return err
	}
	prefix := registry.Root + "/" + flowcontrolv1.GroupName + "/"
	for ctx.Err() == nil {
		rev := s.cfg.Store.Local().Revision()
		w, err := s.cfg.Store.Watch(prefix, false, rev)
		if err == nil {
			err = s.followFlows(ctx, client.FlowcontrolV1(), w)
		}
		if errors.Is(err, store.ErrCompacted) || ctx.Err() != nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryMin):
		}
	}
	return nil
}

func (s *Server) followFlows(ctx context.Context, client flowcontrolclient.FlowcontrolV1Interface, w store.Watch) error {
	defer w.Close()
	for {
		err := s.untilDone(ctx, "keep flows", func(ctx context.Context) error { return s.ensureFlows(ctx, client) })
		if err != nil {
			return err
		}
		declared := s.flowsDeclared()
		s.fair.declared.Store(declared)
		if declared {
			s.fair.want()
		}
		for events := 0; events == 0; {
			all, _, err := w.Next(ctx, true)
			if err != nil {
				return err
			}
			events = len(all)
		}
	}
}

// bootLevels and bootSchemas are the objects of every cluster, by name.
func bootLevels() map[string]*flowcontrolv1.PriorityLevelConfiguration {
	all := map[string]*flowcontrolv1.PriorityLevelConfiguration{}
	for _, list := range [][]*flowcontrolv1.PriorityLevelConfiguration{
		flowbootstrap.SuggestedPriorityLevelConfigurations, flowbootstrap.MandatoryPriorityLevelConfigurations,
	} {
		for _, l := range list {
			all[l.Name] = l
		}
	}
	return all
}

func bootSchemas() map[string]*flowcontrolv1.FlowSchema {
	all := map[string]*flowcontrolv1.FlowSchema{}
	for _, list := range [][]*flowcontrolv1.FlowSchema{flowbootstrap.SuggestedFlowSchemas, flowbootstrap.MandatoryFlowSchemas} {
		for _, f := range list {
			all[f.Name] = f
		}
	}
	return all
}

// updated reports whether an object follows the version of the server: users
// take one over by setting the annotation to false.
func updated(m *metav1.ObjectMeta) bool {
	return m.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] == "true"
}

// ensureFlows creates what is missing and restores what is not taken over.
// Another peer may be faster; then there is nothing to do.
func (s *Server) ensureFlows(ctx context.Context, client flowcontrolclient.FlowcontrolV1Interface) error {
	for name, want := range bootLevels() {
		have := find[*flowcontrolv1.PriorityLevelConfiguration](s, levelsResource, "", name)
		var err error
		switch {
		case have == nil:
			_, err = client.PriorityLevelConfigurations().Create(ctx, want.DeepCopy(), metav1.CreateOptions{})
		case updated(&have.ObjectMeta) && !equality.Semantic.DeepEqual(have.Spec, want.Spec):
			have = have.DeepCopy()
			have.Spec = *want.Spec.DeepCopy()
			_, err = client.PriorityLevelConfigurations().Update(ctx, have, metav1.UpdateOptions{})
		}
		if err = overtaken(err); err != nil {
			return fmt.Errorf("keep level %s: %w", name, err)
		}
	}
	for name, want := range bootSchemas() {
		if err := s.ensureSchema(ctx, client.FlowSchemas(), want); err != nil {
			return fmt.Errorf("keep flow %s: %w", name, err)
		}
	}
	return nil
}

// ensureSchema also says that the flow's level exists, which otherwise is said
// when priority and fairness first has something to do.
func (s *Server) ensureSchema(ctx context.Context, client flowcontrolclient.FlowSchemaInterface, want *flowcontrolv1.FlowSchema) error {
	have := find[*flowcontrolv1.FlowSchema](s, schemasResource, "", want.Name)
	var err error
	switch {
	case have == nil:
		if have, err = client.Create(ctx, want.DeepCopy(), metav1.CreateOptions{}); err != nil {
			return overtaken(err)
		}
	case updated(&have.ObjectMeta) && !equality.Semantic.DeepEqual(have.Spec, want.Spec):
		have = have.DeepCopy()
		have.Spec = *want.Spec.DeepCopy()
		if have, err = client.Update(ctx, have, metav1.UpdateOptions{}); err != nil {
			return overtaken(err)
		}
	}
	if len(have.Status.Conditions) > 0 {
		return nil
	}
	have = have.DeepCopy()
	have.Status.Conditions = []flowcontrolv1.FlowSchemaCondition{{
		Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found",
		LastTransitionTime: metav1.Now(),
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists",
			have.Spec.PriorityLevelConfiguration.Name),
	}}
	_, err = client.UpdateStatus(ctx, have, metav1.UpdateOptions{})
	return overtaken(err)
}

// overtaken forgives that another peer was faster.
func overtaken(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return existing(err)
}

// flowsDeclared reports whether users have flows or levels of their own, or
// have taken one of every cluster's over.
func (s *Server) flowsDeclared() bool {
	schemas, levels := bootSchemas(), bootLevels()
	for f := range each[*flowcontrolv1.FlowSchema](s, schemasResource, "") {
		if schemas[f.Name] == nil || !updated(&f.ObjectMeta) {
			return true
		}
	}
	for l := range each[*flowcontrolv1.PriorityLevelConfiguration](s, levelsResource, "") {
		if levels[l.Name] == nil || !updated(&l.ObjectMeta) {
			return true
		}
	}
	return false
}
