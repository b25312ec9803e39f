# Every target is one line of what it does; `make` alone lists them.
GO      ?= go
VERSION ?= v1.37.2+skein.$(shell git rev-parse --short=12 HEAD 2>/dev/null || echo dev)
# kubectl and client-go each tell the version from a place of their own.
KUBE_VERSION = $(foreach p,component-base/version client-go/pkg/version,\
	-X k8s.io/$(p).gitVersion=$(VERSION) -X k8s.io/$(p).gitMajor=1 -X k8s.io/$(p).gitMinor=37 \
	-X k8s.io/$(p).gitCommit=$(shell git rev-parse HEAD 2>/dev/null) -X k8s.io/$(p).gitTreeState=$(if $(shell git status --porcelain 2>/dev/null),dirty,clean) \
	-X k8s.io/$(p).buildDate=$(shell TZ=UTC git show -s --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null))
LDFLAGS  = -s -w -X main.version=$(VERSION) $(KUBE_VERSION)

.DEFAULT_GOAL := help
.PHONY: help deps build images up down test test-vm bench lint generate clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

deps: ## install what the build and the tests need (Debian, as root)
	@./provision/deps.sh

include mk/programs.mk
include mk/conformance.mk
include mk/clients.mk

build: deps programs ## build bin/skein with its programs
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/skein ./cmd/skein

images: deps ## build the example images into build/images
	$(GO) run ./examples/images build/images

up: build images ## a mesh of three peers on this machine, ready to use
	@bin/skein lab up --peers 3 --images build/images

down: ## take the mesh of `make up` away
	@bin/skein lab down

# Packages whose tests run containers or a whole mesh: one at a time, alone.
ALONE = ./engine ./kubelet/real ./lab ./tests/e2e

test: build images ## all tests, with the race detector; those that run containers or a mesh last, one at a time
	$(GO) test -race -timeout 40m $$($(GO) list ./... | grep -vE '/(engine|kubelet/real|lab|tests/e2e)$$')
	$(GO) test ./gossip # all its seeds; few of them run under the race detector
	$(GO) test -race -timeout 40m -count 1 -p 1 $(ALONE)

test-vm: build images ## one peer on Debian's cloud kernel with cgroup v2, in QEMU
	$(GO) test -timeout 20m -tags vm -run TestVM -v ./tests/vm

bench: build images ## figures: start, pods, memory, idle writes, requests, DNS
	$(GO) run ./tests/bench

lint: ## golangci-lint with the project's list
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

generate: ## generated code, to be committed
	./provision/generate.sh

clean: ## remove what was built
	rm -rf bin build engine/programs/bin/*.gz
