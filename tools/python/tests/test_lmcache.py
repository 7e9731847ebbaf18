# SPDX-License-Identifier: MIT
"""kvtile's serde in LMCache: its own StorageManager, in front of a real Redis server; and whatever goes wrong there is a miss, never wrong rows."""
import argparse
import json
import os
import shutil
import socket
import subprocess
import time

os.environ.update(LMCACHE_TRACK_USAGE="false", LMCACHE_LOG_LEVEL="ERROR")

import kvtile.lmcache
import pytest
import redis
import torch
from lmcache.v1.distributed.api import GroupedObjectKeys, MemoryLayoutDesc, ObjectKey, PrefetchTaskSpec
from lmcache.v1.distributed.config import EvictionConfig, L1ManagerConfig, L1MemoryManagerConfig, StorageManagerConfig
from lmcache.v1.distributed.l2_adapters.config import add_l2_adapters_args, parse_args_to_l2_adapters_config
from lmcache.v1.distributed.storage_manager import StorageManager

torch.set_num_threads(1)
CHUNK, TIMEOUT = (2, 30, 256, 192), 20
N = 4


@pytest.fixture
def server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([shutil.which("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
                               stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.1)
    client.process, client.port = process, port
    yield client
    process.kill()
    process.wait()


def manager(client, **serde):
    spec = {"type": "plugin", "module_path": "kvtile.lmcache", "class_name": "Adapter",
            "adapter_params": {"type": "resp", "host": "127.0.0.1", "port": client.port, "num_workers": 1}}
    if serde:
        spec["serde"] = {"type": "kvtile", "head_dim": 64, **serde}
    parser = add_l2_adapters_args(argparse.ArgumentParser())
    return StorageManager(StorageManagerConfig(l1_manager_config=L1ManagerConfig(L1MemoryManagerConfig(256 << 20, False, shm_name="")),
                                               eviction_config=EvictionConfig("LRU"),
                                               l2_adapter_config=parse_args_to_l2_adapters_config(parser.parse_args(["--l2-adapter", json.dumps(spec)]))))


KEYS = [ObjectKey(i.to_bytes(16, "big"), "smollm2", 0) for i in range(N)]


def store(client, rows, **serde):
    """Through a manager of its own, as another machine would."""
    description = MemoryLayoutDesc([rows.shape[1:]], [rows.dtype])
    storage = manager(client, **serde)
    objects = storage.reserve_write(KEYS, description)
    for key, each in zip(KEYS, rows):
        objects[key].tensor.copy_(each)
    storage.finish_write(KEYS)
    end = time.monotonic() + TIMEOUT
    while client.dbsize() < N and time.monotonic() < end:
        time.sleep(0.05)
    storage.close()
    return sum(client.strlen(key) for key in client.keys()) / rows.numel() / rows.itemsize


def load(client, rows, **serde):
    """Rows as another manager has them, or how many were hits where not all were; and it takes no longer than the time-out."""
    description = MemoryLayoutDesc([rows.shape[1:]], [rows.dtype])
    storage = manager(client, **serde)
    began = time.monotonic()
    handle = storage.submit_prefetch_task(PrefetchTaskSpec([GroupedObjectKeys(KEYS, 0, description)]))
    storage.wait_prefetch_status(handle, TIMEOUT)
    result = storage.query_prefetch_status(handle)
    assert time.monotonic() - began < TIMEOUT + 5
    hits = result.l2_hit_count if result else 0
    found = None
    if hits == N:
        with storage.read_prefetched_results(KEYS, result.l1_owners) as objects:
            found = torch.stack([each.tensor.clone() for each in objects])
        storage.finish_read_prefetched(KEYS, 1, result.l1_owners)
    storage.close()
    return hits, found


ROWS = torch.randn(N, *CHUNK, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)


@pytest.mark.parametrize("serde, share, most", [({"k": "bf16", "rotation": 0, "centring": "none"}, 1.0, 0), ({"k": "kv8"}, 0.5274, 0.01),
                                                ({"k": "kv4"}, 0.2774, 0.078)])
def test_through_redis(server, serde, share, most):
    assert store(server, ROWS, **serde) == pytest.approx(share, rel=0.002)
    hits, found = load(server, ROWS, **serde)
    assert hits == N and (found.float() - ROWS.float()).norm() <= most * ROWS.float().norm()


def test_what_is_not_in_order_is_a_miss(server):
    serde = {"k": "kv4"}
    store(server, ROWS, **serde)
    assert load(server, ROWS, **serde)[0] == N
    for other in ({"k": "kv5", "v": "kv4"}, {"k": "kv4", "rotation": 0}, {"k": "kv4", "centring": "none"}):
        assert load(server, ROWS, **other)[1] is None
    for key in server.keys():  # one bit of each
        data = bytearray(server.get(key))
        data[len(data) // 2] ^= 8
        server.set(key, bytes(data))
    assert load(server, ROWS, **serde)[1] is None
    server.flushall()
    assert load(server, ROWS, **serde) == (0, None)


def test_a_server_that_is_gone_or_full_is_a_miss(server):
    serde = {"k": "kv4"}
    store(server, ROWS, **serde)
    server.config_set("maxmemory", "1mb")
    server.config_set("maxmemory-policy", "noeviction")
    assert load(server, ROWS, **serde)[0] == N  # reading needs no memory
    server.config_set("maxmemory", "0")
    server.process.kill()
    server.process.wait()
    began = time.monotonic()
    try:
        assert load(server, ROWS, **serde)[1] is None
    except RuntimeError as error:  # LMCache's own adapter says so when it is made
        assert "onnect" in str(error)
    assert time.monotonic() - began < TIMEOUT + 10
