package kinds

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// FlowSchema declares which requests belong to which level.
func FlowSchema() registry.Kind {
	spec := flowcontrolv1.FlowSchemaSpec{}
	k := declare[flowcontrolv1.FlowSchema, flowcontrolv1.FlowSchemaList](flowcontrolv1.SchemeGroupVersion, "flowschemas")
	k.Columns = []metav1.TableColumnDefinition{
		str("PriorityLevel", describe(flowcontrolv1.PriorityLevelConfigurationReference{}, "name")),
		str("MatchingPrecedence", describe(spec, "matchingPrecedence")), str("DistinguisherMethod", describe(spec, "distinguisherMethod")),
		ageColumn(), str("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
	}
	k.Row = row(func(f *flowcontrolv1.FlowSchema) []any {
		method, dangling := none, "?"
		if m := f.Spec.DistinguisherMethod; m != nil {
			method = string(m.Type)
		}
		for _, c := range f.Status.Conditions {
			if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
				dangling = string(c.Status)
				break
			}
		}
		return []any{f.Spec.PriorityLevelConfiguration.Name, int64(f.Spec.MatchingPrecedence), method, age(f.CreationTimestamp), dangling}
	})
	k.Default = defaults(defaulting.FlowSchema)
	divide(&k, true, rules[*flowcontrolv1.FlowSchema]{validate: validation.FlowSchema, validateUpdate: validation.FlowSchemaUpdate},
		rules[*flowcontrolv1.FlowSchema]{validateUpdate: validation.FlowSchemaStatusUpdate, keepsMeta: true})
	return k
}

// PriorityLevelConfiguration declares how much each level of requests gets.
func PriorityLevelConfiguration() registry.Kind {
	queuing := flowcontrolv1.QueuingConfiguration{}
	k := declare[flowcontrolv1.PriorityLevelConfiguration, flowcontrolv1.PriorityLevelConfigurationList](
		flowcontrolv1.SchemeGroupVersion, "prioritylevelconfigurations")
	k.Columns = []metav1.TableColumnDefinition{
		str("Type", describe(flowcontrolv1.PriorityLevelConfigurationSpec{}, "type")),
		str("NominalConcurrencyShares", describe(flowcontrolv1.LimitedPriorityLevelConfiguration{}, "nominalConcurrencyShares")),
		str("Queues", describe(queuing, "queues")), str("HandSize", describe(queuing, "handSize")),
		str("QueueLengthLimit", describe(queuing, "queueLengthLimit")), ageColumn(),
	}
	k.Row = row(func(c *flowcontrolv1.PriorityLevelConfiguration) []any {
		var shares, queues, hand, length any = none, none, none, none
		if l := c.Spec.Limited; l != nil {
			shares = valueOr(l.NominalConcurrencyShares, 0)
			if q := l.LimitResponse.Queuing; q != nil {
				queues, hand, length = q.Queues, q.HandSize, q.QueueLengthLimit
			}
		}
		return []any{string(c.Spec.Type), shares, queues, hand, length, age(c.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.PriorityLevelConfiguration)
	divide(&k, true, rules[*flowcontrolv1.PriorityLevelConfiguration]{
		validate: validation.PriorityLevelConfiguration, validateUpdate: validation.PriorityLevelConfigurationUpdate,
	}, rules[*flowcontrolv1.PriorityLevelConfiguration]{validateUpdate: validation.PriorityLevelConfigurationStatusUpdate, keepsMeta: true})
	return k
}
