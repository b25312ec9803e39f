package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// Outcome is what a pod failure policy says of a failed pod.
type Outcome struct {
	Action batchv1.PodFailurePolicyAction // "": no rule matched
	Counts bool                           // towards the back-off limits
	Fails  string                         // why the whole job fails; "": it does not
}

// Match asks the policy (KEP-3329) about a failed pod; the first rule counts.
func Match(policy *batchv1.PodFailurePolicy, p *corev1.Pod) Outcome {
	if policy == nil {
		return Outcome{Counts: true}
	}
	for i, rule := range policy.Rules {
		var why string
		switch {
		case rule.OnExitCodes != nil:
			s := exited(&p.Status, rule.OnExitCodes)
			if s == nil {
				continue
			}
			why = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d",
				s.Name, p.Namespace, p.Name, s.State.Terminated.ExitCode, rule.Action, i)
		default:
			t, ok := conditioned(&p.Status, rule.OnPodConditions)
			if !ok {
				continue
			}
			why = fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", p.Namespace, p.Name, t, rule.Action, i)
		}
		out := Outcome{Action: rule.Action, Counts: rule.Action != batchv1.PodFailurePolicyActionIgnore}
		if rule.Action == batchv1.PodFailurePolicyActionFailJob {
			out.Fails = why
		}
		return out
	}
	return Outcome{Counts: true}
}

// exited is the first ended container whose exit code the rule names.
func exited(st *corev1.PodStatus, rule *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{st.ContainerStatuses, st.InitContainerStatuses} {
		for i := range list {
			s := &list[i]
			if s.State.Terminated == nil || s.State.Terminated.ExitCode == 0 || (rule.ContainerName != nil && *rule.ContainerName != s.Name) {
				continue
			}
			if slices.Contains(rule.Values, s.State.Terminated.ExitCode) == (rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return s
			}
		}
	}
	return nil
}

func conditioned(st *corev1.PodStatus, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) (corev1.PodConditionType, bool) {
	for _, c := range st.Conditions {
		for _, want := range patterns {
			if c.Type == want.Type && c.Status == want.Status {
				return c.Type, true
			}
		}
	}
	return "", false
}

// Succeeded asks the success policy (KEP-3998) whether the indexes suffice,
// and says by which rule.
func Succeeded(policy *batchv1.SuccessPolicy, done Indexes, completions int) (string, bool) {
	if policy == nil || len(done) == 0 {
		return "", false
	}
	for i, rule := range policy.Rules {
		have := done.Len()
		if rule.SucceededIndexes != nil {
			want := ParseIndexes(*rule.SucceededIndexes, completions)
			if len(want) == 0 {
				continue
			}
			if have = want.common(done); have == want.Len() {
				return fmt.Sprintf("Matched rules at index %d", i), true
			}
		}
		if rule.SucceededCount != nil && have >= int(*rule.SucceededCount) {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}
