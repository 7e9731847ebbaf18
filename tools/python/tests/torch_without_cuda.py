#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes torch's wheel from PyPI, which is built for CUDA, importable where most of CUDA's 3 GB are not installed: for CI alone.

   torch_without_cuda.py SITE_PACKAGES     with torch, nvidia-cuda-runtime, nvidia-cuda-cupti (pip install --no-deps) and pyelftools; and a compiler

Libraries that torch's own ask the dynamic linker for and that are nowhere become stubs: every function that is asked of them is there, with the version
that is asked for, and ends the program when somebody calls it. Nobody does: the real CUDA runtime looks for a GPU's driver and says that there is none."""
import collections
import ctypes
import glob
import os
import subprocess
import sys
import tempfile

from elftools.elf.elffile import ELFFile

DRIVER = "libcuda.so.1"  # what no package has; no library needs it that `import torch` loads


def read(path):
    """A library's (needed libraries, {name: version or None of what it asks for}, {version: library}, names that it has)."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        dynamic, symbols = elf.get_section_by_name(".dynamic"), elf.get_section_by_name(".dynsym")
        indices, needs = elf.get_section_by_name(".gnu.version"), elf.get_section_by_name(".gnu.version_r")
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
        versions, libraries = {}, {}
        for library, auxiliaries in needs.iter_versions() if needs else ():
            for auxiliary in auxiliaries:
                versions[auxiliary["vna_other"]] = auxiliary.name
                libraries[auxiliary.name] = library.name
        asked, have = {}, set()
        for i, symbol in enumerate(symbols.iter_symbols()):
            if symbol["st_shndx"] != "SHN_UNDEF":
                have.add(symbol.name)
            elif symbol.name and symbol["st_info"]["bind"] == "STB_GLOBAL":
                asked[symbol.name] = versions.get(indices.get_symbol(i)["ndx"]) if indices else None
        return needed, asked, libraries, have


def main():
    site = sys.argv[1]
    torch, others = os.path.join(site, "torch/lib"), glob.glob(os.path.join(site, "nvidia/*/lib/*.so*"))
    own = [path for path in glob.glob(torch + "/*.so*") if not os.path.exists(path + ".stub")]
    there = {os.path.basename(path) for path in own + others}
    stubs, plain, have = collections.defaultdict(lambda: collections.defaultdict(set)), {}, set()
    for path in own + others:
        needed, asked, libraries, defined = read(path)
        have |= defined
        if path not in own:
            continue
        missing = []
        for library in needed:
            try:
                if library not in there and library != DRIVER:
                    ctypes.CDLL(library)
            except OSError:
                missing.append(library)
                stubs[library][None] |= set()
        for name, version in asked.items():
            if version and libraries[version] in missing:
                stubs[libraries[version]][version].add(name)
            elif not version and missing:
                plain[name] = missing[0]
    for name, library in plain.items():
        if name not in have:
            stubs[library][None].add(name)
    with tempfile.TemporaryDirectory() as work:
        source, script = os.path.join(work, "stub.c"), os.path.join(work, "stub.map")
        for library, versions in stubs.items():
            with open(source, "w", encoding="utf-8") as file:
                file.write("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for names in versions.values() for name in sorted(names)))
            with open(script, "w", encoding="utf-8") as file:
                if not any(versions):
                    file.write("{ global: *; };\n")
                for version, names in versions.items():
                    if version and names:
                        file.write(f"{version} {{ global: {'; '.join(sorted(names))}; }};\n")
            out = os.path.join(torch, library)
            subprocess.run([os.environ.get("CC", "cc"), "-w", "-fno-builtin", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{library}",
                            f"-Wl,--version-script={script}", "-o", out, source], check=True)
            with open(out + ".stub", "w", encoding="utf-8"):
                pass
            print(f"{library}: {sum(map(len, versions.values()))} functions")


main()
