# What other programs find in the source: TAP. A program that is not installed skips. With --formatted it only lists the
# files that clang-format 14 holds to .clang-format (other versions format differently).
cd "${SC_SRC:-$(dirname "$0")/../..}" || exit 1

formatted_folders="base tests/base tests/fuzz"
formatted_files() {
    # shellcheck disable=SC2086
    find $formatted_folders tests/tap.[ch] -name '*.[ch]' | LC_ALL=C sort
}
if [ "${1:-}" = --formatted ]; then
    formatted_files
    exit 0
fi

n=0 failed=0
# check NAME PROGRAM COMMAND...: one test; what the command prints is shown if it fails.
check() {
    name=$1 program=$2
    shift 2
    n=$((n + 1))
    if ! command -v "$program" >/dev/null 2>&1; then
        echo "ok $n # SKIP $name: $program is not installed"
    elif said=$("$@" 2>&1); then
        echo "ok $n - $name"
    else
        failed=1
        echo "not ok $n - $name"
        echo "$said" | head -n 60 | sed 's/^/# /'
    fi
}
all_formatted() { formatted_files | xargs clang-format-14 --dry-run --Werror; }
shell_scripts() { shellcheck dev .ci/run tests/cuda/device_check && find tests examples -name '*.sh' -exec shellcheck -s sh -e SC2086,SC2317,SC2038 {} +; }
# Views of float rows in a file's bytes are what the loader and the KV cache are made of.
c_sources() {
    find base gguf text kernels model proto cli -name '*.c' 2>/dev/null |
        xargs cppcheck -q -j2 --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 \
            --suppress=missingIncludeSystem --suppress=missingInclude --suppress=invalidPointerCast \
            -D__x86_64__ -D_GNU_SOURCE -I .
}
check "formatted as .clang-format says (./dev format mends it)" clang-format-14 all_formatted
check "shellcheck" shellcheck shell_scripts
if [ -n "${SC_LINT:-}" ]; then
    check "cppcheck" cppcheck c_sources
fi
echo "1..$n"
exit $failed
