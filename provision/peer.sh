#!/usr/bin/env bash
# Makes a Debian machine a peer of a mesh. Run it as root:
#
#   provision/peer.sh up                     the first peer: makes the cluster
#   provision/peer.sh token                  on a peer: prints a join token
#   provision/peer.sh join ADDRESS TOKEN     every other peer
#
# Settings, from the environment:
#   SKEIN_BINARY    the skein program to install; without it bin/skein of this
#                   tree is taken, and built first if it is missing
#   SKEIN_ADDRESS   the IP address by which the other peers reach this machine;
#                   without it skein finds one
#   SKEIN_IMAGES    directory with image archives (*.tar) to import
#
# It can be run again: what is done is not done twice.
set -euo pipefail

readonly program=/usr/local/bin/skein
readonly data=/var/lib/skein
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() {
	echo "provision: $*" >&2
	exit 1
}

need_root() {
	((EUID == 0)) || die "run it as root"
}

# Skein needs nothing but a kernel; the packages are for pulls over TLS and
# for the human who looks at what it programs.
install_packages() {
	command -v apt-get >/dev/null || return 0
	local missing=() p
	for p in ca-certificates iproute2 nftables kmod; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true) == installed ]] || missing+=("$p")
	done
	((${#missing[@]})) || return 0
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	apt-get install -q -y --no-install-recommends "${missing[@]}"
}

load_modules() {
	local conf=/etc/modules-load.d/skein.conf m
	mkdir -p "$(dirname "$conf")"
	: >"$conf"
	for m in overlay nf_tables nf_conntrack vxlan; do
		if modprobe "$m" 2>/dev/null; then
			echo "$m" >>"$conf"
		else
			echo "provision: the kernel has no module $m (it may be built in)" >&2
		fi
	done
}

install_program() {
	local binary=${SKEIN_BINARY:-}
	if [[ -z $binary ]]; then
		binary=$here/../bin/skein
		[[ -x $binary ]] || make -C "$here/.." build
	fi
	[[ -f $binary ]] || die "$binary: no such file; set SKEIN_BINARY"
	cmp -s "$binary" "$program" && return
	# By rename: the old program may be running.
	install -m 0755 "$binary" "$program.new"
	mv -f "$program.new" "$program"
}

import_images() {
	[[ -n ${SKEIN_IMAGES:-} ]] || return 0
	local f
	for f in "$SKEIN_IMAGES"/*.tar; do
		[[ -e $f ]] || die "$SKEIN_IMAGES: no image archives in it"
		"$program" image import "$f"
	done
}

# start VERB ARGS...: makes this machine a peer, or starts the peer it is.
start() {
	local flags=(--detach)
	if [[ -e $data/peer.json ]]; then
		if "$program" status >/dev/null 2>&1; then
			echo "provision: this machine is a peer and runs" >&2
		else
			"$program" start "${flags[@]}"
		fi
		return
	fi
	[[ -z ${SKEIN_ADDRESS:-} ]] || flags+=(--address "$SKEIN_ADDRESS")
	"$program" "$@" "${flags[@]}"
}

prepare() {
	need_root
	install_packages
	load_modules
	install_program
}

case ${1:-} in
up)
	prepare
	start up
	import_images
	;;
join)
	(($# == 3)) || die "usage: peer.sh join ADDRESS TOKEN"
	prepare
	start join "$2" --token "$3"
	import_images
	;;
token)
	need_root
	"$program" token create --ttl 1h
	;;
*)
	die "usage: peer.sh up | token | join ADDRESS TOKEN"
	;;
esac
