#!/usr/bin/env bash
# Gives every fuzz target of the module a slice of time in turn, until
# FUZZTIME (a number of seconds, or 10m, 1h) is over. What is found is kept
# in the package's testdata/fuzz and ends the run.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds() {
	case $1 in
	*h) echo $((${1%h} * 3600)) ;;
	*m) echo $((${1%m} * 60)) ;;
	*) echo "${1%s}" ;;
	esac
}
total=$(seconds "${FUZZTIME:-10m}")
mapfile -t targets < <(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . --with-filename |
	sed -E 's#^(.*)/[^/]*_test.go:func (Fuzz.*)$#\1 \2#' | grep -vE '^\./(tests/(conformance|clients)|tools)/' | sort)
slice=$((total / ${#targets[@]}))
((slice = slice > 60 ? 60 : slice < 5 ? 5 : slice))
end=$((SECONDS + total))
while ((SECONDS < end)); do
	for t in "${targets[@]}"; do
		((SECONDS < end)) || break
		read -r dir name <<<"$t"
		echo "== $dir $name for $slice s"
		nice -n 19 "${GO:-go}" test -run '^$' -fuzz "^$name\$" -fuzztime "${slice}s" "$dir"
	done
done
echo "nothing found in ${#targets[@]} targets"
