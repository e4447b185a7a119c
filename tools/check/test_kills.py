#!/usr/bin/env python3
"""trace, report and eval, also in shards, ended by SIGKILL and SIGTERM at random moments.

    test_kills.py [--full] [--seed N]      12 kills of each command, or 50; the program is build/sinkref, or SINKREF

After every kill each file under a final name is whole. The same command again ends with the bytes of a run that nobody
disturbed, whatever the kills left behind, and leaves nothing else.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SINKREF = os.environ.get("SINKREF", str(ROOT / "build" / "sinkref"))
MODEL = ROOT / "reference_outputs" / "tiny_llama3"
ITEMS = ROOT / "reference_outputs" / "eval" / "items.jsonl"
SHARDS = 3


def unfinished(name):
    """report keeps what it has measured in a folder of that name."""
    return ".partial" in name or "unfinished" in pathlib.PurePath(name).parts


def contents(folder):
    """Every file by its name within the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Command:
    """One command line, run in a folder where it writes."""

    def __init__(self, name, *arguments, last, stays=()):
        self.name, self.arguments = name, [SINKREF, *map(str, arguments)]
        self.last = last  # the file that is put in its place last: with it all is there
        self.stays = stays  # unfinished files that a signal leaves on purpose: the next run goes on with them

    def start(self, folder):
        return subprocess.Popen(self.arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, folder):
        process = self.start(folder)
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, f"{self.name}: exit {process.returncode}: {error.strip()[-300:]}"

    def kill(self, folder, rng, seconds, wanted):
        """At a random moment, one time in three as soon as something has its final name."""
        before = set(contents(folder))
        number = rng.choice([signal.SIGKILL, signal.SIGTERM])
        at_the_end = rng.random() < 1 / 3
        process = self.start(folder)
        end = time.monotonic() + rng.uniform(0, seconds)
        while process.poll() is None:
            names = {str(path.relative_to(folder)) for path in folder.rglob("*")} if at_the_end else set()
            if any(name in wanted and name not in before for name in names):
                time.sleep(rng.uniform(0, 0.02))
                break
            if not at_the_end and time.monotonic() >= end:
                break
            time.sleep(0.0005)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (0, -number), f"{self.name}: exit {process.returncode}: {error.strip()[-300:]}"
        for name, there in contents(folder).items():
            if not unfinished(name):
                assert there == wanted.get(name), f"{self.name}: {name} is half-written after {number.name}"
            elif number == signal.SIGTERM and name not in before and process.returncode != 0:
                assert name.startswith(tuple(self.stays)), f"{self.name}: SIGTERM left {name}"


def disturbed(commands, kills, rng, folder):
    """All the commands one after another, each killed and run to its end, three kills between two ends."""
    whole, broken = folder / "whole", folder / "broken"
    whole.mkdir(parents=True)
    seconds = {}
    for command in commands:
        begin = time.monotonic()
        command.finish(whole)
        seconds[command] = time.monotonic() - begin
    wanted = contents(whole)
    done = rounds = 0
    while done < kills:
        shutil.rmtree(broken, ignore_errors=True)
        broken.mkdir()
        killed_last = False  # a kill between the last file and the end may leave unfinished ones, which harm nobody
        for command in commands:
            for _ in range(3):
                if not (broken / command.last).exists():
                    command.kill(broken, rng, seconds[command], wanted)
                    done += 1
            if (broken / command.last).exists():
                killed_last = True
            else:
                command.finish(broken)
        found = contents(broken)
        extra = {name for name in found if name not in wanted and not (killed_last and unfinished(name))}
        assert not extra, f"{commands[0].name}: left behind {sorted(extra)[:5]}"
        for name, there in wanted.items():
            assert found.get(name) == there, f"{commands[0].name}: {name} has other bytes than a run that nobody disturbed"
        rounds += 1
    print(f"{' and '.join(dict.fromkeys(c.name for c in commands))}: {done} kills, {rounds} times the same bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kills, rng = 50 if options.full else 12, random.Random(options.seed)
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp)
        data = folder / "items.jsonl"
        items = [json.loads(line) for line in ITEMS.read_text().splitlines()]
        data.write_text("".join(json.dumps(item | {"id": f"{item['id']}/{copy}"}) + "\n" for copy in range(12) for item in items))
        run = ["--model", MODEL, "--threads", 2]
        samples = ["eval", *run, "--data", data, "--patch", "0:3,17;1:5"]
        shards = [Command("eval --shard", *samples, "--samples", f"{i}.jsonl", "--shard", f"{i}/{SHARDS}",
                          last=f"{i}.jsonl", stays=[f"{i}.jsonl.partial"])
                  for i in range(SHARDS)]  # fmt: skip
        merge = Command("eval --merge", "eval", "--merge", *(f"{i}.jsonl" for i in range(SHARDS)), "--samples", "all.jsonl",
                        "--out", "all.json", last="all.json")
        for commands in (
            [Command("trace", "trace", *run, "--tokens", "1,5,9,7x400", "--hooks", "*", "--out", "t.safetensors", last="t.safetensors")],
            [Command("report", "report", *run, "--tokens", "5,17,5x20,9,9,11", "--repeats", 40, "--out", "r", last="r/report.json", stays=["r/unfinished/"])],
            [Command("eval", *samples, "--samples", "s.jsonl", "--out", "s.json", last="s.json", stays=["s.jsonl.partial"])],
            [*shards, merge],
        ):  # fmt: skip
            disturbed(commands, kills, rng, folder / commands[0].name.replace(" ", ""))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AssertionError as fault:
        sys.exit(f"FAILED: {fault}")
