#!/usr/bin/env bash
# Installs what is missing of the packages that the build and the tests need.
# It asks dpkg only, so it is quick and needs no network and no root when all
# is there.
#
#   provision/deps.sh        what `make build`, `make up` and `make test` need
#   provision/deps.sh vm     what `make test-vm` needs as well
set -euo pipefail

packages=(
	gcc libc6-dev       # runc joins namespaces in C; pause is C
	libseccomp-dev      # runc, for the RuntimeDefault profile
	busybox-static      # the client of examples/hello
	iproute2 nftables   # tests compare with what ip and nft print
	util-linux          # tests enter namespaces with nsenter
	ca-certificates git # the Go modules, the version
)
if [[ ${1:-} == vm ]]; then
	packages+=(qemu-system-x86)
fi

if ! command -v go >/dev/null; then
	echo "deps: go: not found; install Go 1.26 or newer (https://go.dev/dl)" >&2
	exit 1
fi
if ! command -v dpkg-query >/dev/null; then
	echo "deps: this is no Debian; install the equivalents of: ${packages[*]}" >&2
	exit 0
fi

missing=()
for p in "${packages[@]}"; do
	# shellcheck disable=SC2016 # the format is dpkg's
	status=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) || true
	[[ $status == installed ]] || missing+=("$p")
done
if ((${#missing[@]} == 0)); then
	exit 0
fi
if ((EUID != 0)); then
	echo "deps: missing packages; as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >&2
apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
