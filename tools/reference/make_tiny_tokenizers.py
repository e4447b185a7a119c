#!/usr/bin/env python3
"""Trains the two small tokenizers of the tests and of the embedded tiny model.

    tools/reference/make_tiny_tokenizers.py reference_outputs

tiny_tokenizer/: byte-level BPE of 384 entries like Llama-3's, with BOS and EOS.
tiny_sentencepiece/: sentencepiece BPE of 400 pieces with byte fallback like LLaMA-2's.
Both learn from the text below, which was written for this purpose.
"""

import argparse
import io
import json
import pathlib

import sentencepiece
import tokenizers

TEXT = """
The river rises in the hills and runs to the sea. In the spring it carries the snow of the mountains,
in the summer it is a thread between the stones, and in the autumn the rain makes it broad and brown.
A man who lived beside the river kept a book of its height. Every morning, before the sun stood over
the trees, he walked down to the water, read the mark on the post, and wrote the number in the book.
He did this for forty years. When people asked him what it was good for, he answered that he did not
know yet. The numbers were not beautiful, and they were not interesting, but they were true.
After his death the book was given to the town, and the town put it into a box. There it lay until the
year of the great water, when the engineers came and asked whether anybody knew how high the river had
been in other years. Somebody remembered the box. They found the book, and in the book they found the
answer: three times in forty years the river had stood as high, each time after a winter with much snow
and a warm wind in the first week of spring. So they built the wall one hand higher than they had
planned, and when the water came again the town stayed dry.
The children of the town learn this story in school. Some of them think it is a story about a river,
and some think it is a story about a wall. The teacher says that it is a story about measuring: first
you measure, then you write it down, and then you wait until somebody needs it.
One day a girl asked the teacher how one knows that the numbers in the book are right. The teacher said
that this was the best question of the year. They went to the river together, they looked for the old
post, and they found the marks that the man had cut into the wood. They measured the marks again with a
new rule, and they compared their numbers with the numbers in the book. All of them agreed but one, and
beside that one there was a note: "read in the dark, not sure". The girl thought about this for a long
time. Then she said that she trusted the whole book because of the one number he had not been sure of.
"""


def sentences():
    return [line for line in TEXT.strip().split("\n")]


def byte_level_bpe(folder):
    pre = tokenizers.pre_tokenizers
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    model.pre_tokenizer = pre.Sequence(
        [
            pre.Split(split, behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=384,
        show_progress=False,
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        special_tokens=["<|bos|>", "<|eos|>"],
    )
    model.train_from_iterator(sentences(), trainer)
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", model.token_to_id("<|bos|>"))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def sentencepiece_bpe(folder):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="where the two folders go")
    folder = parser.parse_args().folder
    byte_level_bpe(folder / "tiny_tokenizer")
    sentencepiece_bpe(folder / "tiny_sentencepiece")
