# Thin wrappers over the CMake presets; see README.md.
PRESET ?= release

.PHONY: all setup demo check lint format install clean
all:
	@cmake --preset $(PRESET) >/dev/null
	@cmake --build --preset $(PRESET)

setup:
	@tools/setup.sh

demo:
	@tools/demo.sh

check:
	@tools/check.sh

lint:
	@tools/check/tidy.sh --all
	@cppcheck --quiet --enable=warning,portability --inline-suppr --std=c11 -I. -Iinclude \
	  --error-exitcode=1 base kernels ir frontend passes targets plan backend runtime compiler tools

format:
	@tools/check/format.sh --fix

install: all
	@cmake --install build/$(PRESET)

clean:
	@cmake -E rm -rf build/debug build/release build/scalar build/asan-ubsan build/tsan
