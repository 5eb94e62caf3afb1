# Everything that people and CI run. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO      ?= go
OUT     := out
CLUSTER := $(GO) run ./hack/lab
# tool NAME is the path of a pinned tool; it is built when it is missing.
tool     = $$($(CLUSTER) tools $(1))

# Packages whose tests need a kernel with IPVS: they run in a guest.
KERNEL_PACKAGES := ./internal/kernel ./internal/kernel/kerneltest ./internal/announce ./internal/realserver ./internal/realserver/pods ./cmd/realserver
FUZZTIME ?= 10s

##@ Main
.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run the classic set-up on a real cluster: forwarding, failure, recovery. KEEP=1 keeps the lab.
	@$(GO) run ./hack/demo $(if $(KEEP),--keep)

.PHONY: test
test: verify test-unit test-api test-install test-kernel e2e ## Run all tests, and verify. Builds and installs what is missing.
	@echo "All tests passed."

##@ Tests
.PHONY: test-unit
test-unit: ## Run the tests that need nothing but Go.
	$(GO) test -race ./api/... ./cmd/... ./controllers/... ./internal/... ./hack/... ./test/...

.PHONY: test-api
test-api: ## Run the tests that need an API server.
	KUBEBUILDER_ASSETS=$$($(CLUSTER) tools --assets) $(GO) test -tags envtest ./test/crd/... ./controllers/...

.PHONY: test-install
test-install: ## Compare the chart, the kustomization, the image and the Dockerfile.
	HELM=$(call tool,helm) KUBECTL=$(call tool,kubectl) $(GO) test -tags install ./test/install/...

.PHONY: test-kernel
test-kernel: ## Run the tests that need a kernel with IPVS, in a guest.
	$(GO) run ./hack/kerneltest -timeout 25m $(KERNEL_PACKAGES)

.PHONY: e2e
e2e: ## Run the end-to-end tests on a lab of their own.
	$(GO) test -tags e2e -count=1 -parallel 3 -timeout 60m ./test/e2e/...

.PHONY: e2e-all
e2e-all: ## Run all end-to-end tests, those too that take long, with pods on a bridge.
	$(GO) test -tags e2e -count=1 -parallel 3 -timeout 90m ./test/e2e/... -args -all -pods bridge

.PHONY: bench-takeover
bench-takeover: ## Compare takeovers with keepalived's, about an hour; goes on where it was interrupted. FOR=35m takes less time, FRESH=1 begins anew.
	@$(GO) run ./hack/bench/takeover --docs docs/benchmarks.md $(if $(FOR),--for $(FOR)) $(if $(FRESH),--fresh)

.PHONY: fuzz
fuzz: ## Fuzz each decoder and parser for FUZZTIME.
	@for pkg in $$(grep -rl '^func Fuzz' --include='*_test.go' internal | xargs -n1 dirname | sort -u); do \
	  for target in $$($(GO) test -list '^Fuzz' ./$$pkg | grep ^Fuzz); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) ./$$pkg; done; done

##@ Checks
.PHONY: verify
verify: ## Generate everything, lint, and fail on any difference or untracked file.
	@before=$$(git status --porcelain); $(MAKE) generate lint; after=$$(git status --porcelain); \
	if [[ "$$before" != "$$after" || ( -n "$${CI:-}" && -n "$$after" ) ]]; then \
	  echo "make generate changed the tree, or it holds files that git does not know:"; git status --short; git --no-pager diff | head -50; exit 1; fi
	$(GO) mod tidy -diff
	GOOS=darwin $(GO) vet ./api/... ./controllers/... ./internal/plan ./internal/netstate ./internal/health ./internal/conditions

.PHONY: generate
generate: ## Generate deep copies, CRDs and the chart's copies of them.
	$(call tool,controller-gen) object paths=./api/...
	$(call tool,controller-gen) crd paths=./api/... output:crd:dir=config/crd
	cp config/crd/lvs-operator.io_*.yaml charts/lvs-operator/crds/
	$(GO) run ./hack/apidocs

.PHONY: lint
lint: ## Run the linters.
	$(call tool,golangci-lint-kube-api-linter) run ./...

.PHONY: fmt
fmt: ## Format the code.
	$(call tool,golangci-lint-kube-api-linter) fmt ./...

##@ Lab
.PHONY: lab
lab: ## Bring up a cluster with 2 directors and 1 worker.
	$(CLUSTER) up --directors 2 --workers 1

.PHONY: lab-down
lab-down: ## Take the lab down.
	$(CLUSTER) down

##@ Build
.PHONY: build
build: ## Build the programs into out/bin.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(OUT)/bin/ ./cmd/...

.PHONY: image
image: ## Build the image as out/image.tar.
	$(GO) run ./hack/image -o $(OUT)/image.tar
