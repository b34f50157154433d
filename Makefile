# Two commands do everything on a fresh machine: `make run` plays a live match, `make test` passes the tests.
# Both install what they need.

GO ?= go
OUTSIDE := engine/page/outside

.PHONY: run build setup test check fuzz bench bench-smoke scale scale-rate boot deb container clean

run: build ## a live match with simulated players at http://localhost:8080/
	./server serve --demo

build:
	$(GO) build -o server .

# What the outside tests need besides Go: a browser, node, two npm packages, OpenSSL for a certificate, systemd to read its units, buildah for the image, and what the baseline consists of.
setup:
	@command -v chromium >/dev/null && command -v node >/dev/null && command -v npm >/dev/null && command -v systemd-analyze >/dev/null && command -v openssl >/dev/null && \
		command -v buildah >/dev/null && command -v redis-server >/dev/null && test -x /usr/sbin/nginx && test -x /usr/sbin/mariadbd || \
		(apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium nodejs npm openssl systemd buildah nginx mariadb-server redis-server)
	cd $(OUTSIDE) && npm ci --no-audit --no-fund --silent

test: setup check ## everything that must hold
	$(GO) test -race -timeout 30m ./...
	$(GO) test -run Allocat ./engine ./proto ./store # what must not allocate: counted without the race detector, which makes pools forget
	$(MAKE) fuzz

check: ## what needs no run
	@test -z "$$(gofmt -l .)" || (gofmt -l . && echo "run gofmt -w on these" && false)
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) ./...

STATICCHECK := v0.6.1
# A number of inputs and not a time: when the time is over in the middle of an input, Go's fuzzer may call that a failure
# ("context deadline exceeded").
FUZZTIME ?= 5000x

# Each fuzz target for a little; `make fuzz FUZZTIME=10m` for long.
fuzz:
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "fuzz $$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$package >/tmp/fuzz.$$$$ 2>&1 || (cat /tmp/fuzz.$$$$; false); \
			rm -f /tmp/fuzz.$$$$; \
		done; \
	done

bench: ## the benchmarks, with the kernel's own limits beside them
	$(GO) test -run '^$$' -bench . -benchmem ./proto ./market ./store ./engine

bench-smoke: build ## 10,000 players on one game for 5 minutes, audited
	./server bench smoke

scale: ## N connections in one process, in a guest kernel of its own; N=1000000 takes 20 minutes and 15 GiB
	bench/scale/run.sh $(N)

scale-rate: ## the same at 6,700 stakes/s with distributions every 3 s: the server in the guest, the players outside; takes root
	OUTSIDE=1 bench/scale/run.sh $(N)

N ?= 100000

# A package and an image of the server, linked statically. VERSION counts commits, so that a later one is an upgrade.
VERSION ?= 0.$(shell git rev-list --count HEAD).$(shell git rev-parse --short HEAD)

deb: ## a Debian package: ./tote_VERSION_ARCHITECTURE.deb
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o server .
	tuning/deb/build.sh ./server $(VERSION) .

boot: ## a real systemd, in namespaces of its own, runs the server from its units; as root, half a minute
	CGO_ENABLED=0 $(GO) build -o server .
	tuning/systemd/boot.sh ./server

container: ## an image with nothing but the server; needs podman, buildah or docker, and no registry
	rm -rf $(IMAGE) && mkdir -p $(IMAGE)/data
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o $(IMAGE)/server .
	$(CONTAINER) build $(if $(filter docker,$(firstword $(CONTAINER))),,--format docker) -f tuning/Containerfile -t tote $(IMAGE)
	rm -rf $(IMAGE)

IMAGE := tuning/image
CONTAINER ?= $(firstword $(foreach tool,podman buildah docker,$(if $(shell command -v $(tool)),$(tool))) podman)

clean:
	rm -rf server tote_*.deb data $(OUTSIDE)/node_modules
