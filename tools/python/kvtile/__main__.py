# SPDX-License-Identifier: MIT
"""python -m kvtile size MODEL --k kv5 --v kv4 --ctx 32768; python -m kvtile cpu"""
from __future__ import annotations

import argparse
import sys

import kvtile


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtile", description="Bytes of a model's KV cache, and what this CPU runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    sizing = commands.add_parser("size", help="bytes of a model's cache")
    sizing.add_argument("model", help="a config.json, a folder that has one, a GGUF file, or a model's name")
    sizing.add_argument("--k", default="balanced", help="a scheme or preset (balanced)")
    sizing.add_argument("--v", help="a scheme (that of --k)")
    sizing.add_argument("--ctx", type=int, default=32768, help="tokens (32768)")
    sizing.add_argument("--engine", default="kvtile", help="whose allocation (kvtile)")
    commands.add_parser("cpu", help="what this CPU runs")
    given = parser.parse_args()
    if given.command == "cpu":
        found = kvtile.cpu()
        print(f"kvtile {kvtile.__version__}\nfeatures: {' '.join(found.features)}\ntiers: {' '.join(found.tiers)}")
        return 0
    try:
        size = kvtile.size(given.model, k=given.k, v=given.v, context=given.ctx, engine=given.engine)
    except kvtile.Error as error:
        print(f"python -m kvtile size: {error}", file=sys.stderr)
        return 1
    print(f"{size.model}, {size.k}/{size.v}: {size.bytes_per_token:,.10g} bytes per token, {size.total_bytes:,} bytes at {size.context:,} tokens")
    if size.notes:
        print(size.notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
