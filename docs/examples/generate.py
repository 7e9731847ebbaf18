#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Text from a model of Hugging Face transformers whose cache is kvtile's. It needs torch, transformers and kvtile.

   generate.py MODEL [PROMPT...]     MODEL is a folder or a name; prompts go through the model as one batch"""
import sys

import torch
from kvtile.transformers import KvtileCache
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    name, prompts = sys.argv[1], sys.argv[2:] or ["The capital of France is", "Once upon a time there was a little girl who"]
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="kvtile").eval()
    inputs = tokenizer(prompts, padding=True, return_tensors="pt")
    cache = KvtileCache(model.config)  # balanced: keys in kv5, values in kv4, the first page in kv8
    out = model.generate(**inputs, past_key_values=cache, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    for text in tokenizer.batch_decode(out, skip_special_tokens=True):
        print(text)
    print(f"{cache.get_seq_length()} tokens of {len(prompts)} sequences; the cache's blocks take {cache.nbytes():,} bytes, open pages among them")


main()
