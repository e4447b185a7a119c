#!/usr/bin/env python3
"""Writes what the reference tokenizers say about the texts of tokenizer_strings.py.

    tools/reference/tokenizer_reference.py models reference_outputs/tokenizers     # after tools/get_tokenizers.sh models

    llama-2, mistral-v0.1, tiny-sentencepiece   the sentencepiece package on tokenizer.model
    llama-3                                     tiktoken with Meta's regular expression
    smollm2, tiny-bpe                           the tokenizers package, built from explicit parts

strings.json is the list of texts. NAME.json holds "by" (package and version), "ids" (without BOS,
one list per text) and "decoded": what decoding gives where it is not the text itself (null: not UTF-8).
"""

import argparse
import importlib.metadata
import json
import pathlib

import sentencepiece
import tiktoken
import tokenizers

from make_tokenizer_files import LLAMA3_PATTERN, gguf_values, llama3_special_tokens, read_tiktoken
from tokenizer_strings import strings

PROJECT = pathlib.Path(__file__).resolve().parents[2]


def of_sentencepiece(file):
    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return model.encode, model.decode


def of_tiktoken(file):
    ranks = read_tiktoken(file)
    special = {name: len(ranks) + i for i, name in enumerate(llama3_special_tokens())}
    model = tiktoken.Encoding(
        "llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    return (
        lambda text: model.encode(text, allowed_special="all"),
        lambda ids: model.decode(without_first(special["<|begin_of_text|>"], ids)),
    )


def without_first(bos, ids):
    """sinkref prints no BOS at the start if the tokenizer puts one there by itself."""
    return ids[1:] if ids[:1] == [bos] else ids


def of_smollm2(file):
    values = gguf_values(file)
    tokens = values["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    model = tokenizers.Tokenizer(
        tokenizers.models.BPE({t: i for i, t in enumerate(tokens)}, merges)
    )
    pre = tokenizers.pre_tokenizers
    model.pre_tokenizer = pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
    )
    model.decoder = tokenizers.decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, values["tokenizer.ggml.token_type"]) if kind == 3]
    model.add_special_tokens(
        [tokenizers.AddedToken(t, special=True, normalized=False) for t in control]
    )
    return of_tokenizers(model)


def of_tokenizers(model, bos=None):
    return (
        lambda text: model.encode(text, add_special_tokens=False).ids,
        lambda ids: model.decode(without_first(bos, ids), skip_special_tokens=False),
    )


def tiny_bpe(file):
    model = tokenizers.Tokenizer.from_file(str(file))
    return of_tokenizers(model, model.token_to_id("<|bos|>"))


def write(path, value):
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    path.write_text(text + "\n", encoding="ascii")


def main(models, output):
    models, output = pathlib.Path(models), pathlib.Path(output)
    texts = strings()
    output.mkdir(parents=True, exist_ok=True)
    write(output / "strings.json", texts)
    published, own = models / "tokenizers", PROJECT / "reference_outputs"
    for name, package, (encode, decode) in (
        ("llama-2", "sentencepiece", of_sentencepiece(published / "llama-2/tokenizer.model")),
        (
            "mistral-v0.1",
            "sentencepiece",
            of_sentencepiece(published / "mistral-v0.1/tokenizer.model"),
        ),
        ("llama-3", "tiktoken", of_tiktoken(published / "llama-3/original/tokenizer.model")),
        ("smollm2", "tokenizers", of_smollm2(models / "SmolLM2-135M-Instruct.Q4_1.gguf")),
        (
            "tiny-sentencepiece",
            "sentencepiece",
            of_sentencepiece(own / "tiny_sentencepiece/tokenizer.model"),
        ),
        ("tiny-bpe", "tokenizers", tiny_bpe(own / "tiny_tokenizer/tokenizer.json")),
    ):
        ids = [encode(text) for text in texts]
        decoded = {
            str(i): None if "\ufffd" in back and "\ufffd" not in text else back
            for i, text in enumerate(texts)
            if (back := decode(ids[i])) != text
        }
        by = f"{package} {importlib.metadata.version(package)}"
        write(output / f"{name}.json", {"by": by, "ids": ids, "decoded": decoded})
        print(f"{name}: {len(texts)} texts by {by}, {len(decoded)} not restored by decoding")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", help="the folder that tools/get_tokenizers.sh filled")
    parser.add_argument("output", help="reference_outputs/tokenizers")
    arguments = parser.parse_args()
    main(arguments.models, arguments.output)
