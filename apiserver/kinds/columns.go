package kinds

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// shown is how many items of a list a cell shows before it only counts.
const shown = 3

const (
	none    = "<none>"
	unknown = "<unknown>"
	unset   = "<unset>"
)

type doc interface{ SwaggerDoc() map[string]string }

// describe takes a column's description from the API's own words for a field.
func describe(d doc, field string) string { return d.SwaggerDoc()[field] }

func str(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

func num(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

func boolean(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "boolean", Description: description}
}

// wide marks columns that only "-o wide" shows.
func wide(columns ...metav1.TableColumnDefinition) []metav1.TableColumnDefinition {
	for i := range columns {
		columns[i].Priority = 1
	}
	return columns
}

func ageColumn() metav1.TableColumnDefinition {
	return str("Age", describe(metav1.ObjectMeta{}, "creationTimestamp"))
}

// templateColumns are the wide columns of what makes pods from a template.
func templateColumns(selector string) []metav1.TableColumnDefinition {
	columns := []metav1.TableColumnDefinition{
		str("Containers", "Names of each container in the template."),
		str("Images", "Images referenced by each container in the template."),
	}
	if selector != "" {
		columns = append(columns, str("Selector", selector))
	}
	return wide(columns...)
}

func columns(narrow []metav1.TableColumnDefinition, more ...metav1.TableColumnDefinition) []metav1.TableColumnDefinition {
	return append(slices.Clip(narrow), more...)
}

// age is how long ago t was, as kubectl shows it.
func age(t metav1.Time) string {
	if t.IsZero() {
		return unknown
	}
	return duration.HumanDuration(time.Since(t.Time))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// abbreviate joins the first items and counts the rest.
func abbreviate(items []string) string {
	if len(items) <= shown {
		return or(strings.Join(items, ","), unset)
	}
	return strings.Join(items[:shown], ",") + " + " + strconv.Itoa(len(items)-shown) + " more..."
}

// containers returns the names and the images of a template's containers.
func containers(list []corev1.Container) (names, images string) {
	var n, i []string
	for _, c := range list {
		n, i = append(n, c.Name), append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

func valueOr[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
