/* What this processor has, as the kernel tells it. */
#include "kernels/arm/arm.h"

#include <sys/auxv.h>

/* The bits of asm/hwcap.h, which old systems' headers lack. */
#define ASIMD (1UL << 1)
#define ASIMDDP (1UL << 20)
#define I8MM (1UL << 13)

bool arm_has_neon(void)
{
    return getauxval(AT_HWCAP) & ASIMD;
}

bool arm_has_dotprod(void)
{
    return arm_has_neon() && (getauxval(AT_HWCAP) & ASIMDDP);
}

bool arm_has_i8mm(void)
{
    return arm_has_dotprod() && (getauxval(AT_HWCAP2) & I8MM);
}
