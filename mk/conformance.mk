# Kubernetes' own conformance tests against a lab of three peers.
# Included by ../Makefile; every path is from the root of the module.
# The suite is built once for each state of its module: 5 to 15 minutes.

CONFORMANCE     := build/conformance
CONFORMANCE_BIN := $(CONFORMANCE)/bin
CONFORMANCE_MOD := tests/conformance/go.mod tests/conformance/go.sum
KUBE_MODULE      = $(shell cd tests/conformance && go list -m -f '{{.Version}}' k8s.io/kubernetes)
KUBE_LDFLAGS     = -s -w -X k8s.io/component-base/version.gitVersion=$(KUBE_MODULE) \
	-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(word 2,$(subst ., ,$(KUBE_MODULE)))
KUBE_BUILD       = cd tests/conformance && CGO_ENABLED=0 nice $(GO)
SKEIN           ?= bin/skein
PROCS           ?= 2
CONFORMANCE_RUN  = cd tests/conformance && $(GO) run ./run -skein $(abspath $(SKEIN)) -programs $(abspath $(CONFORMANCE_BIN)) \
	-images $(abspath $(CONFORMANCE)/images) -out $(abspath $(CONFORMANCE)) -procs $(PROCS) \
	-focus '$(FOCUS)' -skip '$(SKIP)' -commit $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown) $(CONFORMANCE_FLAGS)

.PHONY: conformance conformance-sample conformance-suite conformance-images

conformance: build conformance-suite conformance-images ## upstream's conformance tests [FOCUS=regex] [SKIP=regex] [PROCS=n]
	$(CONFORMANCE_RUN)

conformance-sample: build conformance-suite conformance-images ## about 30 fast conformance tests of all SIGs
	$(CONFORMANCE_RUN) -list sample.txt

conformance-suite: $(addprefix $(CONFORMANCE_BIN)/,e2e.test ginkgo kubectl agnhost nnp sample-apiserver etcd mirror)

$(CONFORMANCE_BIN)/e2e.test: $(CONFORMANCE_MOD)
	$(KUBE_BUILD) test -c -vet=off -trimpath -ldflags '$(KUBE_LDFLAGS)' -o $(abspath $@) k8s.io/kubernetes/test/e2e
$(CONFORMANCE_BIN)/kubectl: $(CONFORMANCE_MOD)
	$(KUBE_BUILD) build -trimpath -ldflags '$(KUBE_LDFLAGS)' -o $(abspath $@) k8s.io/kubernetes/cmd/kubectl
$(CONFORMANCE_BIN)/agnhost: $(CONFORMANCE_MOD)
	$(KUBE_BUILD) build -trimpath -ldflags '-s -w' -o $(abspath $@) k8s.io/kubernetes/test/images/agnhost
$(CONFORMANCE_BIN)/nnp: $(CONFORMANCE_MOD)
	$(KUBE_BUILD) build -trimpath -ldflags '-s -w' -o $(abspath $@) k8s.io/kubernetes/test/images/nonewprivs
$(CONFORMANCE_BIN)/sample-apiserver: $(CONFORMANCE_MOD)
	$(KUBE_BUILD) build -trimpath -ldflags '-s -w' -o $(abspath $@) k8s.io/sample-apiserver
$(CONFORMANCE_BIN)/etcd: $(CONFORMANCE_MOD)
	$(KUBE_BUILD) build -trimpath -ldflags '-s -w' -o $(abspath $@) go.etcd.io/etcd/server/v3
$(CONFORMANCE_BIN)/ginkgo: $(CONFORMANCE_MOD)
	$(KUBE_BUILD) build -trimpath -ldflags '-s -w' -o $(abspath $@) github.com/onsi/ginkgo/v2/ginkgo

$(CONFORMANCE_BIN)/mirror: $(CONFORMANCE_MOD) $(wildcard tests/conformance/mirror/*.go)
	$(KUBE_BUILD) build -trimpath -ldflags '-s -w' -o $(abspath $@) ./mirror

conformance-images: $(CONFORMANCE)/images/images.tar
$(CONFORMANCE)/images/images.tar: $(wildcard tests/conformance/images/*.go) $(addprefix $(CONFORMANCE_BIN)/,agnhost nnp sample-apiserver etcd) build/programs/pause
	cd tests/conformance && $(GO) run ./images -programs $(abspath $(CONFORMANCE_BIN)) -pause $(abspath build/programs/pause) \
		-cache $(abspath $(CONFORMANCE)/debian) -out $(abspath $@)
