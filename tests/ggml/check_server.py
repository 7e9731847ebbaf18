#!/usr/bin/env python3
"""llama-server with the plug-in under mixed load: four clients at once, slots that are saved, erased and restored, contexts that overflow.

   check_server.py SECONDS PORT COMMAND...     COMMAND starts llama-server with four slots and --slot-save-path; --port is added

Answers are compared with those that the same server gave to one client alone. Run it by hand; tests/ggml/debian.sh starts it in a chroot."""
import json
import random
import subprocess
import sys
import threading
import time
import urllib.request

SLOTS = 4
WORDS = "the of a to in time light house water stone under never always people found small great old new long day night".split()


class Server:
    def __init__(self, port, command):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command + ["--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        while True:
            try:
                if self.ask("/health").get("status") == "ok":
                    return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("".join(self.log[-20:]))
            time.sleep(0.5)

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def complete(self, prompt, n, slot=-1, keeps=False):
        return self.ask("/completion", {"prompt": prompt, "n_predict": n, "temperature": 0, "seed": 1, "id_slot": slot, "cache_prompt": keeps,
                                        "ignore_eos": True, "return_tokens": True})["tokens"]

    def resident(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def text(seed, words):
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(words))


def save_and_restore(server, slot, prompt, n):
    """The answer to a prompt whose cache went to a file and came back: only the prompt's last token is computed again."""
    server.complete(prompt, 1, slot, True)
    server.ask(f"/slots/{slot}?action=save", {"filename": f"slot{slot}"})
    server.ask(f"/slots/{slot}?action=erase", {})
    server.ask(f"/slots/{slot}?action=restore", {"filename": f"slot{slot}"})
    return server.complete(prompt, n, slot, True)


def main():
    seconds, port, command = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    server = Server(port, command)
    prompts = [(text(i, 20 + 37 * i), 24 + 8 * (i % 3)) for i in range(8)]
    expected = [server.complete(*prompt) for prompt in prompts]
    counts, wrong, lock = {"answers": 0, "restored": 0, "overflows": 0}, [], threading.Lock()
    end = time.time() + seconds

    def client(slot):
        chosen = random.Random(slot)
        while time.time() < end:
            kind, i = chosen.random(), chosen.randrange(len(prompts))
            if kind < 0.1:  # longer than the context: the oldest tokens go, and the others move
                kind, right = "overflows", len(server.complete(text(i, 300), 500, slot)) == 500
            elif kind < 0.4:
                kind, right = "restored", save_and_restore(server, slot, *prompts[i]) == expected[i]
            else:
                kind, right = "answers", server.complete(*prompts[i], slot) == expected[i]
            with lock:
                counts[kind] += 1
                if not right:
                    wrong.append((kind, slot, i))

    clients = [threading.Thread(target=client, args=(slot,)) for slot in range(SLOTS)]
    for thread in clients:
        thread.start()
    sizes = []
    while any(thread.is_alive() for thread in clients):
        time.sleep(seconds / 10)
        sizes.append(round(server.resident()))
    alone = [server.complete(*prompt) for prompt in prompts]
    server.process.terminate()
    server.process.wait()
    time.sleep(1)
    print(counts, f"wrong: {len(wrong)} {wrong[:5]}", f"alone afterwards: {sum(a != e for a, e in zip(alone, expected))} wrong", "MiB:", sizes)
    print("".join(line for line in server.log if "kvtile" in line), end="")
    sys.exit(bool(wrong) or alone != expected)


main()
