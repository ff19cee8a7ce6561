# What takes longer than the tests. The tests: scripts/test.

SEEDS ?= 0:20000
FUZZ_SECONDS ?= 60

.PHONY: soak reliability-report

# Both hosts simulated, with these seeds; then hostile frames. A seed that fails prints how to run it again.
soak:
	SEEDS=$(SEEDS) FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/test --only soak

# What was tried to break it, and how often that went wrong. In virtual machines, too.
reliability-report:
	SEEDS=$(SEEDS) FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/reliability-report
