# What others have written, against what we have: clients, upstream's rules,
# and bytes at random. Included by ../Makefile; paths are from the module's root.

CLIENTS      := build/clients
ORACLE_CASES ?= 150
ORACLE_SEED  ?= 1
ORACLE_ONLY  ?=

.PHONY: clients oracle fuzz

clients: build $(CLIENTS)/helm $(CLIENTS)/oldkubectl ## Helm, kubectl, an older kubectl and client-go against a mesh of API-only peers
	cd tests/clients && $(GO) test -count 1 -timeout 30m . -args -skein $(abspath bin/skein) \
		-helm $(abspath $(CLIENTS)/helm) -oldkubectl $(abspath $(CLIENTS)/oldkubectl)

$(CLIENTS)/helm: tests/clients/go.mod
	cd tests/clients && $(GO) build -o $(abspath $@) helm.sh/helm/v4/cmd/helm
$(CLIENTS)/oldkubectl: tests/clients/oldkubectl/go.mod tests/clients/oldkubectl/main.go
	cd tests/clients/oldkubectl && $(GO) build -o $(abspath $@) .

oracle: ## our rules for every kind beside upstream's own [ORACLE_CASES=n] [ORACLE_SEED=n] [ORACLE_ONLY=regex]
	cd tests/conformance/strategies && $(GO) test -count 1 -timeout 60m . -args \
		-oracle.cases $(ORACLE_CASES) -oracle.seed $(ORACLE_SEED) -oracle.only '$(ORACLE_ONLY)'

fuzz: ## fuzz for FUZZTIME in all, shared among every target [FUZZTIME=10m] [FUZZPROCS=1] [KEEP=1 keeps the corpora]
	GO=$(GO) FUZZTIME=$(FUZZTIME) FUZZPROCS=$(FUZZPROCS) KEEP=$(KEEP) tests/fuzz/fuzz.sh
