# The steps that ./dev cuda-check takes on a machine with a device work, on the emulated one: TAP.
if [ ! -e "$SC_BUILD/tests/cuda/emulated/libcuda.so.1" ]; then
    echo "1..0 # SKIP no emulated CUDA device was built"
    exit 0
fi
if [ "${SC_SANITIZE:-no}" != no ]; then
    echo "1..0 # SKIP sanitizers want to be the first library"
    exit 0
fi
if [ -z "${SC_LONG:-}" ]; then
    echo "1..0 # SKIP half a minute: SC_LONG=1"
    exit 0
fi
said=$(bash "$SC_SRC/tests/cuda/device_check" --rehearse 2>&1)
rc=$?
n=0 failed=0
tap() { # status text
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else failed=1 && echo "not ok $n - $2"; fi
}
tap $rc "all steps go well"
for name in probe kernels stages "what they make"; do
    echo "$said" | grep -q "^== $name: well"
    tap $? "$name"
done
echo "$said" | grep -q "cuda:0.*emulated"
tap $? "the device is told of"
said_no=$(bash "$SC_SRC/tests/cuda/device_check" --nonsense 2>&1)
[ $? = 2 ] && [ "${said_no#device_check: it takes}" != "$said_no" ]
tap $? "an unknown argument"
[ $failed = 0 ] || echo "$said" | sed 's/^/# /'
echo "1..$n"
exit $failed
