# SPDX-License-Identifier: MIT
"""A headless Chromium, driven over its DevTools pipe: JSON messages that end in a zero byte, on file descriptors 3 and 4."""

import base64
import json
import os
import select
import subprocess
import tempfile
import time

PATIENCE = 120  # seconds: machines that run tests are busy


class Browser:
    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(prefix="kvtile-browser-", ignore_cleanup_errors=True)
        from_us, self.to = os.pipe()
        self.out, to_us = os.pipe()

        def place():  # between fork and exec: the pipe's ends at 3 and 4, without treading on each other
            ends = os.dup(from_us), os.dup(to_us)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        arguments = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
                     "--force-device-scale-factor=1", "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND",
                     f"--user-data-dir={self.profile.name}", "about:blank"]
        environment = {**os.environ, "HOME": self.profile.name}
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
                                        preexec_fn=place, env=environment)
        os.close(from_us)
        os.close(to_us)
        self.events, self.read, self.last, self.session = [], b"", 0, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.profile.cleanup()

    def receive(self):
        """One message; events are kept."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.read:
            if not select.select([self.out], [], [], max(0, deadline - time.monotonic()))[0]:
                raise RuntimeError("the browser does not answer")
            more = os.read(self.out, 1 << 20)
            if not more:
                raise RuntimeError("the browser is gone")
            self.read += more
        text, self.read = self.read.split(b"\0", 1)
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def wait_for(self, method, is_it=lambda params: True):
        while not any(event["method"] == method and is_it(event["params"]) for event in self.events):
            self.receive()

    def open(self, path, width=1280, height=900, scheme="light", phone=False):
        """A page in a tab of its own; its events from then on."""
        self.session, self.events = None, []
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events = []
        self.call("Page.navigate", url="file://" + os.path.abspath(path))
        self.wait_for("Page.loadEventFired")
        self.settle()

    def settle(self):
        """Two frames: what a click changes is drawn."""
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def js(self, expression):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def click(self, selector):
        """The left button, on the middle of an element, which must be the one that is seen there."""
        place = self.js(f"""(() => {{
            const one = document.querySelector({json.dumps(selector)});
            one.scrollIntoView({{ block: "center", inline: "center" }});
            const box = one.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;
            return [x, y, one.contains(document.elementFromPoint(x, y))];
        }})()""")
        if not place[2]:
            raise RuntimeError(f"{selector} cannot be clicked")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
        self.settle()

    def key(self, name, code, text=None):
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, windowsVirtualKeyCode=code, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, windowsVirtualKeyCode=code)
        self.settle()

    def picture(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "x": 0, "y": 0, "scale": 1})
        with open(path, "wb") as file:
            file.write(base64.b64decode(answer["data"]))

    def pdf(self, path):
        answer = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
        with open(path, "wb") as file:
            file.write(base64.b64decode(answer["data"]))
