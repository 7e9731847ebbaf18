# SPDX-License-Identifier: MIT
"""Opens pages of kvtile eval --report in a headless Chromium and looks at what a person would see.
   check_page.py CHROMIUM FOLDER    FOLDER has attention.html, rows.html, latent.html and hostile.html; pictures go there too"""

import json
import sys

from browser import Browser

PROGRAM, FOLDER = sys.argv[1:3]
failures = 0


def expect(true, what):
    global failures
    if not true:
        failures += 1
        print(f"FAILED: {what}")


def is_quiet(browser, page):
    """No complaint, and no request for anything but the page itself."""
    for event in browser.events:
        params = event["params"]
        if event["method"] == "Network.requestWillBeSent":
            url = params["request"]["url"]
            expect(url.startswith("file://") and url.endswith(f"/{page}"), f"{page} asked for {url}")
        if event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Page.javascriptDialogOpening"):
            expect(False, f"{page}: {json.dumps(params)[:400]}")


def colours(browser, canvas):
    """How many different colours a canvas shows, and how many of its pixels are not empty; 0 and 0 where there is none."""
    return browser.js(f"""(() => {{
        const one = document.querySelector("{canvas}");
        if (!one || one.offsetParent === null || !one.width) return [0, 0];
        const copy = new OffscreenCanvas(one.width, one.height).getContext("2d", {{ willReadFrequently: true }});
        copy.drawImage(one, 0, 0);
        const pixels = new Uint32Array(copy.getImageData(0, 0, one.width, one.height).data.buffer);
        return [new Set(pixels).size, pixels.filter((pixel) => pixel !== 0).length];
    }})()""")


def expect_drawn(browser, canvas, page):
    many, filled = colours(browser, canvas)
    expect(many > 50 and filled > 3000, f"{page}: {canvas} has {many} colours in {filled} pixels")


def column(browser, n):
    return browser.js(f"[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[{n}].firstChild.textContent)")


def heading(browser, text):
    """The number of a column, by what its heading begins with."""
    return browser.js(f"[...document.querySelectorAll('#table thead th')].findIndex((one) => one.textContent.startsWith('{text}'))")


def choose(browser, name, what):
    browser.js(f"document.getElementById('{name}').{what}; document.getElementById('{name}').dispatchEvent(new Event('input'))")
    browser.settle()


def check_table(browser):
    def sort_of(n):
        return browser.js(f"document.querySelectorAll('#table thead th')[{n}].ariaSort")

    def button(n):
        return f"#table thead th:nth-child({n + 1}) button"

    count = len(column(browser, 0))
    kl, bits, name = heading(browser, "KL mean"), heading(browser, "bits"), heading(browser, "format")
    expect(min(kl, bits, name) >= 0 and count == 10, f"the table has {count} rows")
    browser.click(button(kl))
    numbers = [float(text) for text in column(browser, kl)]
    expect(numbers == sorted(numbers) and sort_of(kl) == "ascending" and len(numbers) == count, f"a click does not sort: {numbers}")
    browser.click(button(kl))
    numbers = [float(text) for text in column(browser, kl)]
    expect(numbers == sorted(numbers, reverse=True) and sort_of(kl) == "descending", f"a second click does not turn it: {numbers}")
    # The heading that was pressed keeps the focus: from there back to the left by the keyboard, and Enter.
    for _ in range(kl - bits):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9, modifiers=8)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9, modifiers=8)
    browser.key("Enter", 13, "\r")
    numbers = [float(text) for text in column(browser, bits)]
    expect(numbers == sorted(numbers) and sort_of(bits) == "ascending" and not sort_of(kl), f"the keyboard does not sort: {numbers}")

    browser.click("#filter")
    browser.call("Input.insertText", text="KV4 page")
    browser.settle()
    names = column(browser, name)
    expect(len(names) == 2 and set(names) == {"kv4", "kv4h"}, f"the filter leaves {names}")
    expect(browser.js("document.getElementById('count').textContent").startswith(f"2 of {count} ways"), "the number of ways that are left")
    choose(browser, "filter", "value = ''")
    browser.click("#front-only")
    front = column(browser, kl)
    expect(0 < len(front) < count and [float(text) for text in front] == sorted(map(float, front), reverse=True), f"the front is {front}")
    browser.click("#front-only")
    expect(len(column(browser, 0)) == count, "the front does not go away")


def check_measures(browser):
    def picture():
        return browser.js("document.getElementById('bits-chart').toDataURL()")

    shown, keys = [picture()], browser.js("[...document.getElementById('bits-measure').options].map(({ value }) => value)")
    expect("kl_mean" in keys and "output_error" in keys and "same_top" in keys, f"measures are {keys}")
    for key in keys[1:]:
        choose(browser, "bits-measure", f"value = '{key}'")
        expect_drawn(browser, "#bits-chart", key)
        shown.append(picture())
    expect(len(set(shown)) == len(keys), "measures look alike")
    choose(browser, "bits-measure", "value = 'kl_mean'")


def check_theme(browser):
    def ground():
        return browser.js("getComputedStyle(document.body).backgroundColor")

    before, chart = ground(), browser.js("document.getElementById('bits-chart').toDataURL()")
    browser.click("#theme")
    expect(ground() != before and browser.js("document.getElementById('bits-chart').toDataURL()") != chart, "the button does not turn the theme")
    browser.click("#theme")
    expect(ground() == before, "the button does not turn the theme back")


def check_labels(browser, page):
    """What can be pressed has a name, what is drawn has words, and nothing has two elements' id."""
    nameless = browser.js("""[...document.querySelectorAll("button, select, input, canvas, a")].filter((one) => one.offsetParent !== null)
        .filter((one) => !(one.ariaLabel || one.tagName !== "SELECT" && one.textContent.trim() || one.labels?.[0]?.textContent.trim()))
        .map((one) => one.outerHTML)""")
    expect(nameless == [], f"{page}: nameless: {nameless}")
    ids = browser.js("[...document.querySelectorAll('[id]')].map(({ id }) => id)")
    expect(len(ids) == len(set(ids)), f"{page}: an id twice in {ids}")


def check_fit(browser, page, width):
    wide = browser.js("document.documentElement.scrollWidth")
    expect(wide == width, f"{page} is {wide} wide on a screen of {width}")


with Browser(PROGRAM) as browser:
    browser.open(f"{FOLDER}/attention.html")
    expect_drawn(browser, "#bits-chart", "attention.html")
    check_labels(browser, "attention.html")
    browser.picture(f"{FOLDER}/light.png")
    check_table(browser)
    check_measures(browser)
    check_theme(browser)
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=FOLDER)
    browser.click("#download")
    browser.wait_for("Page.downloadProgress", lambda params: params["state"] == "completed")
    is_quiet(browser, "attention.html")

    browser.open(f"{FOLDER}/attention.html", scheme="dark")
    expect(browser.js("document.documentElement.dataset.theme") == "dark", "dark is not dark")
    expect_drawn(browser, "#bits-chart", "attention.html, dark")
    browser.picture(f"{FOLDER}/dark.png")
    browser.pdf(f"{FOLDER}/paper.pdf")
    browser.settle()
    expect(browser.js("document.documentElement.dataset.theme") == "dark", "the paper's theme stays")
    is_quiet(browser, "attention.html")

    for page in ("attention.html", "rows.html", "latent.html"):
        for width in (390, 1280):
            browser.open(f"{FOLDER}/{page}", width=width, height=844, phone=width < 1000)
            check_fit(browser, page, width)
            expect_drawn(browser, "#bits-chart", f"{page}, {width} wide")
            check_labels(browser, page)
            is_quiet(browser, page)
            if width == 390:
                browser.picture(f"{FOLDER}/phone-{page[:-5]}.png")

    # Two tensors of a side: their sum first, each for itself, and the heat map of all.
    browser.open(f"{FOLDER}/rows.html")
    expect(browser.js("document.getElementById('group').options.length") == 3, "sum and tensors")
    expect(browser.js("document.querySelectorAll('#heat-map tbody td').length") >= 2, "no heat map of tensors")
    first = browser.js("document.getElementById('table').textContent")
    choose(browser, "group", "selectedIndex = 1")
    expect(browser.js("document.getElementById('table').textContent") != first, "the tensor's table is that of the sum")
    is_quiet(browser, "rows.html")

    # What lost rows has no figures, no point and no place on the front, and the page says so in words.
    browser.open(f"{FOLDER}/lost.html")
    choose(browser, "bits-range", "value = 'all'")
    kl, top, name = heading(browser, "KL mean"), heading(browser, "same top"), heading(browser, "format")
    rows = dict(zip(column(browser, name), zip(column(browser, kl), column(browser, top))))
    expect(rows["f16"] == ("lost", "lost") and "lost" not in rows["bf16"] + rows["q8_0"], f"what is lost: {rows}")
    front = browser.js("document.getElementById('bits-chart').ariaLabel")
    expect(" bf16:" in front and " f16:" not in front, f"what lost rows is on the front: {front}")
    words = browser.js("document.getElementById('lead').textContent")
    expect("f16 " in words and " query rows." in words and " of " in words and "Lost, " in words, f"no words about what is lost: {words}")
    browser.click(f"#table thead th:nth-child({kl + 1}) button")
    expect(column(browser, name)[-1] == "f16", "what lost rows is not the last")
    is_quiet(browser, "lost.html")

    # Names that would be HTML, scripts or an end of the data are names.
    browser.open(f"{FOLDER}/hostile.html")
    expect(browser.js("typeof window.owned") == "undefined", "a name was run")
    expect(browser.js("document.querySelectorAll('img, b, iframe').length") == 0, "a name became an element")
    seen = browser.js("document.getElementById('inputs').textContent")
    expect('</script ><script>owned=1</script>' in seen and '<img src=x onerror="owned=2">' in seen and "&lt;'<!--" in seen, f"names are {seen}")
    expect_drawn(browser, "#bits-chart", "hostile.html")
    is_quiet(browser, "hostile.html")

    # Fields that other measurements have: intervals, positions, layers and heads; and none of what is expected.
    browser.open(f"{FOLDER}/fields.html")
    expect_drawn(browser, "#bits-chart", "fields.html")
    expect_drawn(browser, "#position-chart", "fields.html")
    expect(browser.js("document.querySelectorAll('#heat-map tbody td').length") == 6, "heads by layers")
    before = browser.js("document.getElementById('position-chart').toDataURL()")
    browser.click("#table tbody input")
    expect(browser.js("document.getElementById('position-chart').toDataURL()") != before, "a tick does not draw a line")
    check_labels(browser, "fields.html")
    is_quiet(browser, "fields.html")
    browser.picture(f"{FOLDER}/fields.png")
    browser.open(f"{FOLDER}/nothing.html")
    for chart in ("bits", "heat", "position"):
        expect(browser.js(f"document.getElementById('{chart}').hidden"), f"{chart} of nothing")
    is_quiet(browser, "nothing.html")

sys.exit(failures > 0)
