"""A pytest helper: the test fails with the one line a reader needs.

    from sinkref.capture.pytest_sinkref import assert_agrees

    def test_my_port_computes_llama(tmp_path):
        my_engine.write_trace(tmp_path / "theirs.safetensors", tokens)
        assert_agrees("models/llama", tmp_path / "theirs.safetensors")
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def assert_agrees(model: str | Path, trace: str | Path, *arguments: str) -> dict:
    """Runs `sinkref verify` ($SINKREF, or the installed package's, or sinkref of the PATH); gives its report, or fails
    the test."""
    __tracebackhide__ = True
    installed = [sys.executable, "-m", "sinkref"] if importlib.util.find_spec("sinkref") else ["sinkref"]
    program = [os.environ["SINKREF"]] if "SINKREF" in os.environ else installed
    command = [*program, "verify", "--model", str(model), "--candidate", str(trace)]
    done = subprocess.run([*command, "--json", *arguments], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        pytest.fail(done.stderr.strip() or f"sinkref verify: exit {done.returncode}", pytrace=False)
    report = json.loads(done.stdout)
    if done.returncode == 1:
        pytest.fail(one_line(report), pytrace=False)
    return report


def one_line(report: dict) -> str:
    first, problems = report["first"], report["problems"]
    text = f"{report['candidate']} differs from {report['reference']}"
    if first and first["tensor"] != "tokens":
        text += (f": {first['tensor']}, token {first['token']}, element {first['index']}: "
                 f"theirs {first['theirs']}, expected {first.get('expected_from_their_input', first['ours'])}")
    elif problems:
        text += f": {problems[0]}"
    for named in report["diagnosis"][:1]:
        text += f"; {named['fault']} ({named['certainty']}): {named['detail']}"
    if report.get("next"):
        text += f"; next: {report['next']}"
    return text
