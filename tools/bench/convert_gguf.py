#!/usr/bin/env python3
"""Rewrites a GGUF model with all its matrices in one plain type: the same names, metadata and order
of rows, the values dequantised as the `gguf` package does.

    tools/bench/convert_gguf.py models/SmolLM2-135M-Instruct.Q4_1.gguf build/smollm2-f32.gguf --type f32

With f32 every number is kept; with f16 each matrix is rounded once (vectors stay fp32), so compare
an f16 file with an f16 file.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import gguf
import numpy as np

FILE_TYPE = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}
SET_BY_WRITER = {"general.architecture", "general.file_type", "general.quantization_version"}


def copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in SET_BY_WRITER:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)


def convert(source: Path, target: Path, type_name: str) -> None:
    reader = gguf.GGUFReader(source)
    partial = target.with_name(target.name + f".partial-{os.getpid()}")
    writer = gguf.GGUFWriter(partial, reader.fields["general.architecture"].contents())
    try:
        writer.add_file_type(FILE_TYPE[type_name])
        copy_metadata(reader, writer)
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            plain = np.float16 if type_name == "f16" and len(tensor.shape) > 1 else np.float32
            # GGUF lists extents innermost first, numpy outermost first.
            shape = [int(n) for n in reversed(tensor.shape)]
            writer.add_tensor(tensor.name, np.ascontiguousarray(values.reshape(shape), dtype=plain))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a .gguf file")
    parser.add_argument("target", type=Path, help="the .gguf file to write; replaced if it is there")
    parser.add_argument("--type", choices=FILE_TYPE, default="f32")
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        print(f"convert_gguf.py: {arguments.source}: no such file", file=sys.stderr)
        return 2
    if arguments.target.exists() and arguments.target.samefile(arguments.source):
        print(f"convert_gguf.py: {arguments.target}: is the source itself; choose another name", file=sys.stderr)
        return 2
    convert(arguments.source, arguments.target, arguments.type)
    return 0


if __name__ == "__main__":
    sys.exit(main())
