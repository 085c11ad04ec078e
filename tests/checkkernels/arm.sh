# The Arm kernels on this machine: cross-compiled, and run by qemu against the scalar ones. TAP; skips where either is missing.
set -u
src=${SC_SRC:?} cc=aarch64-linux-gnu-gcc
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT

skip() { echo "1..0 # SKIP $1"; exit 0; }
[ "$(uname -m)" != aarch64 ] || skip "this is an Arm machine: checkkernels itself runs them"
[ "${SC_SANITIZE:-no}" = no ] || skip "a sanitizer's build: it would run the same as the plain one"
command -v $cc >/dev/null || skip "no $cc (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || skip "no qemu-aarch64 (Debian: qemu-user)"

cd "$src" || exit 1
flags="-std=c11 -D_GNU_SOURCE -I. -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra -Wno-missing-field-initializers -Werror -O2"
compile() { # OBJECT MARCH FILE...
    object=$1 march=$2
    shift 2
    # shellcheck disable=SC2086
    $cc $flags $march -c "$@" -o "$out/$object.o" || { echo "Bail out! $* does not compile for Arm"; exit 1; }
}
for f in neon_mat neon_vec neon_attn hwcap; do
    compile $f "" kernels/arm/$f.c
done
compile dotprod "-march=armv8.2-a+dotprod" kernels/arm/dotprod_mat.c
compile i8mm "-march=armv8.2-a+dotprod+i8mm" kernels/arm/i8mm_mat.c
# shellcheck disable=SC2086
$cc $flags -static -o "$out/checkkernels" tests/checkkernels/*.c tests/tap.c base/err.c base/mem.c base/strbuf.c base/utf8.c \
    base/threadpool.c base/cpus.c base/sysinfo.c gguf/quant.c kernels/dispatch.c kernels/cpu*.c kernels/blas_none.c kernels/r16.c kernels/scalar/*.c "$out"/*.o -lm -lpthread ||
    { echo "Bail out! checkkernels does not link for Arm"; exit 1; }

"$qemu" -cpu max "$out/checkkernels"
