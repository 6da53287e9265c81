# Fuzzing of the native core, and what else looks at its C: docs/fuzzing.md. A part of the Makefile.
FUZZ_PACKAGES := clang libclang-rt-dev
FUZZ_SECONDS ?= 60
FUZZ_HARNESSES := access decode drain evict maps migrate sample stat survey
FUZZ_CORPUS := tests/fuzz/corpus
FUZZ_KEPT = $(FUZZ_CORPUS)/$$name $$(ls -d tests/fuzz/mended/$$name 2>/dev/null)
FUZZ_BUILD := build/fuzz
FUZZ_SHARED := tests/fuzz/fuzz.mk $(wildcard tests/fuzz/native/*.h) tests/fuzz/native/unanswered.c
CORE_SOURCES := $(filter-out balancerd/native/_core.c,$(wildcard balancerd/native/*.c))
CORE_HEADERS := $(wildcard balancerd/native/*.h)
CORE_WARNINGS := -std=gnu11 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unknown-pragmas -Ibalancerd/native
FUZZ_CALLS := -Itests/fuzz/native -include tests/fuzz/native/calls.h
SANITIZERS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_LIMITS := -timeout=20 -rss_limit_mb=1024 -max_len=2048 -artifact_prefix=$(FUZZ_BUILD)/failed/

.PHONY: fuzz fuzz-test fuzz-short native-sanitized native-analyzed native-thorough fuzz-ready fuzz-keep

fuzz-test: native-analyzed fuzz-short native-sanitized ## the C core: static analysis, a short run of each harness, its unit tests under sanitizers

fuzz: fuzz-ready $(addprefix $(FUZZ_BUILD)/bin/,$(FUZZ_HARNESSES)) ## fuzz each harness FUZZ_SECONDS long, then the parsers in Python
	@mkdir -p $(FUZZ_BUILD)/failed
	@for name in $(FUZZ_HARNESSES); do \
		mkdir -p $(FUZZ_BUILD)/found/$$name; \
		$(FUZZ_BUILD)/bin/$$name $(FUZZ_LIMITS)$$name- -max_total_time=$(FUZZ_SECONDS) -use_value_profile=1 -print_final_stats=1 \
			$(FUZZ_BUILD)/found/$$name $(FUZZ_KEPT) >$(FUZZ_BUILD)/$$name.log 2>&1 \
			|| { grep -v '^#' $(FUZZ_BUILD)/$$name.log | tail -40; exit 1; }; \
		echo "$$name: $$(grep -oE 'DONE .*' $(FUZZ_BUILD)/$$name.log), $$(grep -oE 'executed_units: .*' $(FUZZ_BUILD)/$$name.log)"; \
	done
	$(BIN)/python -m pytest --hypothesis-profile=long --timeout=0 tests/unit/fuzz

# The same each time: one seed, a fresh place for what is found.
fuzz-short: fuzz-ready $(addprefix $(FUZZ_BUILD)/bin/,$(FUZZ_HARNESSES))
	@rm -rf $(FUZZ_BUILD)/short && mkdir -p $(FUZZ_BUILD)/failed
	@for name in $(FUZZ_HARNESSES); do \
		mkdir -p $(FUZZ_BUILD)/short/$$name; \
		$(FUZZ_BUILD)/bin/$$name $(FUZZ_LIMITS)$$name- -seed=1 -runs=10000 -max_total_time=2 \
			$(FUZZ_BUILD)/short/$$name $(FUZZ_KEPT) >$(FUZZ_BUILD)/$$name.log 2>&1 \
			|| { grep -v '^#' $(FUZZ_BUILD)/$$name.log | tail -40; exit 1; }; \
		echo "$$name: $$(find $(FUZZ_KEPT) -type f | wc -l) kept inputs, $$(grep -oE 'Done .*' $(FUZZ_BUILD)/$$name.log)"; \
	done

fuzz-keep: fuzz-ready $(addprefix $(FUZZ_BUILD)/bin/,$(FUZZ_HARNESSES)) ## what fuzzing found, as few and as small inputs as reach the same code, into the corpus
	@for name in $(FUZZ_HARNESSES); do \
		rm -rf $(FUZZ_BUILD)/kept && mkdir -p $(FUZZ_BUILD)/kept $(FUZZ_BUILD)/found/$$name $(FUZZ_CORPUS)/$$name; \
		$(FUZZ_BUILD)/bin/$$name -merge=1 -use_counters=0 $(FUZZ_BUILD)/kept $(FUZZ_CORPUS)/$$name $(FUZZ_BUILD)/found/$$name \
			>$(FUZZ_BUILD)/$$name.log 2>&1 || { tail -40 $(FUZZ_BUILD)/$$name.log; exit 1; }; \
		rm -rf $(FUZZ_CORPUS)/$$name && cp -r $(FUZZ_BUILD)/kept $(FUZZ_CORPUS)/$$name; \
		echo "$$name: $$(ls $(FUZZ_CORPUS)/$$name | wc -l) inputs, $$(du -bs $(FUZZ_CORPUS)/$$name | cut -f1) bytes"; \
	done

fuzz-ready:
	@$(MAKE) --no-print-directory apt APT_PACKAGES="$(FUZZ_PACKAGES)"

.SECONDARY: $(patsubst balancerd/native/%.c,$(FUZZ_BUILD)/core/%.o,$(CORE_SOURCES))

$(FUZZ_BUILD)/core/%.o: balancerd/native/%.c $(CORE_HEADERS) $(FUZZ_SHARED) | fuzz-ready
	@mkdir -p $(@D)
	@clang $(CORE_WARNINGS) $(FUZZ_CALLS) $(SANITIZERS) -fsanitize=fuzzer-no-link -c $< -o $@

$(FUZZ_BUILD)/bin/%: tests/fuzz/native/%.c $(FUZZ_SHARED) $(patsubst balancerd/native/%.c,$(FUZZ_BUILD)/core/%.o,$(CORE_SOURCES)) | fuzz-ready
	@mkdir -p $(@D)
	@clang $(CORE_WARNINGS) -Itests/fuzz/native $(SANITIZERS) -fsanitize=fuzzer $(filter %.c %.o,$^) -lm -o $@

# The unit tests of the native core, once more with a core in which the sanitizers watch.
native-sanitized: $(FUZZ_BUILD)/_core.so
	BALANCERD_SANITIZED_CORE=$< LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
		UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/python -m pytest -q -p tests.fuzz.sanitized tests/unit/native \
		--deselect tests/unit/native/test_access.py::test_a_million_pages_have_room_where_they_are_said_to # of size alone: 8 s

$(FUZZ_BUILD)/_core.so: $(VENV)/.ready $(CORE_SOURCES) $(CORE_HEADERS) tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	gcc -shared -fPIC $(CORE_WARNINGS) $(SANITIZERS) -DPy_LIMITED_API=0x030b0000 \
		-I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') \
		balancerd/native/_core.c $(CORE_SOURCES) -lm -o $@

native-analyzed:
	@for file in $(CORE_SOURCES); do gcc $(CORE_WARNINGS) -O2 -fanalyzer -c $$file -o /dev/null || exit 1; done

native-thorough: fuzz-ready $(addprefix $(FUZZ_BUILD)/plain/,$(FUZZ_HARNESSES)) ## the C core: clang's static analyzer, and all kept inputs under valgrind
	@for file in $(CORE_SOURCES); do clang --analyze --analyzer-output text -Xclang -analyzer-werror $(CORE_WARNINGS) $$file || exit 1; done
	@$(MAKE) --no-print-directory apt APT_PACKAGES=valgrind
	@for name in $(FUZZ_HARNESSES); do \
		valgrind -q --error-exitcode=1 --leak-check=full $(FUZZ_BUILD)/plain/$$name $$(find $(FUZZ_KEPT) -type f) || exit 1; \
		echo "valgrind: $$name has nothing to say of $$(find $(FUZZ_KEPT) -type f | wc -l) inputs"; \
	done

$(FUZZ_BUILD)/plain/%: tests/fuzz/native/%.c tests/fuzz/native/replay.c $(FUZZ_SHARED) $(CORE_SOURCES) $(CORE_HEADERS)
	@mkdir -p $(@D)
	gcc $(CORE_WARNINGS) -O1 $(FUZZ_CALLS) $(filter %.c,$^) -lm -o $@
