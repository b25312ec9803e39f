# The small static programs that skein carries and unpacks at start.
# Included by ../Makefile; every path is from the root of the module.
# Go's own build cache decides what is stale, so the Go programs are phony. Each
# is packed beside, and again only when it has changed.

PROGRAMS_DIR := build/programs
PACKED_DIR := engine/programs/bin
PROGRAMS := guard cni containerd-shim-runc-v2 runc pause
# What `make deps` installs for them on Debian: gcc, libc.a and libseccomp.a.
PROGRAMS_PACKAGES := gcc libc6-dev libseccomp-dev
SMALL := -trimpath -ldflags '-s -w'

.PHONY: programs programs-clean $(addprefix program-,$(PROGRAMS))

programs: $(addprefix program-,$(PROGRAMS)) ## build the static programs that skein embeds
	@mkdir -p $(PACKED_DIR)
	@for p in $(PROGRAMS); do \
		gzip -dc $(PACKED_DIR)/$$p.gz 2>/dev/null | cmp -s - $(PROGRAMS_DIR)/$$p || \
		{ gzip -9nc $(PROGRAMS_DIR)/$$p >$(PACKED_DIR)/.$$p && mv $(PACKED_DIR)/.$$p $(PACKED_DIR)/$$p.gz; } || exit 1; \
	done

program-guard:
	CGO_ENABLED=0 go build $(SMALL) -o $(PROGRAMS_DIR)/guard ./cmd/guard

program-cni:
	CGO_ENABLED=0 go build $(SMALL) -o $(PROGRAMS_DIR)/cni ./cmd/cni

program-containerd-shim-runc-v2:
	CGO_ENABLED=0 go build $(SMALL) -tags no_grpc -o $(PROGRAMS_DIR)/containerd-shim-runc-v2 ./cmd/shim

# runc joins namespaces in C before Go's runtime starts, so it needs cgo; it is
# its own module because its main package cannot be linked into another.
program-runc: $(PROGRAMS_DIR)/runc
$(PROGRAMS_DIR)/runc: tools/runc/go.mod tools/runc/go.sum
	@mkdir -p $(PROGRAMS_DIR)
	cd tools/runc && CGO_ENABLED=1 go build -trimpath -tags 'urfave_cli_no_docs netgo osusergo seccomp' \
		-ldflags '-s -w -linkmode external -extldflags -static' \
		-o $(CURDIR)/$@ github.com/opencontainers/runc
	touch $@

program-pause: $(PROGRAMS_DIR)/pause
$(PROGRAMS_DIR)/pause: cmd/pause/pause.c
	@mkdir -p $(PROGRAMS_DIR)
	$(CC) -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
		-static -nostdlib -nostartfiles -Wl,--build-id=none,-z,noseparate-code,-z,noexecstack -s -o $@ $<

programs-clean:
	rm -rf $(PROGRAMS_DIR) $(addsuffix .gz,$(addprefix $(PACKED_DIR)/,$(PROGRAMS)))
