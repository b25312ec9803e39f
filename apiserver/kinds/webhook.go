package kinds

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

func extension(k registry.Kind) registry.Kind {
	k.Categories = []string{"api-extensions"}
	return k
}

func admissionVersion() schema.GroupVersion { return admissionregistrationv1.SchemeGroupVersion }

func webhookColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		num("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"), ageColumn(),
	}
}

// ValidatingWebhookConfiguration declares who else is asked before objects are stored.
func ValidatingWebhookConfiguration() registry.Kind {
	k := extension(declare[admissionregistrationv1.ValidatingWebhookConfiguration, admissionregistrationv1.ValidatingWebhookConfigurationList](
		admissionVersion(), "validatingwebhookconfigurations"))
	k.Columns = webhookColumns()
	k.Row = row(func(c *admissionregistrationv1.ValidatingWebhookConfiguration) []any {
		return []any{int64(len(c.Webhooks)), age(c.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.ValidatingWebhookConfiguration)
	count(&k, rules[*admissionregistrationv1.ValidatingWebhookConfiguration]{
		validate: validation.ValidatingWebhookConfiguration, validateUpdate: validation.ValidatingWebhookConfigurationUpdate, needsVersion: true,
	}, "Webhooks")
	return k
}

// MutatingWebhookConfiguration declares who else changes objects before they are stored.
func MutatingWebhookConfiguration() registry.Kind {
	k := extension(declare[admissionregistrationv1.MutatingWebhookConfiguration, admissionregistrationv1.MutatingWebhookConfigurationList](
		admissionVersion(), "mutatingwebhookconfigurations"))
	k.Columns = webhookColumns()
	k.Row = row(func(c *admissionregistrationv1.MutatingWebhookConfiguration) []any {
		return []any{int64(len(c.Webhooks)), age(c.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.MutatingWebhookConfiguration)
	count(&k, rules[*admissionregistrationv1.MutatingWebhookConfiguration]{
		validate: validation.MutatingWebhookConfiguration, validateUpdate: validation.MutatingWebhookConfigurationUpdate, needsVersion: true,
	}, "Webhooks")
	return k
}
