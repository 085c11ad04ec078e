# sanitized.sh COMMAND...: runs a test of a sanitizer's build. What a sanitizer says in any of its processes fails it, also where
# nobody looks at that process's status or at what it writes. (A list of suppressions that were of use is no report.)
reports=$(mktemp -d) || exit 1
trap 'rm -rf "$reports"' EXIT
for name in ASAN_OPTIONS TSAN_OPTIONS UBSAN_OPTIONS; do
    eval "export $name=\"\${$name:+\$$name:}log_path=\$reports/report:log_exe_name=1:print_suppressions=0\""
done
"$@"
status=$?
for report in "$reports"/report.*; do
    [ -s "$report" ] || continue
    echo "# what the sanitizer said (${report##*/report.}):"
    sed 's/^/# /' "$report"
    [ "$status" != 0 ] || status=66
done
exit "$status"
