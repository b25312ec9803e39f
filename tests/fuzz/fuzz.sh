#!/usr/bin/env bash
# Fuzzes for FUZZTIME in all (a number of seconds, or 10m, 1h), shared among
# the fuzz targets of the module: those that drive a whole API server get three
# parts each, the others one. What is found is kept in the package's
# testdata/fuzz and ends the run. FUZZPROCS workers at a time (1); as root they
# have a network of their own, since inputs may name webhooks.
# KEEP=1 copies what was interesting into testdata/fuzz as well: the shortest
# inputs first, up to 60 and 40,000 bytes a target: they run with every test.
set -euo pipefail
cd "$(dirname "$0")/../.."
go=${GO:-go}

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
parts=0
weight() { case $1 in ./tests/fuzz) echo 3 ;; *) echo 1 ;; esac; }
for t in "${targets[@]}"; do ((parts += $(weight "${t% *}"))); done

alone=()
if unshare -n true 2>/dev/null; then
	# shellcheck disable=SC2016 # for the inner shell
	alone=(unshare -n sh -c 'ip link set lo up && exec "$@"' sh)
fi
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
cache=$($go env GOCACHE)/fuzz/$($go list -m)
for t in "${targets[@]}"; do
	read -r dir name <<<"$t"
	slice=$((total * $(weight "$dir") / parts))
	((slice > 0)) || slice=1
	echo "== $dir $name for $slice s"
	nice -n 15 $go test -c -o "$said/test" -fuzz "^$name\$" "$dir"
	(cd "$dir" && nice -n 15 "${alone[@]}" "$said/test" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "${slice}s" -test.fuzzminimizetime 10x \
		-test.parallel "${FUZZPROCS:-1}" -test.fuzzcachedir "$cache/${dir#./}" 2>&1) | tee "$said/out"
	last=$(grep -E 'execs: ' "$said/out" | tail -n 1 | sed -E 's/.*(execs: [0-9]+).*(new interesting.*)/\1, \2/' || true)
	echo "$dir $name ${slice}s $last" >>"$said/all"
	[[ -n ${KEEP:-} && -d $cache/${dir#./}/$name ]] || continue
	mkdir -p "$dir/testdata/fuzz/$name"
	left=40000
	while read -r size file; do
		(((left -= size) >= 0)) || break
		cp "$cache/${dir#./}/$name/$file" "$dir/testdata/fuzz/$name/"
	done < <(find "$cache/${dir#./}/$name" -type f -printf '%s %f\n' | sort -n | head -n 60)
done
cat "$said/all"
echo "nothing found in ${#targets[@]} targets, $total s in all"
