/* The kernels, as nvcc made them for all its targets: a file taken in by the assembler. */
#include "config.h"

#include "kernels/cuda/device.h"

#ifdef CUDA_FATBIN
__asm__(".section .rodata\n.balign 64\n.global cuda_fatbin\n.hidden cuda_fatbin\ncuda_fatbin:\n.incbin \"" CUDA_FATBIN "\"\n.byte 0\n.previous\n");
extern const char cuda_fatbin[];

const void *cuda_image(void)
{
    return cuda_fatbin;
}

const char *cuda_image_targets(void)
{
    return CUDA_TARGETS;
}
#else
const void *cuda_image(void)
{
    return NULL;
}

const char *cuda_image_targets(void)
{
    return "";
}
#endif
