package apiserver

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/apiserver/admit"
)

// createDefaults creates the objects that upstream's server creates so that
// users find what holds without them: the priorities of system pods and the
// range of services.
func (s *Server) createDefaults(ctx context.Context, client kubernetes.Interface) error {
	for _, class := range admit.SystemPriorities() {
		if s.exists(schedulingv1.GroupName+"/priorityclasses", "", class.Name) {
			continue
		}
		_, err := client.SchedulingV1().PriorityClasses().Create(ctx, class, metav1.CreateOptions{})
		if err := existing(err); err != nil {
			return err
		}
	}
	return s.createServiceCIDR(ctx, client)
}

func (s *Server) createServiceCIDR(ctx context.Context, client kubernetes.Interface) error {
	if s.exists(networkingv1.GroupName+"/servicecidrs", "", apiServiceName) {
		return nil
	}
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: apiServiceName}}
	for _, r := range s.cfg.ServiceCIDRs {
		cidr.Spec.CIDRs = append(cidr.Spec.CIDRs, r.String())
	}
	cidr, err := client.NetworkingV1().ServiceCIDRs().Create(ctx, cidr, metav1.CreateOptions{})
	if err != nil {
		return existing(err)
	}
	cidr.Status.Conditions = []metav1.Condition{{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, LastTransitionTime: metav1.Now(),
		Message: "Kubernetes Service CIDR is ready",
	}}
	_, err = client.NetworkingV1().ServiceCIDRs().UpdateStatus(ctx, cidr, metav1.UpdateOptions{})
	return err
}
