#!/usr/bin/env python3
"""Draws what `sinkref bench --json` measured: each weight matrix's speed against the rows of
activations, OpenBLAS's beside it, under the two limits of the machine.

    build/sinkref bench --shapes llama-2-7b --json > bench.json
    build/venv/bin/python tools/bench/bench_chart.py bench.json bench.png
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def panels(measured: list[dict]) -> dict[tuple, list[dict]]:
    grouped: dict[tuple, list[dict]] = {}
    for entry in measured:
        grouped.setdefault((entry["model"], entry["matrix"], entry["outputs"], entry["inputs"]), []).append(entry)
    return grouped


def draw(axis: plt.Axes, title: tuple, entries: list[dict]) -> None:
    for style, dtype in zip(("-", "--", "-.", ":"), dict.fromkeys(e["dtype"] for e in entries)):
        own = [e for e in entries if e["dtype"] == dtype]
        rows = [e["rows"] for e in own]
        axis.loglog(rows, [e["gflop_per_s"] for e in own], "o" + style, color="k", ms=4, label=f"sinkref {dtype}")
        if dtype == own[0]["dtype"] and style == "-":
            axis.loglog(rows, [e["openblas_gflop_per_s"] for e in own], "s-", color="0.6", ms=4, label="OpenBLAS F32")
            # What the bandwidth allows at these rows, and the FMA peak: the roof over both.
            roof = [min(e["gflop_per_s"] / e["read_bandwidth_share"], e["gflop_per_s"] / e["fma_peak_share"]) for e in own]
            axis.loglog(rows, roof, color="tab:red", lw=1, label="limit of the machine")
    model, matrix, outputs, inputs = title
    axis.set_title(f"{model} {matrix} ({outputs} x {inputs})".strip(), fontsize=8)
    axis.set_xticks(rows, [str(r) for r in rows])
    axis.minorticks_off()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="output of sinkref bench --json")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    arguments = parser.parse_args()
    try:
        measured = json.loads(arguments.measured.read_text())["matmul"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"bench_chart.py: {arguments.measured}: expected the output of sinkref bench --json with matrices ({error})",
              file=sys.stderr)
        return 2
    grouped = panels(measured)
    columns = min(4, len(grouped))
    lines = -(-len(grouped) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.2 * columns, 2.8 * lines), layout="constrained", squeeze=False)
    for axis in axes.flat[len(grouped):]:
        axis.remove()
    for axis, (title, entries) in zip(axes.flat, grouped.items()):
        draw(axis, title, entries)
    axes[0][0].legend(fontsize=7)
    figure.supxlabel("rows of activations")
    figure.supylabel("GFLOP/s")
    partial = arguments.picture.with_suffix(f".partial-{os.getpid()}.png")
    figure.savefig(partial, dpi=110, metadata={"Software": None})
    os.replace(partial, arguments.picture)
    print(arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
