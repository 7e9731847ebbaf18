# SPDX-License-Identifier: MIT
"""SmolLM2, an engine as far as LMCache sees one, and an unmodified `lmcache server`: what test_lmcache_server.py drives."""
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import torch
import transformers
import zmq
from lmcache.utils import EngineType
from lmcache.v1.multiprocess.custom_types import IPCCacheServerKey
from lmcache.v1.multiprocess.group_view import EngineGroupInfo
from lmcache.v1.multiprocess.transfer_context import EngineDrivenTransferContext
from lmcache.v1.multiprocess.transport.factory import RequestClientFactory

torch.set_grad_enabled(False)
torch.set_num_threads(1)
transformers.logging.disable_progress_bar()
MODEL, BLOCK, CHUNK = "smollm2", 16, 256
TOKENS, PREDICTED = 1024, 256  # that are stored, and those that come after them
RPC, HTTP, REDIS = 5555, 8080, 6379
CLONE_NEWNET = 0x40000000


class Place:
    """An address of its own, in a network namespace of its own or on the loopback."""

    def __init__(self, address, namespace=None):
        self.address, self.namespace = address, namespace
        self.prefix = ["ip", "netns", "exec", namespace] if namespace else []

    @contextlib.contextmanager
    def inside(self):
        """Sockets and threads that begin here are of that namespace."""
        if not self.namespace:
            yield
            return
        libc, back = ctypes.CDLL(None, use_errno=True), os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/var/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            if libc.setns(there, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {self.namespace}")
            yield
        finally:
            libc.setns(back, CLONE_NEWNET)
            os.close(there)
            os.close(back)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def places():
    """(what joins them, one machine, another): three network namespaces, of which the second and the third see the first alone; or loopback addresses
    where the system forbids it, and why."""
    names = [f"kvtile{os.getpid()}{letter}" for letter in "rab"]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for i, name in enumerate(names[1:]):
            ip("-n", names[0], "link", "add", f"v{i}", "type", "veth", "peer", "name", "v", "netns", name)
            for at, link, address in ((names[0], f"v{i}", f"10.77.{i}.1"), (name, "v", f"10.77.{i}.2")):
                ip("-n", at, "address", "add", address + "/24", "dev", link)
                ip("-n", at, "link", "set", link, "up")
        yield Place("10.77.0.1", names[0]), Place("10.77.0.2", names[1]), Place("10.77.1.2", names[2])
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        if "not permitted" not in said and "denied" not in said and not isinstance(error, FileNotFoundError):
            raise
        print(f"no network namespaces here, so loopback addresses: {said.strip()}", file=sys.stderr)
        yield Place("127.0.0.1"), Place("127.0.0.2"), Place("127.0.0.3")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def wait(ready, seconds, what):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def connects(address, port):
    try:
        socket.create_connection((address, port), 1).close()
        return True
    except OSError:
        return False


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()


@contextlib.contextmanager
def redis_server(place, folder, *options):
    command = [*place.prefix, shutil.which("redis-server"), "--port", str(REDIS), "--bind", "0.0.0.0" if place.namespace else place.address,
               "--protected-mode", "no", "--save", "", "--dir", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with place.inside():
            wait(lambda: connects(place.address, REDIS), 10, "redis-server")
        yield process
    finally:
        stop(process)


class Server:
    """`lmcache server`, as its package installs it, which stores nothing of its own for long: what an engine gets has been in Redis."""

    def __init__(self, place, log, redis, serde, timeout=None, l1_gb=0.25):
        adapter = {"type": "plugin", "module_path": "kvtile.lmcache", "class_name": "Adapter",
                   "adapter_params": {"type": "resp", "host": redis[0], "port": redis[1], "num_workers": 2, **({"timeout": timeout} if timeout else {})},
                   "serde": {"type": "kvtile", "head_dim": 64, **serde}}
        environment = {**os.environ, "LMCACHE_TRACK_USAGE": "false", "LMCACHE_DISABLE_BANNER": "1", "OMP_NUM_THREADS": "1"}
        self.place, self.log = place, log
        with open(log, "a", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [*place.prefix, os.path.join(os.path.dirname(sys.executable), "lmcache"), "server", "--host", place.address, "--port", str(RPC),
                 "--http-host", place.address, "--http-port", str(HTTP), "--l1-size-gb", str(l1_gb), "--no-l1-use-lazy", "--eviction-policy", "LRU",
                 "--l2-store-policy", "skip_l1", "--chunk-size", str(CHUNK), "--supported-transfer-mode", "engine_driven", "--disable-observability",
                 "--l2-adapter", json.dumps(adapter)], stdout=file, stderr=file, env=environment, cwd=os.path.dirname(log))
        try:
            wait(self.healthy, 60, f"lmcache server ({log})")
        except TimeoutError:
            stop(self.process)
            raise

    def healthy(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8") as file:
                raise RuntimeError(f"lmcache server ended: {file.read()[-2000:]}")
        try:
            with self.place.inside(), urllib.request.urlopen(f"http://{self.place.address}:{HTTP}/healthcheck", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        stop(self.process)


class Engine:
    """One worker with a paged cache of SmolLM2's shape, connected to a server by LMCache's own client."""

    numbers = itertools.count(1)

    def __init__(self, place, layers, heads, dim, blocks, dtype=torch.float32, timeout=10):
        self.timeout = timeout
        self.caches = {f"layer.{i}": torch.zeros(2, blocks, BLOCK, heads, dim, dtype=dtype) for i in range(layers)}
        with place.inside():
            self.context = zmq.Context()
            self.context.setsockopt(zmq.LINGER, 0)
            self.client = RequestClientFactory.create(f"tcp://{place.address}:{RPC}", context=self.context)
        assert self.client.get_chunk_size().result(timeout=timeout) == CHUNK
        self.transfer = EngineDrivenTransferContext(next(self.numbers), self.client)
        self.transfer.register(self.caches, MODEL, 1, CHUNK // BLOCK, timeout, layout_hints={"kv_layout": "NHD"},
                               engine_group_infos=[EngineGroupInfo(engine_group_id=0, layer_indices=tuple(range(layers)), tokens_per_block=BLOCK)],
                               engine_type=EngineType.VLLM)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.transfer.close()
        self.client.close()
        self.context.destroy(linger=0)

    def fill(self, rows):
        """rows [side][layer][token][head][dim] into the first blocks."""
        for layer, cache in enumerate(self.caches.values()):
            cache.view(2, -1, *cache.shape[3:])[:, :rows.shape[2]] = rows[:, layer]

    def rows(self, tokens):
        return torch.stack([cache.view(2, -1, *cache.shape[3:])[:, :tokens] for cache in self.caches.values()], 1)

    def _key(self, ids, request, end, worker=None):
        return IPCCacheServerKey(model_name=MODEL, world_size=1, num_kv_readers=1, worker_id=worker, token_ids=tuple(ids), start=0, end=end,
                                 request_id=request)

    def _blocks(self, tokens):
        return [list(range(tokens // BLOCK))]

    def store(self, ids):
        """The whole chunks of a prompt; True if the server has taken them."""
        request, end = f"store-{next(self.numbers)}", len(ids) // CHUNK * CHUNK
        future = self.transfer.submit_store(request, self._key(ids, request, end, 0), self.caches, self._blocks(end), self.transfer.create_recorded_event(),
                                            CHUNK // BLOCK)
        done = future.result(timeout=self.timeout)
        self.client.end_session(request).result(timeout=self.timeout)
        return done

    def retrieve(self, ids, limit=30):
        """(chunks of the prompt that were there, seconds until that was known): their rows are in the first blocks then, which held zeros before."""
        for cache in self.caches.values():
            cache.zero_()
        request, end = f"retrieve-{next(self.numbers)}", len(ids) // CHUNK * CHUNK
        began = time.monotonic()
        self.client.lookup(self._key(ids, request, end), 1).result(timeout=self.timeout)
        hits = None
        while hits is None:
            hits = self.client.query_prefetch_status(request).result(timeout=self.timeout)
            assert time.monotonic() - began < limit, f"no answer within {limit} s"
            time.sleep(0.01)
        seconds = time.monotonic() - began
        if hits:
            future = self.transfer.submit_retrieve(request, self._key(ids, request, hits * CHUNK, 0), self.caches, self._blocks(hits * CHUNK),
                                                   self.transfer.create_recorded_event(), CHUNK // BLOCK, skip_first_n_tokens=0)
            if not future.result(timeout=self.timeout):
                hits = 0
        self.client.end_session(request).result(timeout=self.timeout)
        return hits, seconds


class Model:
    """SmolLM2-135M, its keys and values of a text, and its predictions with any others instead of them."""

    def __init__(self, folder, text):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
        with open(text, encoding="utf-8") as file:
            ids = transformers.AutoTokenizer.from_pretrained(folder)(file.read(), add_special_tokens=False, return_tensors="pt").input_ids[0]
        self.ids, self.others = ids[:TOKENS + PREDICTED], ids[-PREDICTED:]
        cache = transformers.DynamicCache(config=self.model.config)
        self.model(self.ids[None, :TOKENS], past_key_values=cache)
        self.rows = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers], 1).transpose(2, 3).contiguous()
        self.exact = self.predictions(self.rows)

    def predictions(self, rows):
        cache = transformers.DynamicCache(config=self.model.config)
        for layer in range(rows.shape[1]):
            cache.update(rows[0, layer].transpose(0, 1)[None], rows[1, layer].transpose(0, 1)[None], layer)
        return self.model(self.ids[None, TOKENS:], past_key_values=cache).logits[0].log_softmax(-1)

    def divergence(self, rows):
        found = self.predictions(rows)
        return float((self.exact.exp() * (self.exact - found)).sum(-1).mean())

    def engine(self, place, **options):
        _, layers, tokens, heads, dim = self.rows.shape
        return Engine(place, layers, heads, dim, (tokens + PREDICTED) // BLOCK, self.rows.dtype, **options)
