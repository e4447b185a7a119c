#!/usr/bin/env python3
"""Writes reference_outputs/dequantize/TYPE.bin: random blocks and their fp32 values as the `gguf`
Python package dequantises them.

    pip install gguf==0.19.0 && tools/reference/make_dequantize_fixture.py

A file is: u32 number of blocks, the blocks' bytes, the fp32 values.  All bytes are random, except
that scales which are infinite or NaN are replaced: the first blocks have the scales of EDGES
(zeros, denormals, the largest), so every bit pattern of the quantised values meets every kind of
scale, and the comparison can be bit for bit.
"""
import argparse
import pathlib
import struct

import gguf
import numpy as np

BLOCKS = {"Q8_0": 144, "Q4_0": 144, "Q4_1": 144, "Q5_0": 144, "Q5_1": 144, "Q4_K": 40, "Q5_K": 40,
          "Q6_K": 40}
# Where the fp16 scales of a block lie.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208]}
EDGES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00]


def random_blocks(name, rng):
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (BLOCKS[name], size), dtype=np.uint8)
    for k, offset in enumerate(SCALES[name]):
        scale = blocks[:, offset:offset + 2].copy().view("<u2")[:, 0]
        scale = np.where(scale & 0x7C00 == 0x7C00, scale & 0xBFFF, scale).astype("<u2")
        # A second scale runs through the edges in another order, so the two meet in new pairs.
        for i in range(len(EDGES)):
            scale[i] = EDGES[(i + 3 * k) % len(EDGES)]
        blocks[:, offset:offset + 2] = scale[:, None].view(np.uint8)
    return blocks


def main():
    folder = pathlib.Path(__file__).resolve().parents[2] / "reference_outputs" / "dequantize"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(BLOCKS):
        blocks = random_blocks(name, np.random.default_rng(seed))
        values = gguf.dequantize(blocks, gguf.GGMLQuantizationType[name])
        assert np.isfinite(values).all()
        content = struct.pack("<I", len(blocks)) + blocks.tobytes() + values.astype("<f4").tobytes()
        (folder / f"{name}.bin").write_bytes(content)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
