#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_classes.inc: the characters that a tokenizer.json's patterns mean by \\p{L}, \\w, ….

    make_unicode_classes.py > ../../src/tokenizer/unicode_classes.inc

They are asked of the tokenizers package, so that a text is cut as there whatever Unicode version the
machine's own regular expressions know.
"""

import tokenizers
from tokenizers import Regex, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp".split()
SCRIPTS = "Han Hiragana Katakana Hangul Latin Cyrillic Greek Arabic Hebrew Thai".split()
ESCAPES = "sdw"
ALL = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)


def ranges(pattern):
    """Runs of characters that match, as pairs of first and last."""
    step = pre_tokenizers.Split(Regex(f"{pattern}+"), "removed", invert=True)
    for piece, _ in step.pre_tokenize_str(ALL):
        start = last = None
        for c in map(ord, (piece[0], piece[-1])):  # a run of ALL is one of Unicode but for the surrogates
            start, last = (c if start is None else start), c
        yield start, last


def main():
    print(f"// Made by tools/reference/make_unicode_classes.py from tokenizers {tokenizers.__version__}.")
    named = [(name, rf"\p{{{name}}}") for name in CATEGORIES + SCRIPTS]
    named += [(name, rf"\{name}") for name in ESCAPES]
    for name, pattern in named:
        print(f'{{"{name}", {{')
        line = "   "
        for first, last in ranges(pattern):
            item = f" {{0x{first:x}, 0x{last:x}}},"
            if len(line) + len(item) > 100:
                print(line)
                line = "   "
            line += item
        print(line + "}},")


main()
