#!/usr/bin/env python3
"""Runs every command of every document, and checks its links, paths, options and quoted output.

    tools/check/check_documents.py [--only README.md] [--static]

The documents are the project's .md files. A fenced block says what it is: commands are in `sh` blocks, what a
program printed in `text` blocks; an indented block is refused.
- A command runs as it stands, in a folder of its document's own in which the project's entries are links. It must
  exit with 0, or with N where "# exit N" follows it. MODEL and SMOLLM2 stand for models.
- NOT_RUN lists the commands that are not run, each with its reason. The files and options of these are checked, and
  those of every command in inline code.
- QUOTED lists the text blocks that quote a program, and the command that prints them. Their lines must come in the
  order of the output; "…" stands for anything; numbers may be off by 1e-4 of their value, since the last bits
  of another implementation depend on the processor.
- Links lead to files and headings that exist, paths in inline code to files, and the tables of tools/README.md name every
  script.
Exit: 0 all hold, 1 something does not, 2 could not run.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SINKREF = ROOT / "build" / "sinkref"
GGUF = "models/SmolLM2-135M-Instruct.Q4_1.gguf"
PLACEHOLDERS = {"MODEL": "reference_outputs/tiny_llama3", "SMOLLM2": GGUF}
TIMEOUT = 600  # seconds for one command

SET_UP = "installs and builds, which tools/test.sh has just done"
ENGINES = "needs build/venv-engines; test_verify_engines.py runs the same script"
LM_EVAL = "needs build/venv-eval and a network; test_eval.py --lm-eval runs the same script"
WEIGHTS = "needs weights of 7B from the Hugging Face hub, behind a licence"
LONG = "takes minutes; tools/test.sh has a check of its own for it"

# (document, how the command begins, why it is not run): each of them must match a command.
NOT_RUN = [
    ("README.md", "tools/demo.sh", SET_UP),
    ("README.md", "tools/test.sh", "runs this check"),
    ("README.md", "meson setup", SET_UP),
    ("*.md", "tools/setup.sh", SET_UP),
    ("tools/guide/capture_llamacpp.md", "build/venv-engines", ENGINES),
    ("tools/guide/capture_llamacpp.md", "build/sinkref verify", "verifies the trace of the command before it"),
    ("tools/guide/capture_transformerlens.md", "build/venv-engines", ENGINES),
    ("tools/guide/capture_transformerlens.md", "build/sinkref verify", "verifies the trace of the command before it"),
    ("tools/guide/paper_models.md", "pip install", WEIGHTS),
    ("tools/guide/paper_models.md", "hf download", WEIGHTS),
    ("tools/guide/paper_models.md", "build/sinkref", WEIGHTS),
    ("tools/guide/eval.md", "build/venv-eval/bin/python tools/eval/export_lm_eval.py", LM_EVAL),
    ("tools/guide/eval.md", "build/sinkref eval --model $MODEL", "runs under Slurm; --shard is run above it"),
    ("tools/guide/eval.md", "build/venv-eval/bin/python tools/eval/eval_ray.py", "needs a Ray cluster; test_eval.py --ray runs it"),
    ("tools/guide/eval.md", "pip install", LM_EVAL),
    ("tools/guide/eval.md", "lm_eval", LM_EVAL),
    ("tools/guide/eval.md", "tools/eval/benchmark_table.py", "needs the exported data sets"),
    ("reference_outputs/eval/smollm2/README.md", "tools/eval/benchmark_table.py", "takes two hours and needs the data sets"),
    ("tools/guide/patch.md", "build/sinkref report", "the report of tools/guide/report.md once more"),
    ("tools/guide/patch.md", "build/sinkref sink", "takes minutes; the report of tools/guide/report.md measures the same"),
    ("tools/guide/first_layer.md", "build/sinkref first-layer --model models", LONG),
    ("tools/bench/MEASURING.md", "tools/check/invariance.sh", LONG),
]

# What tools/demo.sh runs.
REPORT = f"build/sinkref report --model {GGUF} --golden reference_outputs/smollm2/golden_*.safetensors --out report"
# (document, the block's first line): the command that prints it, of this document or another.
QUOTED = {
    ("README.md", "Sink layers (strongest first; norms of the residual stream after the layer)"): REPORT,
    ("README.md", "Verdict    DIFFERS"):
        "build/sinkref verify --model reference_outputs/tiny_llama2 --candidate wrong.safetensors",
}


@dataclass
class Block:
    line: int
    kind: str
    lines: list[str] = field(default_factory=list)


@dataclass
class Command:
    line: int
    text: str  # without comment, with placeholders replaced
    exit_code: int


@dataclass
class Document:
    path: Path
    blocks: list[Block]
    prose: list[tuple[int, str]]

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


problems: list[str] = []


def problem(document: Document, line: int, what: str) -> None:
    problems.append(f"{document.name}:{line}: {what}")
    print("FAIL " + problems[-1], flush=True)


# --- reading ---------------------------------------------------------------------------------------------------------

def documents() -> Iterator[Document]:
    for folder, below, files in os.walk(ROOT):
        below[:] = sorted(name for name in below if not (
            name.startswith((".", "build")) or Path(folder) == ROOT and name in ("models", "report", "subprojects")))
        for name in sorted(files):
            if name.endswith(".md"):
                yield parse(Path(folder) / name)


def parse(path: Path) -> Document:
    document = Document(path, [], [])
    block = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"```(.*)", line)
        if block is not None:
            if fence:
                block = None
            else:
                block.lines.append(line)
        elif fence:
            block = Block(number, fence.group(1).strip())
            document.blocks.append(block)
            if block.kind not in ("sh", "text", "python", "json", "yaml"):
                problem(document, number, f"a block of kind {block.kind!r}; expected sh, text, python, json or yaml")
        elif line.startswith("    ") or line.startswith("\t"):
            problem(document, number, "an indented block; put it between ``` with its kind")
        else:
            document.prose.append((number, line))
    if block is not None:
        problem(document, block.line, "a block without an end")
    return document


def commands(block: Block) -> Iterator[Command]:
    number, text = block.line, ""
    for offset, line in enumerate(block.lines, 1):
        if not text:
            number = block.line + offset
        text += line
        if text.endswith("\\"):
            text = text[:-1]
            continue
        code, comment = split_comment(text)
        if code:
            expected = re.match(r"#\s*exit (\d+)", comment)
            for name, value in PLACEHOLDERS.items():
                code = re.sub(rf"(?<![\w$]){name}\b", value, code)
            yield Command(number, re.sub(r" {2,}", " ", code), int(expected.group(1)) if expected else 0)
        text = ""


def split_comment(line: str) -> tuple[str, str]:
    quote = ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i].strip(), line[i:]
    return line.strip(), ""


# --- files, options, links -------------------------------------------------------------------------------------------

@cache
def help_text(command: str) -> str:
    return subprocess.run([SINKREF, *([command] if command else []), "--help"], capture_output=True, text=True).stdout


@cache
def sinkref_commands() -> list[str]:
    return re.findall(r"^  ([a-z][a-z-]*) ", help_text(""), re.M)


def sinkref_options(command: str) -> set[str]:
    return set(re.findall(r"^ +(--[a-z0-9-]+)", help_text(command), re.M)) | {"--help"}


@cache
def tool_options(path: Path) -> set[str]:
    if path.suffix == ".py":
        return {value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
                and isinstance(value := node.value, str) and value.startswith("--")} | {"--help"}
    return set(re.findall(r"--[a-z][a-z-]*", path.read_text()))


@cache
def every_option() -> set[str]:
    tools = [p for p in (ROOT / "tools").rglob("*") if p.suffix in (".py", ".sh")]
    return set().union(*map(sinkref_options, sinkref_commands()), *map(tool_options, tools), {"--version"})


def plain_python(path: Path) -> list[str]:
    """What a tool that is run without an environment imports beyond the standard library and tools/."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    own = {p.stem for p in (ROOT / "tools").rglob("*.py")}
    return sorted(names - set(sys.stdlib_module_names) - own)


def words_of(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def options_among(words: list[str]) -> list[str]:
    if "--" in words:
        words = words[:words.index("--")]
    return [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]


def check_words(document: Document, line: int, text: str) -> None:
    """Files and options of one command, whether or not it is run."""
    words = words_of(re.split(r" && | \| ", text)[0])
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if not words:
        return
    for rest in re.split(r" && | \| ", text)[1:]:
        check_words(document, line, rest)
    direct = not re.fullmatch(r"build/venv[a-z-]*/bin/python|python3?", words[0])
    if not direct:
        words.pop(0)
    if not words:
        return
    program = words[0]
    if program in ("sinkref", "build/sinkref") or program in sinkref_commands():
        arguments = words if program in sinkref_commands() else words[1:]
        if not arguments or arguments[0] == "COMMAND":
            return
        if arguments[0].startswith("--"):
            known, called = {"--help", "--version"}, "sinkref"
        elif arguments[0] in sinkref_commands():
            known, called = sinkref_options(arguments[0]), f"sinkref {arguments[0]}"
        else:
            return problem(document, line, f"sinkref has no command {arguments[0]!r}")
    elif program.startswith("tools/"):
        tool, called = ROOT / program, program
        if not tool.is_file():
            return problem(document, line, f"{program}: no such file")
        if direct and not os.access(tool, os.X_OK):
            problem(document, line, f"{program}: not executable; say which Python runs it")
        if direct and tool.suffix == ".py" and (missing := plain_python(tool)):
            problem(document, line, f"{program}: needs {', '.join(missing)}; run it as build/venv/bin/python {program}")
        known = tool_options(tool)
    else:
        return
    for option in options_among(words[1:]):
        if option not in known:
            problem(document, line, f"{called} has no option {option}")
    for word in words[1:]:
        if re.match(r"(src|include|tests|tools|reference_outputs)/", word) and "=" not in word:
            check_path(document, line, word)


def check_path(document: Document, line: int, path: str) -> None:
    if not (list(ROOT.glob(path.rstrip("/"))) if "*" in path else (ROOT / path).exists()):
        problem(document, line, f"{path}: no such file")


def check_prose(document: Document) -> None:
    text = "\n".join(line for _, line in document.prose)
    numbers = [number for number, line in document.prose for _ in range(len(line) + 1)]
    for match in re.finditer(r"`([^`]+)`", text):
        span, line = re.sub(r"\s+", " ", match.group(1)), numbers[match.start()]
        first = span.split(" ")[0]
        if re.fullmatch(r"(src|include|tests|tools|reference_outputs)(/[\w.*-]+)+/?", span):
            check_path(document, line, span)
        elif re.match(r"(sinkref|build/sinkref|build/venv[\w/-]+python|tools/\S+) ", span):
            check_words(document, line, re.sub(r"(^| )…( |$)", r"\1", span).split(" > ")[0])
        elif first in sinkref_commands() and "--" in span:
            check_words(document, line, span)
        elif re.fullmatch(r"--[a-z][a-z-]*", first) and first not in every_option():
            problem(document, line, f"no command and no tool has the option {first}")
    for match in re.finditer(r"\]\(([^)\s]+)\)", text):
        check_link(document, numbers[match.start()], match.group(1))


def check_link(document: Document, line: int, target: str) -> None:
    if re.match(r"[a-z]+:", target):
        return  # the network is not asked
    path, _, anchor = target.partition("#")
    file = (document.path.parent / path).resolve() if path else document.path
    if not file.exists():
        problem(document, line, f"link to {target}: no such file")
    elif anchor and anchor not in anchors(file):
        problem(document, line, f"link to {target}: no such heading in {file.name}")


@cache
def anchors(path: Path) -> set[str]:
    """GitHub's names of the headings."""
    found = set()
    for _, line in parse(path).prose:
        if heading := re.match(r"#+ (.*)", line):
            found.add(re.sub(r"[^\w\- ]", "", heading.group(1).lower()).strip().replace(" ", "-"))
    return found


def check_table_of_tools(document: Document) -> None:
    """Each section's tables name the files of its folder, all of them."""
    named: dict[str, set[str]] = {}
    folder = ""
    for _, line in document.prose:
        if heading := re.match(r"## (\w+)", line):
            folder = "" if heading.group(1) == "Here" else heading.group(1)
        elif row := re.match(r"\| ([`\[].*?) \|", line):
            named.setdefault(folder, set()).update(
                Path(code or link).name for code, link in re.findall(r"`([^`]+)`|\]\(([^)]+)\)", row.group(1)))
    tools = ROOT / "tools"
    for folder in ["", *sorted(p.name for p in tools.iterdir() if p.is_dir() and p.name != "__pycache__")]:
        there = {p.name for p in (tools / folder).iterdir() if p.name != "__pycache__" and not (
            folder == "" and p.is_dir()) and p.name not in ("README.md", "MEASURING.md")}
        listed = named.get(folder, set()) - {"MEASURING.md"}
        for name in sorted(there - listed):
            problem(document, 1, f"tools/{folder}{'/' if folder else ''}{name} is in no table")
        for name in sorted(listed - there):
            problem(document, 1, f"the table of tools/{folder} names {name}, which is not there")


# --- running ---------------------------------------------------------------------------------------------------------

class Runner:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.outputs: dict[str, str] = {}
        self.used: set[int] = set()
        self.count = 0

    def folder(self, name: str) -> Path:
        """A folder in which the project's entries are links."""
        place = self.scratch / name.replace("/", "_")
        if not place.exists():
            place.mkdir()
            for entry in ROOT.iterdir():
                if entry.name not in ("report", ".git"):
                    (place / entry.name).symlink_to(entry)
        return place

    def reason_not_to(self, document: Document, command: Command) -> str | None:
        for i, (pattern, beginning, reason) in enumerate(NOT_RUN):
            if fnmatch.fnmatch(document.name, pattern) and command.text.startswith(beginning):
                self.used.add(i)
                return reason
        return None

    def run(self, document: Document, command: Command) -> None:
        start = time.monotonic()
        try:
            done = subprocess.run(["bash", "-c", command.text], cwd=self.folder(document.name), capture_output=True,
                                  encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return problem(document, command.line, f"took more than {TIMEOUT} s: {command.text}")
        self.count += 1
        self.outputs[command.text] = done.stdout
        if done.returncode == command.exit_code:
            seconds = f"{time.monotonic() - start:5.1f} s"
            print(f"ok   {seconds}  {document.name}:{command.line}: {command.text}"[:150], flush=True)
        else:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            problem(document, command.line, f"exit {done.returncode}, expected {command.exit_code}: {command.text}: "
                    f"{last[0] if last else 'no message'}")


NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def same_line(quoted: str, printed: str) -> bool:
    """Equal but for blanks at the ends, "…", and numbers that differ by less than 1e-4 of their value."""
    shape = r"[-+\d.e]+".join(re.escape(part) for part in NUMBER.split(quoted.strip()))
    shape = shape.replace(re.escape("…"), ".*")
    if not re.fullmatch(shape, printed.strip()):
        return False
    theirs = [float(n) for n in NUMBER.findall(printed)]
    return all(abs(float(n) - m) <= 1e-4 * abs(m) for n, m in zip(NUMBER.findall(quoted), theirs))


def check_quotation(document: Document, block: Block, output: str) -> None:
    printed = iter(output.splitlines())
    for offset, line in enumerate(block.lines, 1):
        if line.strip() and not any(same_line(line, other) for other in printed):
            return problem(document, block.line + offset, f"is not printed (any more, or here): {line.strip()}")




def check_map(document: Document) -> None:
    """The map of src/ has every room, and each depends on those above it only."""
    src = ROOT / "src"
    rooms = [row.group(1) for _, line in document.prose if (row := re.match(r"\| `src/(\w+)` \|", line))]
    there = {folder.name for folder in src.iterdir() if folder.is_dir()} - {"pch"}
    for room in sorted(there ^ set(rooms)):
        problem(document, 1, f"src/{room} is " + ("on no line of the map" if room in there else "not there"))
    for number, room in enumerate(rooms):
        for path in sorted(src.glob(f"{room}/**/*.*")):
            used = set(re.findall(r'^#include "(\w+)/', path.read_text(errors="replace"), re.M)) & there
            for below in sorted(used - set(rooms[:number + 1])):
                problem(document, 1, f"{path.relative_to(ROOT)} needs src/{below}, which stands below src/{room}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only documents whose path contains this")
    parser.add_argument("--static", action="store_true", help="run nothing: links, paths and options alone")
    arguments = parser.parse_args()
    if not SINKREF.is_file():
        print("check_documents.py: build/sinkref is missing; tools/setup.sh builds it", file=sys.stderr)
        return 2
    chosen = [document for document in documents() if arguments.only in document.name]
    if not chosen:
        print(f"check_documents.py: no document's path contains {arguments.only}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        runner = Runner(Path(scratch))
        not_run = 0
        for document in chosen:
            check_prose(document)
            if document.name == "tools/README.md":
                check_table_of_tools(document)
            if document.name == "src/README.md":
                check_map(document)
            for command in (c for block in document.blocks if block.kind == "sh" for c in commands(block)):
                check_words(document, command.line, command.text)
                if reason := runner.reason_not_to(document, command):
                    not_run += 1
                    print(f"not run      {document.name}:{command.line}: {command.text[:60]} ({reason})", flush=True)
                elif not arguments.static:
                    runner.run(document, command)
        if not arguments.only:
            problems.extend(f"NOT_RUN: {NOT_RUN[i]} matches no command" for i in range(len(NOT_RUN)) if i not in runner.used)
        if not arguments.static:
            quote(chosen, runner)
    print("\n".join(problems))
    print(f"{len(chosen)} documents, {runner.count} commands run, {not_run} not run, {len(problems)} problems")
    return 1 if problems else 0


def quote(chosen: list[Document], runner: Runner) -> None:
    for (name, first), command in QUOTED.items():
        for document in (d for d in chosen if d.name == name):
            blocks = [b for b in document.blocks if b.kind == "text" and b.lines and b.lines[0] == first]
            if len(blocks) != 1:
                problem(document, 1, f"{len(blocks)} text blocks begin with {first!r}, which QUOTED names")
            else:
                if command not in runner.outputs:  # of a document that was not chosen
                    runner.run(document, Command(blocks[0].line, command, 0))
                check_quotation(document, blocks[0], runner.outputs.get(command, ""))


if __name__ == "__main__":
    sys.exit(main())
