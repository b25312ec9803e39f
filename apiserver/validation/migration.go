package validation

import (
	"strings"

	migrationv1 "k8s.io/api/storagemigration/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// StorageVersionMigration validates that a resource is to be stored anew.
func StorageVersionMigration(m *migrationv1.StorageVersionMigration) field.ErrorList {
	p := clusterMeta(&m.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	path, r := field.NewPath("spec", "resource"), m.Spec.Resource
	join := func(at *field.Path, value string, complaints []string) {
		if len(complaints) > 0 {
			p.invalid(at, value, strings.Join(complaints, ","))
		}
	}
	if r.Resource == "" {
		p.required(path.Child("resource"), "resource is required to be set")
	} else {
		join(path.Child("resource"), r.Resource, validation.IsDNS1035Label(r.Resource))
	}
	if r.Group != "" {
		join(path.Child("group"), r.Group, validation.IsDNS1123Subdomain(r.Group))
	}
	return p.list
}

// StorageVersionMigrationUpdate validates a change of a migration; its
// resource stays.
func StorageVersionMigrationUpdate(m, old *migrationv1.StorageVersionMigration) field.ErrorList {
	p := problems{StorageVersionMigration(m)}
	p.add(metaUpdate(&m.ObjectMeta, &old.ObjectMeta).list...)
	p.immutable(field.NewPath("spec"), m.Spec, old.Spec)
	return p.list
}

// StorageVersionMigrationStatusUpdate validates a migration's progress, which
// has one end.
func StorageVersionMigrationStatusUpdate(m, old *migrationv1.StorageVersionMigration) field.ErrorList {
	p := metaUpdate(&m.ObjectMeta, &old.ObjectMeta)
	at, version := field.NewPath("status", "conditions"), m.Status.ResourceVersion
	if version != "" {
		if _, err := resourceversion.CompareResourceVersion(version, version); err != nil {
			p.invalid(field.NewPath("status", "resourceVersion"), version, err.Error())
		}
	}
	p.add(metavalidation.ValidateConditions(m.Status.Conditions, at)...)
	if before := old.Status.ResourceVersion; before != "" && before != version {
		p.invalid(field.NewPath("status", "resourceVersion"), version, apimachinery.FieldImmutableErrorMsg)
	}
	is := func(list []metav1.Condition, t migrationv1.MigrationConditionType) bool {
		return apimeta.IsStatusConditionTrue(list, string(t))
	}
	const good, bad = migrationv1.MigrationSucceeded, migrationv1.MigrationFailed
	now, had := m.Status.Conditions, old.Status.Conditions
	for _, rule := range []struct {
		broken    bool
		complaint string
	}{
		{is(now, good) && is(now, bad), "Both success and failed conditions cannot be true at the same time"},
		{is(had, good) && !is(now, good), "Success condition cannot be set to false once it is true"},
		{is(had, bad) && !is(now, bad), "Failed condition cannot be set to false once it is true"},
	} {
		if rule.broken {
			p.invalid(at, now, rule.complaint)
		}
	}
	return p.list
}
