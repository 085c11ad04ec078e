/* What this processor has. The compiler's built-ins also ask whether the system saves the wide registers. */
#include "kernels/x86/x86.h"

#include <cpuid.h>

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
