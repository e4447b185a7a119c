#!/usr/bin/env python3
"""Writes the files that fuzzing begins with, FOLDER/READER/*, and each reader's words, FOLDER/READER.dict.

    make_corpus.py FOLDER      needs build/sinkref, or SINKREF, for the traces

They are the small files of reference_outputs and small files made here.
"""

import argparse
import gzip
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUTPUTS = ROOT / "reference_outputs"
SINKREF = os.environ.get("SINKREF", str(ROOT / "build" / "sinkref"))
LARGEST = 20_000  # of a seed: larger ones make every execution slow
BETWEEN = b"\xff"  # several files in one input

SMALL = dict(model_type="llama", vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=64)  # fmt: skip
SHAPES = {"model.embed_tokens.weight": (16, 8), "lm_head.weight": (16, 8), "model.norm.weight": (8,)} | {
    f"model.layers.0.{name}.weight": shape
    for name, shape in {"input_layernorm": (8,), "post_attention_layernorm": (8,), "self_attn.q_proj": (8, 8),
                        "self_attn.k_proj": (4, 8), "self_attn.v_proj": (4, 8), "self_attn.o_proj": (8, 8),
                        "mlp.gate_proj": (12, 8), "mlp.up_proj": (12, 8), "mlp.down_proj": (8, 12)}.items()
}  # fmt: skip
GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm", "model.layers.0": "blk.0",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def elements(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def values(n, width="f"):
    return struct.pack(f"<{n}{width}", *((i % 7 - 3) / 4 for i in range(n)))


def safetensors(tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)"""
    header, data = {"__metadata__": metadata or {"format": "pt"}}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf_value(value):
    """Its type and its bytes."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, text(value)
    kinds = [gguf_value(each) for each in value]
    return 9, struct.pack("<IQ", kinds[0][0], len(kinds)) + b"".join(raw for _, raw in kinds)


def gguf(vocabulary, dtype=0, **keys):
    """A whole model with its tokenizer; dtype 0 is F32, 8 Q8_0."""
    metadata = {"general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 64, "llama.embedding_length": 8,
                "llama.feed_forward_length": 12, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1,
                "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0} | vocabulary | keys  # fmt: skip
    infos, data = b"", b""
    for name, shape in SHAPES.items():
        for old, new in GGUF_NAMES.items():
            name = name.replace(old, new)
        if name.startswith("token_embd") or name.startswith("output."):
            shape = (len(vocabulary["tokenizer.ggml.tokens"]), 8)
        infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", dtype, len(data))
        data += values(elements(shape))
        data += b"\0" * (-len(data) % 32)
    file = b"GGUF" + struct.pack("<IQQ", 3, len(SHAPES), len(metadata))
    for key, value in metadata.items():
        kind, raw = gguf_value(value)
        file += text(key) + struct.pack("<I", kind) + raw
    file += infos
    return file + b"\0" * (-len(file) % 32) + data


def pieces(scores=True, kind="llama"):
    words = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "t", "h", "e", "th", "the", "▁the", "▁▁", "a", "b", "ab", "é"]
    made = {"tokenizer.ggml.model": kind, "tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": [2, 3, 3, 6] + [1] * 7 + [4] + [1] * 4,
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0}  # fmt: skip
    if scores:
        made["tokenizer.ggml.scores"] = [-float(i) for i in range(len(words))]
    return made


def byte_pairs():
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in kept]
    words = [chr(b) if b in kept else chr(256 + rest.index(b)) for b in range(256)] + ["th", "the", "<|end|>"]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": words,
            "tokenizer.ggml.merges": ["t h", "th e"], "tokenizer.ggml.token_type": [1] * 258 + [3],
            "tokenizer.ggml.bos_token_id": 258}  # fmt: skip


def trace(tokens, hooks):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "t.safetensors"
        subprocess.run([SINKREF, "trace", "--tokens", tokens, "--hooks", hooks, "--out", file], check=True, stderr=subprocess.DEVNULL)
        return file.read_bytes()


def configs():
    for file in OUTPUTS.glob("tiny_*/config.json"):
        yield file.read_bytes()
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    for extra in (
        {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_parameters": llama3 | {"rope_theta": 5e5}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.0}}, {"eos_token_id": [1, 2], "bos_token_id": None},
        {"model_type": "mistral", "sliding_window": None, "layer_types": ["full_attention"]}, {"head_dim": 6, "attention_bias": True},
        {"quantization_config": {"quant_method": "gptq"}}, {"hidden_act": "gelu"}, {"partial_rotary_factor": 0.5}, {"_name_or_path": "x"},
    ):  # fmt: skip
        yield json.dumps(SMALL | extra).encode()


def seeds():
    """READER -> its files."""
    small = {name: ("F32", shape, values(elements(shape))) for name, shape in SHAPES.items()}
    half = {name: ("BF16", shape, b"\x80\x3f" * elements(shape)) for name, shape in SHAPES.items()}
    fast = (OUTPUTS / "tiny_tokenizer/tokenizer.json").read_bytes(), (OUTPUTS / "tiny_tokenizer/tokenizer_config.json").read_bytes()
    settings = {"add_bos_token": True, "legacy": False, "bos_token": {"content": "<s>"}, "additional_special_tokens": ["<x>"],
                "added_tokens_decoder": {"1": {"content": "<s>", "lstrip": False, "special": True}}}  # fmt: skip
    info = json.dumps({"program": "sinkref", "model": "m", "shard": None, "variants": ["original"]}).encode()
    shard = [json.dumps({"program": "sinkref", "shard": {"index": i, "of": 2, "first": i, "end": i + 1}, "variants": ["original"]}).encode()
             for i in (0, 1)]  # fmt: skip
    line = [json.dumps({"task": "t", "id": str(i), "variant": "original", "ll": [-1.5, -2.0], "greedy": [0, 1], "acc": 1},
                       separators=(",", ":")).encode() + b"\n" for i in (0, 1)]  # fmt: skip
    items = (OUTPUTS / "eval/items.jsonl").read_bytes().splitlines(keepends=True)
    prefixes = (OUTPUTS / "eval/mmlu_prefix.jsonl").read_bytes()
    budget = {"tensors": {"blocks.*.hook_resid_post": {"local": 1e-6, "propagated": [[0, 1e-6], [5, 2e-6]]}, "logits": {"local": 0}}}
    arguments = (
        "--prompt\nthe the\n--bos=off\n--json", "--tokens\n1,5x3\n--hooks\nblocks.*\n--out=t\n--force", "a.safetensors\nb.safetensors\n--exact",
        "--word\nthe\n--word\ndust\n--seed\n100", "--files\na\nb\n--chunk=5\n--patch\n0:3\n--patch-site\nboth", "--help", "--\n-x",
    )  # fmt: skip
    return {
        "safetensors": [safetensors(small), safetensors(half)],
        "index": [json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}).encode(),
                  (OUTPUTS / "tiny_llama2/model.safetensors.index.json").read_bytes()],
        "gguf": [gguf(pieces()), gguf(pieces(scores=False)), gguf(byte_pairs()),
                 gguf(pieces() | {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": False}, dtype=8)],
        "config": list(configs()),
        "tokenizer_json": [BETWEEN.join(fast), fast[0]],
        "tokenizer_settings": [json.dumps(settings).encode(), BETWEEN.join([b'{"legacy": false}', b'{"bos_token": "<s>"}', b'{"<x>": 300}'])],
        "tokenizer_model": [(OUTPUTS / "tiny_sentencepiece/tokenizer.model").read_bytes()],
        "golden": [file.read_bytes() for file in OUTPUTS.glob("tiny_llama3/golden_*.safetensors")],
        "candidate": [trace("1,5", "blocks.0.hook_resid_post"), trace("7", "blocks.1.attn.*,logits"), trace("1,9,9", "ln_final.*")],
        "traces": [trace("1,5", "blocks.0.hook_resid_post,logits"), trace("1,5", "blocks.0.attn.*")],
        "budget": [json.dumps(budget).encode()],
        "run_json": [BETWEEN.join([info, b"".join(line)]), BETWEEN.join([shard[0], line[0], shard[1], line[1]])],
        "eval_items": [b"".join(items[:3]), gzip.compress(items[0]), *items[3:12], BETWEEN.join([items[0], prefixes])],
        "options": [b"t1,5x600,7", b"hblocks.*.hook_resid_post,logits", b"hblocks.?.attn.*", b"n0:3,17;1:5", b"f[[1,2],[3]]", b"f[5,6]",
                    *(b"a" + a.encode() for a in arguments)],
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    for reader, files in seeds().items():
        shutil.rmtree(folder / reader, ignore_errors=True)
        (folder / reader).mkdir(parents=True)
        words = set()
        for i, raw in enumerate(raw for raw in files if len(raw) <= LARGEST):
            (folder / reader / f"seed{i}").write_bytes(raw)
            words |= set(re.findall(rb'"([\w./|<>-]{2,40})"', raw)) | set(re.findall(rb"[a-z]+(?:\.[a-z_]+)+", raw))
        escaped = ("".join(chr(c) if c not in b'"\\' else f"\\x{c:02x}" for c in word) for word in sorted(words)[:400] if word.isascii())
        (folder / f"{reader}.dict").write_text("".join(f'"{word}"\n' for word in escaped))


main()
