#!/usr/bin/env python3
"""Random inputs of every kind that sinkref takes for the same as transformers, tokenizers or sentencepiece does, beside them.

    test_readers.py [SEED]      (the program is build/sinkref, or SINKREF)

Each kind must agree on at least 20 members; what sinkref refuses is counted and shown, and is no failure.
"""

import io
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

PROJECT = pathlib.Path(__file__).resolve().parents[2]
SINKREF = os.environ.get("SINKREF", str(PROJECT / "build" / "sinkref"))
LEAST = 20
TOKENS = [1, 5, 9, 7, 7, 33]
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def run(*args):
    done = subprocess.run([SINKREF, *map(str, args)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr.strip()


def ids(model, text, *args):
    """The ids, or the message of a refusal."""
    code, out, err = run("tokenize", "--model", model, "--prompt", text, "--json", *args)
    if code not in (0, 2):
        raise AssertionError(f"exit {code}: {err}")
    return json.loads(out)["tokens"] if code == 0 else err


class Kind:
    """Counts the members of one kind."""

    def __init__(self, name):
        self.name, self.same, self.refused, self.wrong = name, 0, 0, []

    def compare(self, label, right, found):
        if isinstance(found, str):
            self.refused += 1
        elif found == right:
            self.same += 1
        else:
            self.wrong.append((label, right, found))

    def holds(self):
        print(f"{self.name}: {self.same} the same, {self.refused} refused, {len(self.wrong)} wrong", flush=True)
        for label, right, found in self.wrong[:5]:
            print(f"  {label}\n    right {right}\n    found {found}")
        return not self.wrong and self.same >= LEAST


# Folders: the same logits --------------------------------------------------------------------------


def model(rng, folder, **config):
    family = rng.choice(["Llama", "Mistral"])
    base = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=rng.choice([1, 2, 4]), max_position_embeddings=64)  # fmt: skip
    torch.manual_seed(rng.randrange(1 << 30))
    if "attention_bias" in config or "mlp_bias" in config:
        family = "Llama"
    made = getattr(transformers, family + "ForCausalLM")(
        getattr(transformers, family + "Config")(**{**base, **config})
    )
    for parameter in made.parameters():
        parameter.data.normal_(0, 0.3)
    made.float().eval().save_pretrained(folder)


def edit(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def rename(folder, names):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({new: tensors[old] for old in tensors if (new := names(old))}, path, {"format": "pt"})


def foreign_keys(rng, folder):
    model(rng, folder)
    keys = ["_model_name_or_path", "trained_by", "final_loss", "dataset.name", "notes", "wandb_run", "x" * 40]
    value = lambda: rng.choice([1, -2.5, "text", True, False, None, [1, 2], {"a": {"b": []}}])  # noqa: E731
    edit(folder, lambda c: c.update({key: value() for key in rng.sample(keys, 3)}))


def absent_keys(rng, folder):
    model(rng, folder, rms_norm_eps=1e-6)
    keys = ["max_position_embeddings", "rms_norm_eps", "attention_bias", "mlp_bias", "hidden_act", "rope_parameters"]
    edit(folder, lambda c: [c.pop(key, None) for key in rng.sample(keys, 3)])


def special_ids(rng, folder):
    model(rng, folder)
    value = lambda: rng.choice([64, 128000, [128001, 3], None, 1])  # noqa: E731
    edit(folder, lambda c: c.update(bos_token_id=rng.choice([64, 128000, None, 1]), eos_token_id=value()))


def rope_keys(rng, folder):
    model(rng, folder)
    scaling = rng.choice([{"rope_type": "linear", "factor": 4.0}, {"rope_type": "default"},
                          {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}])  # fmt: skip
    scaling[rng.choice(["original_max_position_embeddings", "beta_fast", "attention_factor", "my_note"])] = 32
    edit(folder, lambda c: (c.pop("rope_parameters"), c.update(rope_theta=1e4, rope_scaling=scaling)))


def head_only(rng, folder):
    model(rng, folder, tie_word_embeddings=True)
    rename(folder, lambda name: name.replace("model.embed_tokens", "lm_head"))


def without_prefix(rng, folder):
    model(rng, folder, tie_word_embeddings=True)
    rename(folder, lambda name: name.removeprefix("model."))


def some_biases(rng, folder):
    model(rng, folder, attention_bias=True, mlp_bias=True)
    parts = rng.sample("qkvo", rng.randint(1, 3)) + rng.sample(["gate", "up", "down"], rng.randint(0, 2))
    rename(folder, lambda name: "" if name.endswith(tuple(f"{p}_proj.bias" for p in parts)) else name)


def compare_logits(folder):
    """(are our logits transformers'?, ""), or (None, what the program says as it refuses the folder)."""
    # As the file says it, which transformers' classes may have written in other words.
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        want = reference(torch.tensor([TOKENS])).logits.numpy()
    out = folder / "out.safetensors"
    code, _, err = run("trace", "--model", folder, "--tokens", ",".join(map(str, TOKENS)), "--bos", "off", "--out", out)
    if code == 2:
        return None, err
    # Far above what the order of fp32 sums can do here, far below any other mathematics.
    return bool(np.abs(load_file(out)["logits"] - want).max() <= 2e-5 * np.abs(want).max()), ""


def folders(rng, make):
    kind = Kind(make.__name__)
    for _ in range(LEAST + 4):
        with tempfile.TemporaryDirectory() as tmp:
            folder = pathlib.Path(tmp) / "m"
            make(rng, folder)
            near, refusal = compare_logits(folder)
            if refusal:
                kind.compare(make.__name__, None, refusal)
                continue
            kind.compare((folder / "config.json").read_text(), True, near)
    return kind


# Configurations as transformers' own tests make them: the same logits, or refused by name ---------------

LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LONGROPE = dict(rope_type="longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4, factor=4.0, original_max_position_embeddings=16)
# transformers.LlamaConfig and MistralConfig: what differs from the class's defaults, and the word that a refusal names, or
# None where the model must run.
CONFIGURATIONS = [
    ("Llama", {}, None), ("Llama", dict(tie_word_embeddings=True), None), ("Llama", dict(attention_bias=True), None),
    ("Llama", dict(mlp_bias=True), None), ("Llama", dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True), None),
    ("Llama", dict(head_dim=12), None), ("Llama", dict(head_dim=2), None), ("Llama", dict(num_key_value_heads=1), None),
    ("Llama", dict(num_key_value_heads=4), None), ("Llama", dict(rms_norm_eps=1e-2), None), ("Llama", dict(hidden_act="silu"), None),
    ("Llama", dict(hidden_act="swish"), None), ("Llama", dict(hidden_act="gelu"), "hidden_act"), ("Llama", dict(hidden_act="relu"), "hidden_act"),
    ("Llama", dict(hidden_act="gelu_new"), "hidden_act"), ("Llama", dict(hidden_act="gelu_pytorch_tanh"), "hidden_act"),
    ("Llama", dict(pretraining_tp=1), None), ("Llama", dict(pretraining_tp=2), None), ("Llama", dict(attention_dropout=0.5), None),
    ("Llama", dict(initializer_range=1.0), None), ("Llama", dict(use_cache=False), None), ("Llama", dict(pad_token_id=3), None),
    ("Llama", dict(bos_token_id=None, eos_token_id=[2, 3]), None), ("Llama", dict(max_position_embeddings=16), None),
    ("Llama", dict(rope_parameters=dict(rope_type="default", rope_theta=5e5)), None),
    ("Llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)), None),
    ("Llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)), "dynamic"),
    ("Llama", dict(rope_parameters=YARN | dict(rope_theta=1e4)), "yarn"),
    ("Llama", dict(rope_parameters=LONGROPE | dict(rope_theta=1e4)), "longrope"),
    ("Llama", dict(rope_parameters=LLAMA3 | dict(rope_theta=5e5)), None),
    ("Llama", dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)), "partial_rotary_factor"),
    ("Llama", dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=1.0)), None),
    ("Llama", dict(rope_theta=5e5), None), ("Llama", dict(rope_theta=1e4, rope_scaling=dict(type="linear", factor=4.0)), None),
    ("Llama", dict(rope_theta=1e4, rope_scaling=dict(type="dynamic", factor=4.0)), "dynamic"),
    ("Llama", dict(rope_theta=1e4, rope_scaling=LLAMA3), None), ("Llama", dict(rope_theta=1e4, rope_scaling=YARN), "yarn"),
    ("Llama", dict(sliding_window=4), None), ("Llama", dict(architectures=["LlamaForSequenceClassification"]), None),
    ("Mistral", {}, None), ("Mistral", dict(sliding_window=None), None), ("Mistral", dict(sliding_window=3), None),
    ("Mistral", dict(sliding_window=4096), None), ("Mistral", dict(head_dim=12), None), ("Mistral", dict(tie_word_embeddings=True), None),
    ("Mistral", dict(num_key_value_heads=4), None), ("Mistral", dict(hidden_act="gelu"), "hidden_act"),
    ("Mistral", dict(rope_parameters=YARN | dict(rope_theta=1e4)), "yarn"), ("Mistral", dict(rope_theta=1e6), None),
    ("Mistral", dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)), None),
    ("Mistral", dict(rope_parameters=LLAMA3 | dict(rope_theta=5e5)), None), ("Mistral", dict(attention_dropout=0.1), None),
]  # fmt: skip


def configurations(rng):
    kind = Kind("transformers' configurations")
    base = dict(vocab_size=64, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64)  # fmt: skip
    for family, settings, refusal in CONFIGURATIONS:
        with tempfile.TemporaryDirectory() as tmp:
            folder = pathlib.Path(tmp) / "m"
            label = f"{family} {settings}"
            torch.manual_seed(rng.randrange(1 << 30))
            config = getattr(transformers, family + "Config")(**base | settings)
            made = getattr(transformers, family + "ForCausalLM")(config).float().eval()
            for parameter in made.parameters():
                parameter.data.normal_(0, 0.3)
            made.save_pretrained(folder)
            near, err = compare_logits(folder)
            if err and refusal and refusal in err and len(err.splitlines()) == 1:
                kind.compare(label, None, err)
            elif err or refusal:
                kind.wrong.append((label, f"refused for {refusal}" if refusal else "runs", err[-200:] or "it runs"))
            else:
                kind.compare(label, True, near)
    return kind


# tokenizer.json: the same ids ----------------------------------------------------------------------

KEPT = [*range(33, 127), *range(161, 173), *range(174, 256)]
REST = [b for b in range(256) if b not in KEPT]
CHARACTER = {**{b: chr(b) for b in KEPT}, **{b: chr(256 + i) for i, b in enumerate(REST)}}
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld"]
TEXTS = ["hello", "hello world", "<s>hello", "hello<x> world<y>", " <z>hello\n12 é漢字", "<x><y><z>"]
PATTERNS = [
    r"[a-z&&[^l]]+|.", r"[\p{L}&&[^o]]+", r"\h+", r"\H+", r"o{,2}", r"[^a[lo]]+", r"^h|\s$", r"\p{Lu}?\p{Ll}+|\p{N}{1,3}",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", r"[^(\s|[.,!?…。，、।۔،])]+", r"\w+|\W", r"(?i:'s|H)",
]  # fmt: skip


def added(content, number, special=True):
    return dict(id=number, content=content, single_word=False, lstrip=False, rstrip=False,
                normalized=not special, special=special)  # fmt: skip


def tokenizer_json(rng):
    vocab = {CHARACTER[b]: b for b in range(256)}
    for merge in MERGES:
        vocab[merge.replace(" ", "")] = len(vocab)
    bos, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": rng.choice([[bos, text], [text]]), "pair": [text],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [rng.choice([265, 266, 3])], "tokens": ["<s>"]}}}  # fmt: skip
    tokens = [added("<s>", 265), added("</s>", 266)]
    for content in rng.sample(["<x>", "<y>"], rng.randint(0, 2)):
        tokens.append(added(content, rng.choice([267, 290, 300]), rng.random() < 0.5))
    if len({token["id"] for token in tokens}) < len(tokens):
        tokens.pop()
    step = {"type": "Split", "pattern": {"Regex": rng.choice(PATTERNS)}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [step, byte_level]},
        "post_processor": rng.choice([template, template, None]), "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": False, "vocab": vocab, "merges": MERGES},
    }  # fmt: skip


def tokenizer_folders(rng):
    kind = Kind("tokenizer.json")
    for _ in range(10):
        with tempfile.TemporaryDirectory() as tmp:
            folder = pathlib.Path(tmp)
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
            if rng.random() < 0.5:
                config["add_bos_token"] = rng.random() < 0.5
            if rng.random() < 0.5:
                config[rng.choice(["extra_special_tokens", "additional_special_tokens"])] = ["<z>", "<x>"]
            if rng.random() < 0.3:
                config["image_token"] = "<y>"
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(rng)))
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 400}))
            reference = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
            for text in TEXTS:
                label = f"{text!r} {config} {(folder / 'tokenizer.json').read_text()[-60:]}"
                kind.compare(label, reference(text)["input_ids"], ids(folder, text))
    return kind


def patterns(rng):
    kind = Kind("patterns")
    for pattern in PATTERNS:
        with tempfile.TemporaryDirectory() as tmp:
            folder = pathlib.Path(tmp)
            made = tokenizer_json(rng)
            made["post_processor"] = None
            made["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
            (folder / "tokenizer.json").write_text(json.dumps(made))
            (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 400}))
            reference = tokenizers.Tokenizer.from_str(json.dumps(made))
            for _ in range(3):
                text = "".join(rng.choice("hello world.L1٣ \n'é漢_-&(|Xſ\u180e\u0301") for _ in range(12))
                kind.compare(f"{pattern} {text!r}", reference.encode(text).ids, ids(folder, text, "--bos", "off"))
    return kind


# GGUF: the ids of the sentencepiece model that it was made of ----------------------------------------


def trained(rng):
    lines = [line.strip() for line in open(__file__, encoding="utf-8") if len(line.strip()) > 20]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(rng.sample(lines, len(lines)) * 5), model_writer=out, vocab_size=400,
        model_type=rng.choice(["bpe", "bpe", "bpe", "unigram"]), byte_fallback=True, character_coverage=0.999, minloglevel=2,
        normalization_rule_name=rng.choice(["identity", "identity", "nmt_nfkc"]),
        remove_extra_whitespaces=rng.random() < 0.3, add_dummy_prefix=rng.random() < 0.7,
        user_defined_symbols=rng.choice([[], ["▁▁", "▁▁▁"], ["<tag>"]]),
    )  # fmt: skip
    return out.getvalue()


def write_gguf(path, model_bytes):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model_bytes)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.piece for p in proto.pieces])
    writer.add_token_scores([p.score for p in proto.pieces])
    writer.add_token_types([p.type for p in proto.pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if not proto.normalizer_spec.add_dummy_prefix:
        writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def gguf_vocabularies(rng):
    kind = Kind("sentencepiece in GGUF")
    texts = ["the model", "  two  spaces   three", "tab\there", "a<tag>b", " lead", "trail ", "é½ﬁ", "123 4", "x=y"]
    for _ in range(12):
        with tempfile.TemporaryDirectory() as tmp:
            made = trained(rng)
            path = pathlib.Path(tmp) / "m.gguf"
            write_gguf(path, made)
            reference = sentencepiece.SentencePieceProcessor(model_proto=made)
            for text in texts:
                kind.compare(repr(text), reference.encode(text), ids(path, text, "--bos", "off"))
    return kind


def main():
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    kinds = [configurations(rng), tokenizer_folders(rng), patterns(rng), gguf_vocabularies(rng)]
    makers = (foreign_keys, absent_keys, special_ids, rope_keys, head_only, without_prefix, some_biases)
    kinds += [folders(rng, make) for make in makers]
    sys.exit(not all([kind.holds() for kind in kinds]))


main()
