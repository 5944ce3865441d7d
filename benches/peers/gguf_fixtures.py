"""Makes tests/fixtures/gguf: files that the `gguf` package writes, and what libllama says of them.

usage: gguf_fixtures.py FOLDER

Tiny models with random weights, of each architecture that both know; the keys are those of
llama.cpp's own converter. For each:
`NAME.gguf`; `NAME.f32`, the logits of libllama at every position of the sequence of ids in
`expected.json`, which also has libllama's ids of a text.
"""

import json
import os
import sys

import gguf
import numpy as np

import libllama

LAYERS, WIDTH, HEADS, KV_HEADS, FFN, ROWS, LENGTH = 2, 32, 2, 1, 64, 272, 64
EXPERTS, EXPERTS_USED, EXPERT_FFN = 6, 2, 32
TEXT = "It's 12345 o'clock\n\n the end  日本 <|eot_id|>."
SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>", "<|eot_id|>"]
MERGES = ["t h", "th e", "Ġ the", "o c", "i t", "e n", "1 2", "12 3"]


def byte_alphabet():
    """GPT-2's characters for bytes: those that can be printed stand for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(len(others))]


def vocabulary(writer):
    tokens = byte_alphabet() + [m.replace(" ", "") for m in MERGES] + SPECIAL
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)) + [gguf.TokenType.CONTROL] * len(SPECIAL)
    first = len(tokens) - len(SPECIAL)
    while len(tokens) < ROWS:
        tokens.append(f"[PAD{len(tokens)}]")
        kinds.append(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(first)
    writer.add_eos_token_id(first + 1)
    writer.add_pad_token_id(first + 1)
    writer.add_mask_token_id(first + 2)
    writer.add_eot_token_id(first + 3)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ bos_token }}{{ messages[0]['content'] }}")


def write(path, kinds, tied, seed, architecture="llada"):
    """`kinds` maps the ends of tensors' names to types; others are F32."""
    random = np.random.default_rng(seed)
    has_experts, shifted = architecture == "llada-moe", architecture == "dream"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(ROWS)
    writer.add_causal_attention(False)
    writer.add_diffusion_shift_logits(shifted)
    if has_experts:
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(EXPERTS_USED)
        writer.add_expert_feed_forward_length(EXPERT_FFN)
    vocabulary(writer)

    def tensor(name, *shape):
        values = random.standard_normal(shape, dtype=np.float32) / np.sqrt(shape[-1])
        if len(shape) == 1 and not name.endswith("bias"):
            values = 1 + 0.2 * random.standard_normal(shape, dtype=np.float32)
        kind = next((kinds[end] for end in kinds if name.endswith(end + ".weight")), "F32")
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    tensor("token_embd.weight", ROWS, WIDTH)
    kv = WIDTH // HEADS * KV_HEADS
    for n in range(LAYERS):
        tensor(f"blk.{n}.attn_norm.weight", WIDTH)
        for part, rows in [("q", WIDTH), ("k", kv), ("v", kv), ("output", WIDTH)]:
            tensor(f"blk.{n}.attn_{part}.weight", rows, WIDTH)
            if shifted and part != "output":
                tensor(f"blk.{n}.attn_{part}.bias", rows)
        tensor(f"blk.{n}.ffn_norm.weight", WIDTH)
        if has_experts:
            for part in "qk":
                tensor(f"blk.{n}.attn_{part}_norm.weight", WIDTH // HEADS)
            tensor(f"blk.{n}.ffn_gate_inp.weight", EXPERTS, WIDTH)
            tensor(f"blk.{n}.ffn_gate_exps.weight", EXPERTS, EXPERT_FFN, WIDTH)
            tensor(f"blk.{n}.ffn_up_exps.weight", EXPERTS, EXPERT_FFN, WIDTH)
            tensor(f"blk.{n}.ffn_down_exps.weight", EXPERTS, WIDTH, EXPERT_FFN)
            continue
        tensor(f"blk.{n}.ffn_gate.weight", FFN, WIDTH)
        tensor(f"blk.{n}.ffn_up.weight", FFN, WIDTH)
        tensor(f"blk.{n}.ffn_down.weight", WIDTH, FFN)
    tensor("output_norm.weight", WIDTH)
    if not tied:
        tensor("output.weight", ROWS, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    # libllama rounds activations to the type of a matrix: only with F32 is it exact.
    floats = {"token_embd": "F16"}
    mixed = {"token_embd": "Q8_0", "ffn_gate": "Q4_0", "ffn_up": "Q4_0", "ffn_down": "Q8_0"}
    mixed |= {"attn_q": "F16", "attn_k": "Q8_0", "attn_v": "BF16", "attn_output": "Q8_0"}
    sequence = np.random.default_rng(7).integers(0, ROWS, 12).tolist()
    expected = {"ids": sequence, "text": TEXT}
    experts = {"token_embd": "F16"}
    mixed_experts = {"ffn_gate_exps": "Q8_0", "ffn_up_exps": "Q4_0", "ffn_down_exps": "Q8_0"}
    for name, kinds, tied, architecture in [
        ("floats", floats, False, "llada"),
        ("mixed", mixed, True, "llada"),
        ("dream", floats, False, "dream"),
        ("experts", experts, False, "llada-moe"),
        ("mixed_experts", mixed_experts, False, "llada-moe"),
    ]:
        path = os.path.join(folder, name + ".gguf")
        write(path, kinds, tied, tied, architecture)
        model = libllama.Model(path, len(sequence))
        model.logits(sequence).astype("<f4").tofile(os.path.join(folder, name + ".f32"))
        expected["text_ids"] = model.tokenize(TEXT)
    with open(os.path.join(folder, "expected.json"), "w") as out:
        json.dump(expected, out, indent=1, ensure_ascii=False)


main()
