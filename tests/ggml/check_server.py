#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""llama-server with the plug-in under mixed load: four clients at once, slots that are saved, erased and restored, contexts that overflow.

   check_server.py SECONDS PORT COMMAND...     COMMAND starts llama-server with four slots and --slot-save-path; --port is added

Each answer is compared with the one that the same server gave to one client alone before. A server that shares its cache among the slots
(--kv-unified) has room for one context that overflows, so the other clients wait meanwhile. With a plug-in that is built with AddressSanitizer its
reports are looked for. Run it by hand; tests/ggml/debian.sh starts it in a chroot."""
import json
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

SLOTS = 4
PROMPTS = 8
WORDS = "the of a to in time light house water stone under never always people found small great old new long day night".split()


class Server:
    def __init__(self, port, command):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command + ["--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        errors="replace")
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()
        while True:
            try:
                if self.request("/health").get("status") == "ok":
                    return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("".join(self.log[-20:]))
            time.sleep(0.5)

    def request(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def complete(self, prompt, n, slot=-1, keeps=False):
        return self.request("/completion", {"prompt": prompt, "n_predict": n, "temperature": 0, "seed": 1, "id_slot": slot, "cache_prompt": keeps,
                                            "ignore_eos": True, "return_tokens": True})["tokens"]

    def save_and_restore(self, prompt, n, slot):
        """The answer to a prompt whose cache went to a file and came back: only the prompt's last token is computed again."""
        self.complete(prompt, 1, slot, True)
        for action, body in (("save", {"filename": f"slot{slot}"}), ("erase", {}), ("restore", {"filename": f"slot{slot}"})):
            self.request(f"/slots/{slot}?action={action}", body)
        return self.complete(prompt, n, slot, True)

    def context(self):
        return self.request("/slots")[0]["n_ctx"]

    def resident(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return round(next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024)

    def stop(self):
        self.process.terminate()
        status = self.process.wait(timeout=120)
        self.reader.join(timeout=10)
        return status


def text(seed, words):
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(words))


class Load:
    """What the clients want, what they must get, and what they got."""

    def __init__(self, server, is_shared):
        self.server, self.is_shared = server, is_shared
        room = server.context()
        self.questions = {
            "answer": [(text(i, 20 + 37 * i), 24 + 8 * (i % 3)) for i in range(PROMPTS)],
            "overflow": [(text(PROMPTS + i, room - 200), 260) for i in range(2)],
        }
        self.questions["restored"] = self.questions["answer"]
        # The same as alone: what is saved and restored went through rows of 16 bits, so it has expectations of its own.
        self.expected = {kind: [self.get(kind, i, 0) for i in range(len(questions))] for kind, questions in self.questions.items()}
        self.counts = dict.fromkeys(self.questions, 0)
        self.wrong = []
        self.lock, self.changed, self.at_work = threading.Lock(), threading.Condition(), 0

    def get(self, kind, i, slot):
        prompt, n = self.questions[kind][i]
        return self.server.save_and_restore(prompt, n, slot) if kind == "restored" else self.server.complete(prompt, n, slot)

    def enter(self, is_alone):
        with self.changed:
            self.changed.wait_for(lambda: self.at_work == 0 if is_alone else self.at_work >= 0)
            self.at_work = -1 if is_alone else self.at_work + 1

    def leave(self, is_alone):
        with self.changed:
            self.at_work = 0 if is_alone else self.at_work - 1
            self.changed.notify_all()

    def try_one(self, kind, i, slot):
        is_alone = self.is_shared and kind == "overflow"
        self.enter(is_alone)
        try:
            is_right = self.get(kind, i, slot) == self.expected[kind][i]
            problem = "another answer"
        except (urllib.error.URLError, KeyError, OSError) as error:
            is_right, problem = False, repr(error)
        if is_alone:
            self.server.request(f"/slots/{slot}?action=erase", {})
        self.leave(is_alone)
        with self.lock:
            self.counts[kind] += 1
            if not is_right:
                self.wrong.append((kind, i, slot, problem))

    def client(self, slot, end):
        chosen = random.Random(slot)
        while time.time() < end:
            x = chosen.random()
            kind = "overflow" if x < 0.05 else "restored" if x < 0.4 else "answer"
            self.try_one(kind, chosen.randrange(len(self.questions[kind])), slot)


def main():
    seconds, port, command = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    server = Server(port, command)
    load = Load(server, "--kv-unified" in command)
    end = time.time() + seconds
    clients = [threading.Thread(target=load.client, args=(slot, end)) for slot in range(SLOTS)]
    for thread in clients:
        thread.start()
    sizes = []
    while any(thread.is_alive() for thread in clients):
        time.sleep(max(seconds / 10, 1))
        sizes.append(server.resident())
    for i in range(PROMPTS):
        load.try_one("answer", i, 0)
    status = server.stop()
    print(f"{load.counts}, wrong: {len(load.wrong)} {load.wrong[:5]}, MiB: {sizes}, exit status {status}")
    reports = [i for i, line in enumerate(server.log) if "Sanitizer" in line]
    for line in server.log:
        if line.startswith("kvtile") or "kvtile:" in line:
            print(line, end="")
    for i in reports:
        print("".join(server.log[i:i + 30]))
    sys.exit(bool(load.wrong or reports or status != 0 or 0 in load.counts.values()))


main()
