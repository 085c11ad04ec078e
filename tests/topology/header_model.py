"""Header-only GGUF files of real shapes (metadata and tensor table, no weights): what `plan` needs of a model.

    header_model.py OUT.gguf SHAPE QUANT [LAYERS]     shapes: see SHAPES; QUANT: F16, Q4_K, Q8_0 or Q4_K_M (mixed, as usual)
"""
import struct
import sys

U32, F32, STRING, ARRAY = 4, 6, 8, 9
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210)}
# embd, ff, heads, kv heads, layers, vocab, experts, used
SHAPES = {
    "tiny": (256, 512, 4, 2, 8, 1024, 0, 0),
    "1b": (2048, 8192, 32, 8, 16, 128256, 0, 0),
    "8b": (4096, 14336, 32, 8, 32, 128256, 0, 0),
    "70b": (8192, 28672, 64, 8, 80, 32000, 0, 0),
    "moe": (4096, 14336, 32, 8, 32, 32000, 8, 2),
}


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    if isinstance(v, str):
        return struct.pack("<I", STRING) + text(v)
    if isinstance(v, float):
        return struct.pack("<If", F32, v)
    return struct.pack("<II", U32, v)


def tensors(shape, quant, layers):
    embd, ff, heads, kv, _, vocab, experts, _ = shape
    width = embd // heads
    mixed = quant == "Q4_K_M"
    usual = "Q4_K" if mixed else quant

    def better(i):  # which layers' values and downs the usual mixture keeps in Q6_K
        return "Q6_K" if mixed and (i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2) else usual

    yield "token_embd.weight", (embd, vocab), usual
    for i in range(layers):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (embd,), "F32"
        yield b + "attn_q.weight", (embd, heads * width), usual
        yield b + "attn_k.weight", (embd, kv * width), usual
        yield b + "attn_v.weight", (embd, kv * width), better(i)
        yield b + "attn_output.weight", (heads * width, embd), usual
        yield b + "ffn_norm.weight", (embd,), "F32"
        if experts:
            yield b + "ffn_gate_inp.weight", (embd, experts), "F32"
            yield b + "ffn_gate_exps.weight", (embd, ff, experts), usual
            yield b + "ffn_up_exps.weight", (embd, ff, experts), usual
            yield b + "ffn_down_exps.weight", (ff, embd, experts), better(i)
        else:
            yield b + "ffn_gate.weight", (embd, ff), usual
            yield b + "ffn_up.weight", (embd, ff), usual
            yield b + "ffn_down.weight", (ff, embd), better(i)
    yield "output_norm.weight", (embd,), "F32"
    yield "output.weight", (embd, vocab), "Q6_K" if mixed else usual


def make(path, shape_name, quant, layers=None):
    shape = SHAPES[shape_name]
    layers = layers or shape[4]
    keys = {"general.architecture": "llama", "general.name": f"{shape_name} {quant}", "llama.context_length": 8192,
            "llama.embedding_length": shape[0], "llama.feed_forward_length": shape[1], "llama.block_count": layers,
            "llama.attention.head_count": shape[2], "llama.attention.head_count_kv": shape[3], "llama.vocab_size": shape[5],
            "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 500000.0}
    if shape[6]:
        keys["llama.expert_count"], keys["llama.expert_used_count"] = shape[6], shape[7]
    table = list(tensors(shape, quant, layers))
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(table), len(keys)))
        for key, v in keys.items():
            f.write(text(key) + value(v))
        offset = 0
        for name, dims, kind in table:
            number, block, size = TYPES[kind]
            f.write(text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", number, offset))
            n = 1
            for d in dims:
                n *= d
            offset += (n // block * size + 31) // 32 * 32
    return path


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else None)
