package controllers_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/member"
)

func template(app string, annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "image:1"}}},
	}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func (m *mesh) podsOf(ns, app string) []corev1.Pod {
	m.Helper()
	l, err := m.admin.CoreV1().Pods(ns).List(m.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		m.Fatal(err)
	}
	return l.Items
}

// waitFor reads an object until ok holds of it and shows its last state.
func waitFor[T any](m *mesh, what string, get func() (T, error), ok func(T) bool) {
	m.Helper()
	var last T
	defer func() {
		if m.Failed() {
			m.Logf("last seen: %+v", last)
		}
	}()
	m.wait(what, func() bool {
		got, err := get()
		if err != nil {
			m.Logf("%s: %v", what, err)
			return false
		}
		last = got
		return ok(got)
	})
}

func TestRealAPIDaemonSet(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	client := m.admin.AppsV1().DaemonSets("app")
	_, err := client.Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: appsv1.DaemonSetSpec{Selector: selector("d"), Template: template("d", nil)},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	get := func() (*appsv1.DaemonSet, error) { return client.Get(t.Context(), "d", metav1.GetOptions{}) }
	done := func(d *appsv1.DaemonSet) bool {
		return d.Status.ObservedGeneration == d.Generation && d.Status.NumberAvailable == 3 && d.Status.UpdatedNumberScheduled == 3
	}
	waitFor(m, "a pod on each node", get, done)
	if got := m.running("app"); len(got) != 3 {
		t.Errorf("runs on %v", got)
	}
	ds, err := get()
	if err != nil {
		t.Fatal(err)
	}
	ds.Spec.Template.Spec.Containers[0].Image = "image:2"
	if _, err := client.Update(t.Context(), ds, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(m, "the update", get, func(d *appsv1.DaemonSet) bool {
		return done(d) && !slices.ContainsFunc(m.podsOf("app", "d"), func(p corev1.Pod) bool { return p.Spec.Containers[0].Image != "image:2" })
	})
	l, err := m.admin.AppsV1().ControllerRevisions("app").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(l.Items) != 2 {
		t.Errorf("revisions: %v %v, want 2", l, err)
	}
}

func TestRealAPIStatefulSet(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	client := m.admin.AppsV1().StatefulSets("app")
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: new(int32(3)), ServiceName: "db", Selector: selector("db"), Template: template("db", nil),
	}}
	if _, err := client.Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func() (*appsv1.StatefulSet, error) { return client.Get(t.Context(), "db", metav1.GetOptions{}) }
	at := func(n int32) func(*appsv1.StatefulSet) bool {
		return func(s *appsv1.StatefulSet) bool {
			return s.Status.ObservedGeneration == s.Generation && s.Status.AvailableReplicas == n && s.Status.Replicas == n &&
				s.Status.CurrentRevision == s.Status.UpdateRevision && s.Status.UpdatedReplicas == n
		}
	}
	edit := func(f func(*appsv1.StatefulSet)) {
		t.Helper()
		m.wait("an edit", func() bool {
			s, err := get()
			if err != nil {
				t.Fatal(err)
			}
			f(s)
			_, err = client.Update(t.Context(), s, metav1.UpdateOptions{})
			return err == nil
		})
	}
	waitFor(m, "three pods", get, at(3))
	edit(func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "image:2" })
	waitFor(m, "the update", get, at(3))
	edit(func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(1)) })
	waitFor(m, "one pod", get, at(1))
	if got := m.podsOf("app", "db"); len(got) != 1 || got[0].Name != "db-0" || got[0].Spec.Containers[0].Image != "image:2" {
		t.Errorf("left are %v", got)
	}
}

func TestRealAPIStatefulPodOfALostPeerIsNotReplaced(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: new(int32(1)), ServiceName: "db", Selector: selector("db"), Template: template("db", nil),
	}}
	if _, err := m.admin.AppsV1().StatefulSets("app").Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("the pod", func() bool { return len(m.running("app")) == 1 })
	before := m.podsOf("app", "db")[0]
	m.namespace("web")
	m.deploy("web", 3)
	m.members.SetState(member.Name(before.Spec.NodeName), member.Dead)
	m.wait("the others have moved", func() bool {
		return m.running("web")[before.Spec.NodeName] == 0 && len(m.podsOf("web", "hello")) == 3
	})
	after, err := m.admin.CoreV1().Pods("app").Get(t.Context(), before.Name, metav1.GetOptions{})
	if err != nil || after.UID != before.UID {
		t.Errorf("the pod of the lost peer was replaced: %v %v", after, err)
	}
}

func (m *mesh) job(spec batchv1.JobSpec) func() (*batchv1.Job, error) {
	m.Helper()
	made, err := m.admin.BatchV1().Jobs("app").Create(m.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{GenerateName: "j-"}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		m.Fatal(err)
	}
	return func() (*batchv1.Job, error) {
		return m.admin.BatchV1().Jobs("app").Get(m.Context(), made.Name, metav1.GetOptions{})
	}
}

func jobEnds(t batchv1.JobConditionType) func(*batchv1.Job) bool {
	return func(j *batchv1.Job) bool {
		return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == t && c.Status == corev1.ConditionTrue })
	}
}

func TestRealAPIJobs(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	never := func(ends string) corev1.PodTemplateSpec {
		tpl := template("job", map[string]string{endsAs: ends})
		tpl.Spec.RestartPolicy = corev1.RestartPolicyNever
		return tpl
	}
	mode := batchv1.IndexedCompletion
	good := m.job(batchv1.JobSpec{Completions: new(int32(4)), Parallelism: new(int32(2)), Template: never("Succeeded")})
	index := m.job(batchv1.JobSpec{Completions: new(int32(5)), Parallelism: new(int32(3)), CompletionMode: &mode, Template: never("Succeeded")})
	bad := m.job(batchv1.JobSpec{BackoffLimit: new(int32(0)), Template: never("Failed")})
	brief := m.job(batchv1.JobSpec{TTLSecondsAfterFinished: new(int32(0)), Template: never("Succeeded")})
	late := m.job(batchv1.JobSpec{ActiveDeadlineSeconds: new(int64(1)), Template: never("")})
	waitFor(m, "four successes", good, jobEnds(batchv1.JobComplete))
	if j, err := good(); err != nil || j.Status.Succeeded != 4 || j.Status.CompletionTime == nil {
		t.Errorf("ended with %+v %v", j.Status, err)
	}
	waitFor(m, "five indexes", index, jobEnds(batchv1.JobComplete))
	if j, err := index(); err != nil || j.Status.CompletedIndexes != "0-4" || j.Status.Succeeded != 5 {
		t.Errorf("ended with %+v %v", j.Status, err)
	}
	waitFor(m, "the failure", bad, jobEnds(batchv1.JobFailed))
	waitFor(m, "the deadline", late, jobEnds(batchv1.JobFailed))
	m.wait("the job without time to live is gone", func() bool { _, err := brief(); return apierrors.IsNotFound(err) })
	m.wait("no pod is held", func() bool {
		return !slices.ContainsFunc(m.podsOf("app", "job"), func(p corev1.Pod) bool { return len(p.Finalizers) > 0 })
	})
	j, err := good()
	if err != nil {
		t.Fatal(err)
	}
	policy := metav1.DeletePropagationBackground
	if err := m.admin.BatchV1().Jobs("app").Delete(t.Context(), j.Name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	m.wait("its pods go with it", func() bool {
		return !slices.ContainsFunc(m.podsOf("app", "job"), func(p corev1.Pod) bool { return p.Labels["batch.kubernetes.io/job-name"] == j.Name })
	})
}

func TestRealAPICronJob(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	tpl := template("cron", map[string]string{endsAs: "Succeeded"})
	tpl.Spec.RestartPolicy = corev1.RestartPolicyNever
	cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{
		Schedule: "@every 1s", ConcurrencyPolicy: batchv1.AllowConcurrent, SuccessfulJobsHistoryLimit: new(int32(1)),
		JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: tpl}},
	}}
	if _, err := m.admin.BatchV1().CronJobs("app").Create(t.Context(), cj, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func() (*batchv1.CronJob, error) {
		return m.admin.BatchV1().CronJobs("app").Get(t.Context(), "c", metav1.GetOptions{})
	}
	waitFor(m, "a job has run", get, func(c *batchv1.CronJob) bool {
		return c.Status.LastSuccessfulTime != nil && c.Status.LastScheduleTime != nil
	})
}

func TestRealAPIReplicationController(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	client := m.admin.CoreV1().ReplicationControllers("app")
	tpl := template("rc", nil)
	if _, err := client.Create(t.Context(), &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc"}, Spec: corev1.ReplicationControllerSpec{
		Replicas: new(int32(2)), Selector: map[string]string{"app": "rc"}, Template: &tpl,
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func() (*corev1.ReplicationController, error) {
		return client.Get(t.Context(), "rc", metav1.GetOptions{})
	}
	waitFor(m, "two replicas", get, func(rc *corev1.ReplicationController) bool {
		return rc.Status.AvailableReplicas == 2 && rc.Status.ReadyReplicas == 2
	})
	pods := m.podsOf("app", "rc")
	if ref := metav1.GetControllerOf(&pods[0]); ref == nil || ref.Kind != "ReplicationController" || ref.APIVersion != "v1" {
		t.Errorf("a pod is owned by %v", ref)
	}
	pods[0].Labels = map[string]string{"app": "free"}
	if _, err := m.admin.CoreV1().Pods("app").Update(t.Context(), &pods[0], metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("the pod is let go and replaced", func() bool {
		p, err := m.admin.CoreV1().Pods("app").Get(t.Context(), pods[0].Name, metav1.GetOptions{})
		return err == nil && len(p.OwnerReferences) == 0 && len(m.podsOf("app", "rc")) == 2
	})
	waitFor(m, "two replicas again", get, func(rc *corev1.ReplicationController) bool { return rc.Status.AvailableReplicas == 2 })
}
