package kinds

import (
	migrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// StorageVersionMigration declares that a resource is to be stored anew.
func StorageVersionMigration() registry.Kind {
	k := declare[migrationv1.StorageVersionMigration, migrationv1.StorageVersionMigrationList](
		migrationv1.SchemeGroupVersion, "storageversionmigrations")
	k.Columns = []metav1.TableColumnDefinition{str("Resource", "GroupResource to migrate"), str("Status", "Status of the migration")}
	k.Row = row(func(m *migrationv1.StorageVersionMigration) []any {
		state := "Unknown"
		for _, c := range m.Status.Conditions {
			switch t := migrationv1.MigrationConditionType(c.Type); t {
			case migrationv1.MigrationRunning, migrationv1.MigrationFailed, migrationv1.MigrationSucceeded:
				if c.Status == metav1.ConditionTrue {
					state = c.Type
				}
			}
		}
		resource := schema.GroupResource{Group: m.Spec.Resource.Group, Resource: m.Spec.Resource.Resource}
		return []any{resource.String(), state}
	})
	divide(&k, false, rules[*migrationv1.StorageVersionMigration]{
		validate: validation.StorageVersionMigration, validateUpdate: validation.StorageVersionMigrationUpdate, needsVersion: true,
	}, rules[*migrationv1.StorageVersionMigration]{validateUpdate: validation.StorageVersionMigrationStatusUpdate, keepsMeta: true})
	return k
}
