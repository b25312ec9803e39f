package strategies

import "strings"

// difference is one that is meant: where it shows, and why it is right.
type difference struct {
	path  string // of the kind, "pods/status"; empty: all
	shows string // part of what [compare] tells
	why   string
}

// knownDifferences must be argued one by one.
func knownDifferences() []difference {
	return []difference{
		{"ipaddresses.networking.k8s.io", `"Age string ",0`, "upstream's rows have a cell more than columns; ours name it"},
		{"storageversionmigrations.storagemigration.k8s.io", `"Name string name",0`, "upstream forgets to mark the column of names, which all other kinds mark"},
		{"storageversionmigrations.storagemigration.k8s.io/status", `"Name string name",0`, "as its kind"},
		{"replicationcontrollers", "warnings: ", "upstream mixes up the old and the new template when it warns of an update"},
	}
}

// argued is why a difference is meant, empty if it is not.
func argued(path, diff string) string {
	for _, d := range knownDifferences() {
		if (d.path == "" || d.path == path) && strings.Contains(diff, d.shows) {
			return d.why
		}
	}
	return ""
}
