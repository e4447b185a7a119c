#!/usr/bin/env python3
"""A wheel of tools/build_wheel.sh in a fresh virtual environment, without a compiler: what it holds, how long it takes from
`pip install` to the first activations, and the tests of the package in it.

    tools/build_wheel.sh build/wheel
    python3 tools/check/test_wheel.py build/wheel/sinkref-*.whl --model models/SmolLM2-135M-Instruct.Q4_1.gguf

--python names another interpreter. pip fetches numpy.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 15_000_000
MOST_INSTALL, MOST_IMPORT = 30.0, 0.2  # seconds
CAPTURE = {f"capture/{path.name}": path for path in (ROOT / "tools" / "capture").glob("*.py")}
CAPTURE |= {f"capture/{name}": ROOT / "tools" / "reference" / name for name in ("hf_runs.py", "weights_hash.py")}
FIRST_CACHE = "import sys, sinkref; print(sinkref.Model(*sys.argv[1:]).run_with_cache('Hello world')[0].shape)"
IMPORT = "import time; t = time.process_time(); import sinkref; print(time.process_time() - t)"


def fail(message: str) -> None:
    sys.exit(f"test_wheel.py: {message}")


def check_contents(wheel: Path) -> None:
    if wheel.stat().st_size > MOST_BYTES:
        fail(f"{wheel}: {wheel.stat().st_size} bytes, expected at most {MOST_BYTES}")
    names = zipfile.ZipFile(wheel).namelist()
    bundled = [name for name in names if name.startswith("sinkref.libs/")]
    licences = [name for name in names if "/licenses/" in name]
    for wanted in ("sinkref/bin/sinkref", "sinkref/share/sinkref/tiny_llama3/model.safetensors", "sinkref/py.typed"):
        if wanted not in names:
            fail(f"{wheel}: has no {wanted}")
    for linked in ("LICENSE", "libpcre2-8-0.copyright", "libssl3.copyright", "zlib1g.copyright", "nlohmann-json3-dev.copyright"):
        if not any(name.endswith(f"/licenses/{linked}") for name in licences):
            fail(f"{wheel}: has no {linked} among its licences")
    if bundled and len(licences) <= 5:
        fail(f"{wheel}: bundles {len(bundled)} libraries without a licence of their own")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB; bundled: {', '.join(Path(n).name for n in bundled)}; "
          f"licences: {', '.join(Path(n).name for n in licences)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--model", type=Path, help="whose first activations are timed; else the tiny model")
    parser.add_argument("--python", default=sys.executable, help="the interpreter")
    parser.add_argument("--no-tests", action="store_true", help="leave out tools/check/test_python.py")
    a = parser.parse_args()
    check_contents(a.wheel)
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder, "venv")
        subprocess.run([a.python, "-m", "venv", venv], check=True)
        python = venv / "bin" / "python"
        # Of the environment nothing but what pip needs: no compiler, no other sinkref.
        own = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.endswith("_proxy") or k in ("HOME", "LANG")}
        own["PATH"] = str(venv / "bin")

        def run(*command: str | Path) -> str:
            done = subprocess.run([*map(str, command)], env=own, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                fail(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
            return done.stdout

        start = time.perf_counter()
        run(python, "-m", "pip", "install", "--quiet", a.wheel.resolve())
        installed = time.perf_counter()
        shape = run(python, "-c", FIRST_CACHE, *([a.model.resolve()] if a.model else [])).strip()
        seconds = time.perf_counter() - start
        imports = min(float(run(python, "-c", IMPORT)) for _ in range(5))
        version = run(python, "-c", "import sinkref; print(sinkref.__version__)").strip()
        for program in ((venv / "bin" / "sinkref",), (python, "-m", "sinkref")):
            if version not in run(*program, "--version"):
                fail(f"{program}: expected version {version}")
        package = Path(run(python, "-c", "import sinkref; print(sinkref.__path__[0])").strip())
        for name, source in CAPTURE.items():
            if not (package / name).exists() or not filecmp.cmp(package / name, source, shallow=False):
                fail(f"{name}: expected the text of {source.relative_to(ROOT)} in the wheel")
        about = run(python, "-c", "import numpy, platform; print(platform.python_version(), numpy.__version__)").split()
        print(f"Python {about[0]}, numpy {about[1]}: installed in {installed - start:.1f} s, first logits {shape} after "
              f"{seconds:.1f} s; import {imports:.3f} s")
        if seconds > MOST_INSTALL or imports > MOST_IMPORT:
            fail(f"expected at most {MOST_INSTALL} s to the first logits and {MOST_IMPORT} s to import")
        if not a.no_tests:
            own |= {"SINKREF_PROGRAM": str(package / "bin" / "sinkref")}
            if a.model:
                own["SINKREF_TEST_MODEL"] = str(a.model.resolve())
            return subprocess.run([str(python), str(ROOT / "tools" / "check" / "test_python.py")], env=own,
                                  cwd=folder).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
