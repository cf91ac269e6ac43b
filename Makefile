# Everything here runs on a new machine with a Rust toolchain; deploy/tools.sh brings the rest.
#
#   make run           an API and a live HAProxy in ./.backstay
#   make test          format, lints, all tests with the system's haproxy
#   make test-matrix   the tests against a live HAProxy with 2.8, 3.0, 3.2 and 3.4
#   make vectors       replays a folder of recorded requests (VECTORS=folder) and prints passed/total per resource
#   make test-full     both, and the tests that are left out for their time

MATRIX := 2.8 3.0 3.2 3.4
CACHE := $(or $(BACKSTAY_CACHE),$(CURDIR)/.cache)
export PATH := $(CACHE)/bin:$(PATH):/usr/sbin:/sbin

.PHONY: run test test-matrix test-full vectors lint fmt bench

run:
	deploy/tools.sh run
	cargo build --release
	target/release/backstay serve --standalone ./.backstay

# The older and newer versions are for the sweep, which else asks the system's haproxy only.
test: lint
	deploy/tools.sh clients
	deploy/tools.sh matrix || echo "make: the sweep goes without the versions that cannot be had"
	cargo test --locked
	@echo "== what each haproxy refused of everything that is written, and why (target/sweep.txt)"
	@cat $(or $(CARGO_TARGET_DIR),target)/sweep.txt

lint:
	deploy/tools.sh test
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(CACHE)/bin/buf lint

# One version after the other, so that a failure names its version and the others still run.
test-matrix:
	deploy/tools.sh clients
	deploy/tools.sh matrix
	@failed=; for version in $(MATRIX); do \
	    echo "== haproxy $$version"; \
	    HAPROXY_BIN=$(CACHE)/haproxy/$$version/haproxy cargo test --locked --lib process:: && \
	    HAPROXY_BIN=$(CACHE)/haproxy/$$version/haproxy cargo test --locked --test it || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed with haproxy$$failed" >&2; exit 1; fi

test-full: test test-matrix
	cargo test --locked -- --ignored
	BACKSTAY_FULL=1 cargo test --locked --lib laws::spelled
	BACKSTAY_FULL=1 cargo test --locked --test it sweep::
	BACKSTAY_KILL_SECONDS=600 cargo test --locked --test it kill:: -- --nocapture
	@cat $(or $(CARGO_TARGET_DIR),target)/sweep.txt

VECTORS := $(CURDIR)/tests/data/vectors
vectors:
	BACKSTAY_VECTORS=$(abspath $(VECTORS)) cargo test --locked --test it vectors:: -- --nocapture

fmt:
	cargo fmt

bench:
	cargo bench
