package strategies

import "strings"

// upstreamPanics is why some questions have no answer to compare with.
const upstreamPanics = "upstream's rules panic: it would end the request without an answer"

// difference is one that is meant: where it shows, and why it is right.
type difference struct {
	path  string // of the kind, "pods/status"
	shows string // part of a line that [compare] tells
	why   string
}

// knownDifferences must be argued one by one.
func knownDifferences() []difference {
	return []difference{
		{"ipaddresses.networking.k8s.io", `"Age string ",0`, "upstream's rows have a cell more than columns; ours name it"},
		{"storageversionmigrations.storagemigration.k8s.io", `table ["Name string `, "upstream forgets to mark the column of names, which all other kinds mark"},
		{"storageversionmigrations.storagemigration.k8s.io/status", `table ["Name string `, "as its kind"},
		{"podcertificaterequests.certificates.k8s.io", "field selector metadata.namespace", "upstream forgets to allow it, as all other kinds in namespaces do"},
		{"statefulsets.apps", "spec.template.spec.volumes[", "upstream numbers the volumes of claim templates in the random order of a map"},
		{"resourceslices.resource.k8s.io", "attributes[aaaaaaaa", "a key that long is refused; upstream's two sets of rules then name its value in two ways"},
		{"replicationcontrollers", "warning spec.template", "upstream mixes up the old and the new template when it warns of an update"},
	}
}

// unargued are the lines of a comparison that no known difference explains;
// those that one explains are counted by why.
func unargued(path, diff string, known map[string]int) string {
	var rest []string
next:
	for line := range strings.SplitSeq(diff, "\n") {
		for _, d := range knownDifferences() {
			if d.path == path && strings.Contains(line, d.shows) {
				known[d.why]++
				continue next
			}
		}
		rest = append(rest, line)
	}
	return strings.Join(rest, "\n")
}
