# nvcc compiles the kernels without a warning, and what the compiler must keep in memory for want of registers ("spills") is
# nothing: TAP. The ordinary run compiles two types of matrices for the oldest and one newer target at hand; SC_LONG=1 all types
# for all targets that configure would choose, and then the kernels are the very ones that the tests ran on the emulated device.
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
if [ ! -x "$nvcc" ]; then
    echo "1..0 # SKIP nvcc is not here"
    exit 0
fi
dir=$SC_BUILD/tests/cuda/compiled
mkdir -p "$dir"
known=$("$nvcc" --list-gpu-code | tr "\n" " ")
targets=
for t in 61 75 80 86 89 90 120; do
    case " $known " in *" sm_$t "*) targets="$targets $t" ;; esac
done
types=
if [ -z "$SC_LONG" ]; then
    types=-DCUDA_TWO_TYPES
    first=${targets# }
    first=${first%% *}
    targets="$first 90"
fi
n=0 failed=0
tap() { # status text
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else failed=1 && echo "not ok $n - $2"; fi
}
emulated=$SC_BUILD/tests/cuda/emulated/kernels.o
if [ -f "$emulated" ]; then
    nm "$emulated" | sed -n "s/.*\(sc_[a-z0-9_]*\)_registered\$/\1/p" | LC_ALL=C sort -u >"$dir/emulated"
else
    rm -f "$dir/emulated"
fi
for t in $targets; do
    "$nvcc" -std=c++17 -O3 -fmad=false -I"$SC_SRC" $types -Werror all-warnings -Xptxas -v -gencode arch=compute_$t,code=sm_$t -cubin \
        -o "$dir/kernels.$t.cubin" "$SC_SRC/kernels/cuda/kernels.cu" >"$dir/log.$t" 2>&1
    rc=$?
    tap $rc "for compute capability $t"
    [ $rc = 0 ] || sed 's/^/# /' "$dir/log.$t" | grep -E 'error|warning' | head -20
    spills=$(grep 'spill stores' "$dir/log.$t" | grep -v ' 0 bytes spill stores, 0 bytes spill loads')
    [ -z "$spills" ]
    tap $? "no spills for $t"
    [ -z "$spills" ] || echo "$spills" | sed 's/^/# /'
    if [ -f "$dir/emulated" ]; then
        sed -n "s/.*entry function '\([a-z0-9_]*\)'.*/\1/p" "$dir/log.$t" | LC_ALL=C sort -u >"$dir/entries.$t"
        if [ -n "$types" ]; then
            [ -s "$dir/entries.$t" ] && [ -z "$(LC_ALL=C comm -23 "$dir/entries.$t" "$dir/emulated")" ]
        else
            cmp -s "$dir/entries.$t" "$dir/emulated"
        fi
        tap $? "kernels for $t are those that were emulated"
    fi
done
echo "1..$n"
exit $failed
