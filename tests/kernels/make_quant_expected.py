#!/usr/bin/env python3
"""Writes quant_expected.h: what PyPI's gguf (needs numpy; made with 0.19.0) unfolds from the blocks that test_quant.c
generates, as a hash of the exact bits and some values of every block.

    make_quant_expected.py > quant_expected.h
"""
import struct
import numpy as np
from gguf import GGMLQuantizationType as T, quants

BLOCKS = 16
# type: bytes of a block, places of its halves
TYPES = {"Q4_0": (18, [0]), "Q4_1": (20, [0, 2]), "Q5_0": (22, [0]), "Q5_1": (24, [0, 2]), "Q8_0": (34, [0]), "MXFP4": (17, []),
         "Q2_K": (84, [80, 82]), "Q3_K": (110, [108]), "Q4_K": (144, [0, 2]), "Q5_K": (176, [0, 2]), "Q6_K": (210, [208]),
         "IQ4_NL": (18, [0]), "IQ4_XS": (136, [0])}
EDGES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF]
MASK = (1 << 64) - 1


def stream(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        yield (z ^ z >> 31) & 255


def blocks_of(name):
    size, halves = TYPES[name]
    bytes_ = stream(int(T[name]))
    out = bytearray()
    for i in range(BLOCKS):
        b = bytearray(next(bytes_) for _ in range(size))
        for k, at in enumerate(halves):
            b[at + 1] = b[at + 1] & 0x97 | 0x20
            if i < len(EDGES):
                b[at:at + 2] = struct.pack("<H", EDGES[(i + k) % len(EDGES)])
        if name == "MXFP4":
            b[0] = [0, 1, 2, 3, 253, 254][i] if i < 6 else b[0] & 63 | 96
        out += b
    return bytes(out)


def main():
    print("#ifndef TESTS_KERNELS_QUANT_EXPECTED_H\n#define TESTS_KERNELS_QUANT_EXPECTED_H\n")
    print("/* Made by make_quant_expected.py. Of each block: FNV-1a of its floats' bits; its first, 12th and last value. */\n")
    print('#include <stdint.h>\n\n#include "gguf/quant.h"\n')
    print("static const struct {\n    enum quant_type type;\n    struct {\n        uint64_t hash;\n        uint32_t first, twelfth, last;\n"
          f"    }} block[{BLOCKS}];\n}} expected[] = {{")
    for name in TYPES:
        values = quants.dequantize(np.frombuffer(blocks_of(name), dtype=np.uint8), T[name]).astype("<f4").reshape(BLOCKS, -1)
        print(f"    {{QUANT_{name},\n     {{")
        for v in values:
            h = 0xCBF29CE484222325
            for byte in v.tobytes():
                h = ((h ^ byte) * 0x100000001B3) & MASK
            bits = v.view("<u4")
            print(f"         {{0x{h:016x}, 0x{bits[0]:08x}, 0x{bits[11]:08x}, 0x{bits[-1]:08x}}},")
        print("     }},")
    print("};\n\n#endif")


main()
