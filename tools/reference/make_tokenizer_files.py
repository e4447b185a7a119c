#!/usr/bin/env python3
"""Writes a model's tokenizer files from another form of them. Standard library only.

make_tokenizer_files.py llama3 TIKTOKEN_FILE FOLDER   tokenizer.json from Meta's tokenizer.model
make_tokenizer_files.py smollm2 GGUF_FILE FOLDER      tokenizer.json from a GGUF vocabulary
make_tokenizer_files.py llama2 GGUF_FILE FOLDER       tokenizer.model from a GGUF vocabulary
"""

import argparse
import base64
import json
import pathlib
import struct
import sys

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def llama3_special_tokens():
    """The 256 special tokens of Llama 3, in the order of their ids."""
    reserved = (f"<|reserved_special_token_{i}|>" for i in range(256))
    named = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        *(next(reserved) for _ in range(4)),
        "<|start_header_id|>",
        "<|end_header_id|>",
        next(reserved),
        "<|eot_id|>",
    ]
    return named + [next(reserved) for _ in range(256 - len(named))]


def alphabet():
    """GPT-2's characters for the 256 bytes."""
    printable = [b for b in range(256) if 0x20 < b < 0x7F or (b > 0xA0 and b != 0xAD)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def read_tiktoken(file):
    """{token bytes: rank}"""
    lines = pathlib.Path(file).read_bytes().split(b"\n")
    return {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in lines if line)
    }


def merges_from_ranks(ranks):
    """tiktoken joins the neighbours of the lowest joint rank: every cut of a token is a merge."""
    merges = []
    for token, rank in ranks.items():
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        merges += sorted(
            (rank, ranks[a], ranks[b], a, b) for a, b in cuts if a in ranks and b in ranks
        )
    return [(a, b) for *_, a, b in sorted(merges, key=lambda merge: merge[:3])]


def byte_level():
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def added(token_id, content):
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def llama3(source, folder):
    ranks = read_tiktoken(source)
    chars = alphabet()
    text = {token: "".join(chars[b] for b in token) for token in ranks}
    special = {name: len(ranks) + i for i, name in enumerate(llama3_special_tokens())}
    bos = "<|begin_of_text|>"
    split = {
        "type": "Split",
        "pattern": {"Regex": LLAMA3_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": bos, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {bos: {"id": bos, "ids": [special[bos]], "tokens": [bos]}},
    }
    write(
        folder,
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added(i, name) for name, i in special.items()],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [split, {**byte_level(), "use_regex": False}],
            },
            "post_processor": template,
            "decoder": byte_level(),
            "model": {
                "type": "BPE",
                "ignore_merges": True,
                "vocab": {text[token]: rank for token, rank in ranks.items()},
                "merges": [f"{text[a]} {text[b]}" for a, b in merges_from_ranks(ranks)],
            },
        },
        {"bos_token": bos, "eos_token": "<|end_of_text|>"},
    )


class GgufReader:
    """The key-value pairs of a GGUF file."""

    NUMBERS = {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }

    def __init__(self, file):
        self.file = file
        magic, _version, _tensors, count = struct.unpack("<4sIQQ", file.read(24))
        assert magic == b"GGUF", "not a GGUF file"
        self.values = dict((self.string(), self.value(self.number("I"))) for _ in range(count))

    def number(self, code):
        return struct.unpack("<" + code, self.file.read(struct.calcsize("<" + code)))[0]

    def string(self):
        return self.file.read(self.number("Q")).decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, count = self.number("I"), self.number("Q")
            return [self.value(kind) for _ in range(count)]
        return self.number(self.NUMBERS[kind])


def gguf_values(source):
    with open(source, "rb") as file:
        return GgufReader(file).values


def varint(value):
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, value):
    """One field of a protobuf message: bytes, a float or an integer."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def llama2(source, folder):
    values = gguf_values(source)
    columns = (values["tokenizer.ggml." + key] for key in ("tokens", "scores", "token_type"))
    pieces = b"".join(
        field(1, field(1, text.encode()) + field(2, score) + field(3, kind))
        for text, score, kind in zip(*columns)
    )
    bpe_with_byte_fallback = field(3, 2) + field(35, 1)
    identity = field(1, b"identity") + field(3, 1) + field(4, 0)
    model = pieces + field(2, bpe_with_byte_fallback) + field(3, identity)
    replace_file(pathlib.Path(folder) / "tokenizer.model", model)


def smollm2(source, folder):
    values = gguf_values(source)
    tokens = values["tokenizer.ggml.tokens"]
    control = [i for i, kind in enumerate(values["tokenizer.ggml.token_type"]) if kind == 3]
    digits = {"type": "Digits", "individual_digits": True}
    write(
        folder,
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added(i, tokens[i]) for i in control],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level()]},
            "post_processor": None,
            "decoder": byte_level(),
            "model": {
                "type": "BPE",
                "vocab": {token: i for i, token in enumerate(tokens)},
                "merges": [merge.split(" ") for merge in values["tokenizer.ggml.merges"]],
            },
        },
        {
            "bos_token": tokens[values["tokenizer.ggml.bos_token_id"]],
            "add_bos_token": False,
            "eos_token": tokens[values["tokenizer.ggml.eos_token_id"]],
        },
    )


def write(folder, tokenizer, config):
    # The second file last: get_tokenizers.sh takes it as the sign that both are there.
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        replace_file(pathlib.Path(folder) / name, json.dumps(value, ensure_ascii=False).encode())


def replace_file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


if __name__ == "__main__":
    writers = {"llama3": llama3, "smollm2": smollm2, "llama2": llama2}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=writers)
    parser.add_argument("source", help="Meta's tokenizer.model or a GGUF file")
    parser.add_argument("folder", help="where the files go")
    arguments = parser.parse_args()
    writers[arguments.model](arguments.source, arguments.folder)
