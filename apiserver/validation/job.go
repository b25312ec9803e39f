package validation

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of jobs.
const (
	maxIndexes        = 100_000
	maxManyIndexes    = 10_000
	maxManager        = 63
	maxFailureRules   = 20
	maxFailureCodes   = 255
	maxCronJobName    = validation.DNS1035LabelMaxLength - 11
	needsIndexed      = "requires indexed completion mode"
	legacyUIDLabel    = "controller-uid"
	legacyNameLabel   = "job-name"
	selectorOutOfStep = "`selector` does not match template `labels`"
)

// Job validates a new job.
func Job(j *batchv1.Job) field.ErrorList {
	p := meta(&j.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	generatedSelector(&p, j)
	jobWithSelector(&p, &j.Spec, nil)
	indexedName(&p, j)
	return p.list
}

// generatedSelector demands that a selector made by the server select the
// job's own pods.
func generatedSelector(p *problems, j *batchv1.Job) {
	if deref(j.Spec.ManualSelector) || j.Spec.Selector == nil {
		return
	}
	if j.UID == "" {
		p.required(field.NewPath("metadata", "uid"), "")
	}
	expected := map[string]string{
		legacyUIDLabel: string(j.UID), legacyNameLabel: j.Name, batchv1.ControllerUidLabel: string(j.UID), batchv1.JobNameLabel: j.Name,
	}
	path := field.NewPath("spec", "template", "metadata", "labels")
	for _, key := range []string{legacyUIDLabel, legacyNameLabel, batchv1.ControllerUidLabel, batchv1.JobNameLabel} {
		if value, ok := j.Spec.Template.Labels[key]; !ok {
			p.required(path.Key(key), fmt.Sprintf("must be '%s'", expected[key]))
		} else if value != expected[key] {
			p.invalid(path.Key(key), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", expected[key]))
		}
	}
	if s, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !s.Matches(labels.Set(expected)) {
		p.invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated")
	}
}

// indexedName demands a name that makes host names with every index.
func indexedName(p *problems, j *batchv1.Job) {
	n := deref(j.Spec.Completions)
	if deref(j.Spec.CompletionMode) != batchv1.IndexedCompletion || n <= 0 {
		return
	}
	if last := fmt.Sprintf("%s-%d", j.Name, n-1); len(validation.IsDNS1123Label(last)) > 0 {
		p.invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+last)
	}
}

func jobWithSelector(p *problems, s, old *batchv1.JobSpec) {
	path := field.NewPath("spec")
	jobSpec(p, path, s, old)
	if s.Selector == nil {
		p.required(path.Child("selector"), "")
	} else {
		p.labelSelector(path.Child("selector"), s.Selector)
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		p.invalid(path.Child("template", "metadata", "labels"), s.Template.Labels, selectorOutOfStep)
	}
}

func jobSpec(p *problems, path *field.Path, s, old *batchv1.JobSpec) {
	p.counts(path, []count{
		{"parallelism", deref(s.Parallelism)},
		{"completions", deref(s.Completions)},
	})
	p.nonNegative(path.Child("activeDeadlineSeconds"), deref(s.ActiveDeadlineSeconds))
	p.counts(path, []count{
		{"backoffLimit", deref(s.BackoffLimit)},
		{"ttlSecondsAfterFinished", deref(s.TTLSecondsAfterFinished)},
		{"backoffLimitPerIndex", deref(s.BackoffLimitPerIndex)},
		{"maxFailedIndexes", deref(s.MaxFailedIndexes)},
	})
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		p.required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified")
	}
	if s.ManagedBy != nil {
		p.add(validation.IsDomainPrefixedPath(path.Child("managedBy"), *s.ManagedBy)...)
		if len(*s.ManagedBy) > maxManager {
			p.add(field.TooLong(path.Child("managedBy"), "", maxManager))
		}
	}
	jobIndexes(p, path, s)
	if s.PodFailurePolicy != nil {
		failurePolicy(p, path.Child("podFailurePolicy", "rules"), s)
	}
	replacementPolicy(p, path.Child("podReplacementPolicy"), s)
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = &old.Template
	}
	podTemplate(p, path.Child("template"), &s.Template, before)
	at := path.Child("template", "spec", "restartPolicy")
	switch policy := s.Template.Spec.RestartPolicy; {
	case policy == corev1.RestartPolicyAlways || policy == "":
		p.required(at, `valid values: "OnFailure", "Never"`)
	case policy != corev1.RestartPolicyOnFailure && policy != corev1.RestartPolicyNever:
		p.add(field.NotSupported(at, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	case s.PodFailurePolicy != nil && policy != corev1.RestartPolicyNever:
		p.invalid(at, policy, `only "Never" is supported when podFailurePolicy is specified`)
	}
}

// jobIndexes validates what only indexed jobs have.
func jobIndexes(p *problems, path *field.Path, s *batchv1.JobSpec) {
	mode := deref(s.CompletionMode)
	if s.CompletionMode != nil {
		oneOf(p, path.Child("completionMode"), mode, batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)
	}
	if mode == batchv1.IndexedCompletion {
		indexLimits(p, path, s)
		return
	}
	if mode == batchv1.NonIndexedCompletion || s.CompletionMode == nil {
		if n := s.BackoffLimitPerIndex; n != nil {
			p.invalid(path.Child("backoffLimitPerIndex"), *n, needsIndexed)
		}
		if n := s.MaxFailedIndexes; n != nil {
			p.invalid(path.Child("maxFailedIndexes"), *n, needsIndexed)
		}
	}
	if s.SuccessPolicy != nil {
		p.invalid(path.Child("successPolicy"), printed(*s.SuccessPolicy), needsIndexed)
	}
}

func indexLimits(p *problems, path *field.Path, s *batchv1.JobSpec) {
	atMost := func(name string, n *int32, limit int32, when string) {
		if n != nil && *n > limit {
			p.invalid(path.Child(name), *n, fmt.Sprintf("must be less than or equal to %d%s", limit, when))
		}
	}
	if s.Completions == nil {
		p.required(path.Child("completions"), "when completion mode is Indexed")
	}
	if s.SuccessPolicy != nil {
		successPolicy(p, path.Child("successPolicy", "rules"), s)
	}
	atMost("parallelism", s.Parallelism, maxIndexes, " when completion mode is Indexed")
	if s.Completions != nil && s.MaxFailedIndexes != nil && *s.MaxFailedIndexes > *s.Completions {
		p.invalid(path.Child("maxFailedIndexes"), *s.MaxFailedIndexes, "must be less than or equal to completions")
	}
	atMost("maxFailedIndexes", s.MaxFailedIndexes, maxIndexes, "")
	if deref(s.Completions) > maxIndexes && s.BackoffLimitPerIndex != nil {
		if s.MaxFailedIndexes == nil {
			p.required(path.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", maxIndexes))
		}
		when := fmt.Sprintf(" when completions are above %d and used with backoff limit per index", maxIndexes)
		atMost("parallelism", s.Parallelism, maxManyIndexes, when)
		atMost("maxFailedIndexes", s.MaxFailedIndexes, maxManyIndexes, when)
	}
}

func replacementPolicy(p *problems, path *field.Path, s *batchv1.JobSpec) {
	switch {
	case s.PodReplacementPolicy == nil:
	case s.PodFailurePolicy != nil:
		oneOf(p, path, *s.PodReplacementPolicy, batchv1.Failed)
	default:
		oneOf(p, path, *s.PodReplacementPolicy, batchv1.Failed, batchv1.TerminatingOrFailed)
	}
}

func failurePolicy(p *problems, path *field.Path, s *batchv1.JobSpec) {
	rules := s.PodFailurePolicy.Rules
	if len(rules) > maxFailureRules {
		p.add(field.TooMany(path, len(rules), maxFailureRules))
	}
	for i := range rules {
		failureRule(p, path.Index(i), &rules[i], &s.Template.Spec, s.BackoffLimitPerIndex != nil)
	}
}

func failureRule(p *problems, path *field.Path, r *batchv1.PodFailurePolicyRule, s *corev1.PodSpec, perIndex bool) {
	actions := []batchv1.PodFailurePolicyAction{
		batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
		batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore,
	}
	switch {
	case r.Action == "":
		p.required(path.Child("action"), fmt.Sprintf("valid values: %q", actions))
	case r.Action == batchv1.PodFailurePolicyActionFailIndex && !perIndex:
		p.invalid(path.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set")
	default:
		oneOf(p, path.Child("action"), r.Action, actions...)
	}
	if r.OnExitCodes != nil {
		exitCodes(p, path.Child("onExitCodes"), r.OnExitCodes, s)
	}
	if len(r.OnPodConditions) > maxFailureRules {
		p.add(field.TooMany(path.Child("onPodConditions"), len(r.OnPodConditions), maxFailureRules))
	}
	for i, c := range r.OnPodConditions {
		at := path.Child("onPodConditions").Index(i)
		p.check(at.Child("type"), string(c.Type), validation.IsQualifiedName)
		statuses := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		if c.Status == "" {
			p.required(at.Child("status"), fmt.Sprintf("valid values: %q", statuses))
		} else {
			oneOf(p, at.Child("status"), c.Status, statuses...)
		}
	}
	if r.OnExitCodes != nil && len(r.OnPodConditions) > 0 {
		p.invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported")
	}
	if r.OnExitCodes == nil && len(r.OnPodConditions) == 0 {
		p.invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required")
	}
}

func exitCodes(p *problems, path *field.Path, r *batchv1.PodFailurePolicyOnExitCodesRequirement, s *corev1.PodSpec) {
	operators := []batchv1.PodFailurePolicyOnExitCodesOperator{batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn}
	if r.Operator == "" {
		p.required(path.Child("operator"), fmt.Sprintf("valid values: %q", operators))
	} else {
		oneOf(p, path.Child("operator"), r.Operator, operators...)
	}
	named := func(c corev1.Container) bool { return c.Name == deref(r.ContainerName) }
	if r.ContainerName != nil && !slices.ContainsFunc(s.Containers, named) && !slices.ContainsFunc(s.InitContainers, named) {
		p.invalid(path.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template")
	}
	at := path.Child("values")
	if len(r.Values) == 0 {
		p.invalid(at, r.Values, "at least one value is required")
	} else if len(r.Values) > maxFailureCodes {
		p.add(field.TooMany(at, len(r.Values), maxFailureCodes))
	}
	ordered, seen := true, map[int32]bool{}
	for i, v := range r.Values {
		if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && v == 0 {
			p.invalid(at.Index(i), v, "must not be 0 for the In operator")
		}
		if seen[v] {
			p.duplicate(at.Index(i), v)
		}
		seen[v] = true
		ordered = ordered && (i == 0 || r.Values[i-1] <= v)
	}
	if !ordered {
		p.invalid(at, r.Values, "must be ordered")
	}
}

// JobUpdate validates a change of a job. Its pods stay what they are, except
// where a job that rests is given another place.
func JobUpdate(j, old *batchv1.Job) field.ErrorList {
	p := metaUpdate(&j.ObjectMeta, &old.ObjectMeta)
	jobWithSelector(&p, &j.Spec, &old.Spec)
	path, s, had := field.NewPath("spec"), &j.Spec, &old.Spec
	if indexed := deref(s.CompletionMode) == batchv1.IndexedCompletion; !indexed {
		p.immutable(path.Child("completions"), s.Completions, had.Completions)
	} else if s.Completions != nil && !equality.Semantic.DeepEqual(s.Completions, had.Completions) && *s.Completions != deref(s.Parallelism) {
		p.invalid(path.Child("completions"), *s.Completions, "can only be modified in tandem with spec.parallelism")
	}
	p.immutable(path.Child("selector"), s.Selector, had.Selector)
	before := jobTemplateBefore(j, old)
	if rests(old) { // then the resources of its pods may change too
		if len(before.Spec.Containers) == len(s.Template.Spec.Containers) && len(before.Spec.InitContainers) == len(s.Template.Spec.InitContainers) {
			takeResources(before.Spec.Containers, s.Template.Spec.Containers)
			takeResources(before.Spec.InitContainers, s.Template.Spec.InitContainers)
		}
		p.immutable(path.Child("template.spec"), s.Template.Spec, before.Spec)
	} else {
		p.immutable(path.Child("template"), s.Template, before)
	}
	p.immutable(path.Child("completionMode"), s.CompletionMode, had.CompletionMode)
	p.immutable(path.Child("podFailurePolicy"), s.PodFailurePolicy, had.PodFailurePolicy)
	p.immutable(path.Child("backoffLimitPerIndex"), s.BackoffLimitPerIndex, had.BackoffLimitPerIndex)
	p.immutable(path.Child("managedBy"), s.ManagedBy, had.ManagedBy)
	p.immutable(path.Child("successPolicy"), s.SuccessPolicy, had.SuccessPolicy)
	indexedName(&p, j)
	return p.list
}

// rests tells whether a job is suspended and has no pods.
func rests(j *batchv1.Job) bool {
	suspended := j.Status.StartTime == nil || jobCondition(&j.Status, batchv1.JobSuspended, corev1.ConditionTrue)
	return deref(j.Spec.Suspend) && suspended && j.Status.Active == 0
}

func takeResources(before, now []corev1.Container) {
	for i := range before {
		before[i].Resources = now[i].Resources
	}
}

// jobTemplateBefore is the old template with what may change already changed.
func jobTemplateBefore(j, old *batchv1.Job) corev1.PodTemplateSpec {
	before := old.Spec.Template.DeepCopy()
	if !rests(old) {
		return *before
	}
	now := &j.Spec.Template
	var node *corev1.NodeAffinity
	if now.Spec.Affinity != nil {
		node = now.Spec.Affinity.NodeAffinity
	}
	switch {
	case before.Spec.Affinity != nil:
		before.Spec.Affinity.NodeAffinity = node
		if now.Spec.Affinity == nil && *before.Spec.Affinity == (corev1.Affinity{}) {
			before.Spec.Affinity = nil
		}
	case now.Spec.Affinity != nil:
		before.Spec.Affinity = &corev1.Affinity{NodeAffinity: node}
	}
	before.Spec.NodeSelector, before.Spec.Tolerations = now.Spec.NodeSelector, now.Spec.Tolerations
	before.Spec.SchedulingGates = now.Spec.SchedulingGates
	before.Annotations, before.Labels = now.Annotations, now.Labels
	return *before
}
