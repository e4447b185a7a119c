#!/usr/bin/env python3
"""Turns the SVG figures of `sinkref report` into PNG files beside them, by headless Chromium.

  tools/figures.py report [--scale 2] [--only norm_by_repeats]
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    print("figures.py: no chromium; tools/setup.sh --python installs it", file=sys.stderr)
    sys.exit(2)


def draw(svg: Path, scale: float) -> Path:
    """Complete or not at all."""
    width, height = re.search(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', svg.read_text()).groups()
    partial, png = svg.with_suffix(".partial.png"), svg.with_suffix(".png")
    subprocess.run([chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                    f"--force-device-scale-factor={scale}", f"--window-size={width},{height}",
                    f"--screenshot={partial.resolve()}", svg.resolve().as_uri()],
                   capture_output=True, timeout=120, check=True)
    os.replace(partial, png)
    return png


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the --out folder of sinkref report")
    parser.add_argument("--scale", type=float, default=1.5, help="pixels per unit of the SVG")
    parser.add_argument("--only", help="one figure instead of all")
    arguments = parser.parse_args()
    figures = sorted((arguments.folder / "figures").glob(f"{arguments.only or '*'}.svg"))
    if not figures:
        print(f"figures.py: {arguments.folder / 'figures'}: no such figure; sinkref report writes them",
              file=sys.stderr)
        return 2
    try:
        for svg in figures:
            print(draw(svg, arguments.scale))
    except (OSError, AttributeError, subprocess.SubprocessError) as problem:
        print(f"figures.py: {svg}: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
