#!/usr/bin/env python3
"""Write src/model/rope_recorded.inc: RoPE frequencies in which PyTorch's fp32 pow is not correctly
rounded, for the bases and head sizes of LLaMA and Mistral models.

    tools/reference/record_rope.py > src/model/rope_recorded.inc
    tools/reference/record_rope.py --check      # fails if this PyTorch's bits are not those of the file

Run it again with a new PyTorch to see whether the recorded bits still hold.
"""
import argparse
import os
import sys
from pathlib import Path

# PyTorch's bits depend on the processor: with AVX-512 one of these differs. Those of AVX2 are recorded.
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"

import torch
from mpmath import mp, mpf

mp.prec = 300
BASES = (10000.0, 100000.0, 500000.0, 1000000.0, 10000000.0, 100000000.0)
HEAD_DIMS = (8, 12, 16, 32, 48, 64, 80, 96, 128, 256)
FILE = Path(__file__).resolve().parents[2] / "src/model/rope_recorded.inc"


def rows() -> list[str]:
    lines = []
    for head_dim in HEAD_DIMS:
        exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).to(torch.float) / head_dim
        for theta in BASES:
            found = 1.0 / (theta**exponents)
            exact = [float(mpf(theta) ** mpf(e)) for e in exponents.tolist()]
            recipe = 1.0 / torch.tensor(exact, dtype=torch.float64).to(torch.float)
            for i in (found != recipe).nonzero().flatten().tolist():
                lines.append(f"    {{{theta:.1f}, {head_dim}, {i}, {found[i].item().hex()}f}},")
    return lines


def check() -> None:
    recorded = [line for line in FILE.read_text().splitlines() if line.startswith("    {")]
    here = rows()
    if here != recorded:
        sys.exit(f"{FILE}: PyTorch {torch.__version__} has other bits: "
                 f"{sorted(set(here) ^ set(recorded))[0].strip()}; write the file anew")
    print(f"{len(here)} recorded frequencies are those of PyTorch {torch.__version__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the file")
    if parser.parse_args().check:
        return check()
    print("// Written by tools/reference/record_rope.py with PyTorch", torch.__version__.split("+")[0] + ".")
    print("constexpr Recorded recorded[] = {")
    print("\n".join(rows()))
    print("};")


if __name__ == "__main__":
    main()
