#!/usr/bin/env python3
"""Writes src/model/config_keys.inc: every key of config.json that some configuration class of transformers defines.

    make_config_keys.py > ../../src/model/config_keys.inc

A key that none of them defines cannot change what transformers computes; one that another family's class
defines may change that family's mathematics, so a model that has it is not plain LLaMA or Mistral.
"""

import dataclasses
import importlib
import inspect
import pkgutil

import transformers
from transformers import PreTrainedConfig

# What transformers' shared code reads from any configuration, defined by a class or not.
SHARED = "attention_chunk_size fusion_config is_causal kv_sharing_modes layer_types per_layer_config".split()


def classes():
    for package in pkgutil.iter_modules(transformers.models.__path__):
        name = f"transformers.models.{package.name}.configuration_{package.name}"
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for _, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, PreTrainedConfig):
                yield value


def keys(cls):
    names = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    names |= set(cls.attribute_map)
    for parent in cls.__mro__:
        init = parent.__dict__.get("__init__")
        if init is not None and not dataclasses.is_dataclass(parent):
            names |= set(inspect.signature(init).parameters)
    return names - {"self", "kwargs", "args"}


def main():
    known = set(SHARED)
    for cls in classes():
        known |= keys(cls)
    print(f"// Made by tools/reference/make_config_keys.py from transformers {transformers.__version__}.")
    line = ""
    for key in sorted(known):
        item = f'"{key}",'
        if len(line) + len(item) > 98:
            print(line)
            line = ""
        line += (" " if line else "") + item
    print(line)


main()
