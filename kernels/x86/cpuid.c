/* What this processor has. The compiler's built-ins also ask whether the system saves the wide registers. */
#include "kernels/x86/x86.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

bool x86_has_avx2(void)
{
    unsigned a, b, c, d; /* clang 14 does not know F16C's name: leaf 1, ecx bit 29 */
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

bool x86_has_avxvnni(void)
{
    unsigned a, b, c, d; /* nor AVX-VNNI's: leaf 7.1, eax bit 4 */
    return x86_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

bool x86_has_avx512vnni(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

/* Whether the system saves the state components in `bits`. */
static bool system_saves(uint64_t bits)
{
    unsigned a, b, c, d;
    uint32_t low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) /* OSXSAVE */
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (((uint64_t)high << 32 | low) & bits) == bits;
}

/* Eight tiles of 16 rows of 64 bytes, which is what palette 1 has meant so far. */
static bool has_usual_tiles(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(0x1D, 1, &a, &b, &c, &d) && b >> 16 >= 8 && (b & 0xFFFF) == 64 && (c & 0xFFFF) >= 16;
}

/* Linux gives a process tile state only when it asks; kernels before 5.16, and some sandboxes, refuse. */
static bool may_use_tiles(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

bool x86_has_amx(void)
{
    unsigned a, b, c, d; /* leaf 7: edx bit 24 AMX-TILE, bit 25 AMX-INT8 */
    return x86_has_avx512vnni() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3 && system_saves(3 << 17) && has_usual_tiles() &&
           may_use_tiles();
}
