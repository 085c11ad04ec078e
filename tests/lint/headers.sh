# Every header compiles alone, and twice in one file, as C11 and with the warnings of the build: TAP.
cd "$SC_BUILD" || exit 1
n=0 failed=0
for header in $(cd "$SC_SRC" && find . -name '*.h' ! -path './build*' ! -path './.*' ! -path './kernels/cuda/*' ! -path './_*' ! -path './stagecoach-*' | LC_ALL=C sort); do
    header=${header#./}
    [ "$header" != config.h ] || continue
    n=$((n + 1))
    # An object of our own in the file, as ISO C wants one.
    if said=$(printf '#include "%s"\n#include "%s"\nextern int not_empty;\n' "$header" "$header" |
        $CC $SC_CPPFLAGS -I"$SC_SRC" $SC_CFLAGS -Werror -fsyntax-only -x c - 2>&1); then
        echo "ok $n - $header"
    else
        failed=1
        echo "not ok $n - $header"
        echo "$said" | sed 's/^/# /'
    fi
done
[ $n -gt 0 ] || failed=1
echo "1..$n"
exit $failed
