#!/usr/bin/env python3
"""Draws report.json of `sinkref report` as PNG figures beside it.

  tools/figures.py report

  norm_by_layer.png    residual and MLP norms per layer, first token against ordinary text
  norm_by_repeats.png  norm at the sink layers against the number of repeats, original and patched
  errors.png           error against true float64 per golden tensor, in units of HF fp32's own
"""
import argparse
import json
import math
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def save(figure: plt.Figure, path: Path) -> None:
    """Complete or not at all."""
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=110, metadata={"Software": None})
    os.replace(partial, path)
    plt.close(figure)
    print(path)


def norm_by_layer(report: dict, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, kind, title in ((axes[0], "resid", "residual stream after the layer"),
                              (axes[1], "mlp", "output of the MLP")):
        layers = range(len(report["layers"][f"{kind}_first"]))
        axis.semilogy(layers, report["layers"][f"{kind}_first"], "k-o", ms=3, label="first token")
        axis.semilogy(layers, report["layers"][f"{kind}_typical"], "-s", color="0.55", ms=3,
                      label="ordinary text (mean)")
        for sink in report["sink_layers"]:
            axis.axvline(sink["layer"], color="tab:red", lw=0.8, ls=":")
        axis.set(title=title, xlabel="layer", ylabel="Euclidean norm")
    if report["paper_rule_threshold"]:
        axes[1].axhline(report["paper_rule_threshold"], color="tab:blue", ls="--",
                        label="mean + 2 std over layers (the paper's rule)")
    for axis in axes:
        axis.legend(fontsize=8)
    figure.suptitle(f"{report['model']}: sink layers (dotted red)")
    save(figure, path)


def norm_by_repeats(report: dict, path: Path) -> None:
    sinks = sorted(report["sink_layers"], key=lambda sink: sink["layer"])
    figure, axes = plt.subplots(1, len(sinks), figsize=(5.5 * len(sinks), 4.2), squeeze=False,
                                layout="constrained")
    for axis, sink in zip(axes[0], sinks):
        curves = [r for r in report["repeats"] if r["layer"] == sink["layer"]]
        for number, curve in enumerate(curves):
            counts = range(1, len(curve["norms"]) + 1)
            color = f"C{number % 10}"
            axis.loglog(counts, curve["norms"], color=color, ls="-", lw=1.4, label=curve["word"])
            axis.loglog(counts, curve["norms_patched"], color=color, ls=":", lw=1.2)
        for name, style in (("norm_first", "-"), ("norm_typical", "--")):
            axis.axhline(sink[name], color="0.4", lw=1, ls=style)
            axis.annotate("lone first token" if name == "norm_first" else "ordinary text",
                          (1, sink[name]), fontsize=8, va="bottom", color="0.3")
        axis.axhline(math.sqrt(sink["norm_first"] * sink["norm_typical"]), color="0.7", lw=0.8)
        axis.set(title=f"layer {sink['layer']}, neurons {', '.join(map(str, sink['neurons']))}",
                 xlabel="repeats of one word", ylabel="residual norm at the last repeat")
    axes[0][0].legend(fontsize=8, title="solid: original\ndotted: patched", title_fontsize=8)
    figure.suptitle(f"{report['model']}: a run of one word comes to look like a first token")
    save(figure, path)


def errors(report: dict, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(10, 4), layout="constrained")
    for number, golden in enumerate(report["goldens"]):
        ratios = [t["rms"] / t["rms_hf"] for t in golden["tensors"] if t["rms_hf"] > 0]
        axis.plot(ratios, STYLES[number % len(STYLES)] if len(ratios) > 1 else "o", lw=1,
                  label=golden["file"])
    axis.axhline(1, color="k", lw=0.8)
    axis.axhline(1.2, color="tab:red", lw=0.8, ls="--")
    axis.set(title="rms error against true float64, in units of the largest of several HF fp32 runs",
             xlabel="tensor, in causal order", ylabel="ratio (below 1: nearer to the truth)")
    axis.set_ylim(0, None)
    axis.legend(fontsize=8)
    save(figure, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the --out folder of sinkref report")
    folder = parser.parse_args().folder
    try:
        report = json.loads((folder / "report.json").read_text())
        norm_by_layer(report, folder / "norm_by_layer.png")
        if report["sink_layers"] and report["repeats"]:
            norm_by_repeats(report, folder / "norm_by_repeats.png")
        else:
            print("no sink layers: no norm_by_repeats.png")
        if report["goldens"]:
            errors(report, folder / "errors.png")
    except (OSError, ValueError, KeyError) as problem:
        print(f"figures.py: {folder / 'report.json'}: {type(problem).__name__}: {problem}",
              file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
