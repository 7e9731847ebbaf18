/* SPDX-License-Identifier: MIT */
"use strict";
/* The page of kvtile eval --report. Texts of the data become text nodes and never HTML. measures.js has the words and the numbers. */

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);

/* ---- results ---- */

/* Those that compare with each other: of one tensor, or of all of a side. What sums up goes first. */
function groupsOf(results) {
    const groups = new Map();
    for (const row of results) {
        const side = row.side === "k" ? "keys" : "values";
        let name = "all";
        if (row.input !== undefined)
            name = `${row.input} (${side})`;
        else if (row.tensors !== undefined)
            name = `all ${side}, mean of ${row.heads} heads`;
        groups.set(name, [...(groups.get(name) ?? []), row]);
    }
    const isSum = (group) => group[0].tensors !== undefined;
    return new Map([...groups].sort(([, a], [, b]) => isSum(b) - isSum(a)));
}

const groups = groupsOf(data.results);
let rows = []; /* of the group that is shown */
let lined = new Set(); /* rows that have a line in the chart of positions */

const isThere = (measure) => rows.some((row) => typeof row[measure.key] === "number" || isLost(row, measure));
const measures = () => MEASURES.filter(isThere);
const sizes = () => SIZES.filter(isThere);
const positionMeasures = () => MEASURES.filter(({ key }) => rows.some((row) => row.by_position?.some((bin) => typeof bin[key] === "number")));

/* ---- elements ---- */

function element(tag, content, properties = {}) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...[content ?? []].flat());
    return made;
}

/* Fills a select with [value, text]; what was chosen stays, where it is still there. Hidden when there is nothing to choose. */
function fill(id, options, first) {
    const select = byId(id), before = select.value;
    select.replaceChildren(...options.map(([value, text]) => element("option", text, { value })));
    select.value = options.some(([value]) => value === before) ? before : first ?? options[0]?.[0] ?? "";
    select.parentElement.hidden = options.length < 2;
}

function fillMeasures(id, list) {
    fill(id, list.map((measure) => [measure.key, titleOf(measure)]));
}

function chosen(id, list) {
    return list.find(({ key }) => key === byId(id).value) ?? list[0];
}

const isInRange = (row) => byId("bits-range").value !== "narrow" || row.bits_per_element <= NARROW;

/* Names without the words that all of them begin and end with: "layer10_values.qvkt" is "layer10" among its like. */
function shortNames(names) {
    const bases = names.map((name) => name.split("/").at(-1));
    const common = (texts) => {
        let n = 0;
        while (n < texts[0].length && texts.every((text) => text[n] === texts[0][n]))
            n++;
        while (n > 0 && /[a-z0-9]/i.test(texts[0][n - 1]))
            n--;
        return n;
    };
    const backwards = (text) => [...text].reverse().join("");
    const start = common(bases), end = common(bases.map((base) => backwards(base.slice(start))));
    const short = bases.map((base) => base.slice(start, base.length - end));
    return short.includes("") ? bases : short;
}

/* ---- charts ---- */

const SHAPES = ["circle", "rectRot", "triangle", "rect", "crossRot", "star"];
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const charts = {};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const series = (i) => ({ borderColor: colour(`series-${i % 6}`), pointStyle: SHAPES[i % SHAPES.length] });

function draw(id, config) {
    charts[id]?.destroy();
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 12.5;
    Chart.defaults.color = colour("soft");
    charts[id] = new Chart(byId(id), { ...config, type: "line", options: { animation: false, maintainAspectRatio: false, ...config.options } });
}

/* Of a logarithmic axis: powers of ten, and where these are few 2 and 5 times as much. null: no line either. */
function tickText(value) {
    const exponent = Math.floor(Math.log10(value) + 1e-9), first = Math.round(value / 10 ** exponent);
    if (first !== 1 && (this.max > 3000 * this.min || (first !== 2 && first !== 5)))
        return null;
    if (exponent >= -3 && exponent < 5)
        return String(Number(value.toPrecision(1)));
    return `${first === 1 ? "" : `${first}·`}10${String(exponent).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)])}`;
}

function axis(title, log, more = {}) {
    return { type: log ? "logarithmic" : "linear", title: { display: true, text: title, color: colour("ink") },
             border: { color: colour("line") }, grid: { color: colour("line"), borderColor: colour("line") },
             ticks: log ? { callback: tickText, autoSkipPadding: 12 } : {}, ...more };
}

const legend = () => ({ position: "bottom", labels: { usePointStyle: true, boxWidth: 8, boxHeight: 8, padding: 16, color: colour("ink") } });

/* ---- accuracy against bits ---- */

/* Draws intervals, and names beside the points, those of the front first. A name that finds no room is left out. */
const names = {
    id: "names",
    afterDatasetsDraw(chart) {
        const { ctx, chartArea, scales } = chart;
        const points = chart.data.datasets.flatMap((set, s) => set.data.map((of, i) => {
            const { x, y } = chart.getDatasetMeta(s).data[i];
            return { ...of, x, y, hue: set.borderColor };
        })).filter(({ row }) => row !== undefined);
        ctx.save();
        for (const { x, low, high, hue } of points.filter((of) => of.low !== null && of.high !== null)) {
            /* An end that the axis does not reach has no cap: of a logarithmic one, less than 0. */
            const { min, max } = scales.y, pixel = (value) => scales.y.getPixelForValue(Math.min(Math.max(value, min), max));
            ctx.beginPath();
            ctx.strokeStyle = hue;
            ctx.moveTo(x, pixel(low));
            ctx.lineTo(x, pixel(high));
            for (const end of [low, high].filter((value) => value >= min && value <= max)) {
                ctx.moveTo(x - 4, pixel(end));
                ctx.lineTo(x + 4, pixel(end));
            }
            ctx.stroke();
        }

        Object.assign(ctx, { textBaseline: "middle", strokeStyle: colour("card"), lineWidth: 4, lineJoin: "round" });
        const taken = points.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
        const isFree = (a) => a[0] > chartArea.left && a[1] > chartArea.top && a[2] < chart.width && a[3] < chartArea.bottom &&
            !taken.some((b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]);
        /* Beyond the front there is room: to the left, and towards what is better. Behind it, the other way round. */
        const better = chart.options.plugins.names.high ? -1 : 1;
        const beyond = [[-1, better], [-1, 0], [0, better], [1, better], [-1, -better], [1, 0], [0, -better], [1, -better]];
        const behind = beyond.slice().reverse();
        for (const { x, y, row, onFront } of points.sort((a, b) => b.onFront - a.onFront)) {
            ctx.font = `${onFront ? "600 " : ""}12px ${Chart.defaults.font.family}`;
            const width = ctx.measureText(schemeOf(row)).width;
            const box = (onFront ? beyond : behind).map(([dx, dy]) => {
                const left = x - width / 2 + dx * (width / 2 + (dy === 0 ? 9 : 6)), top = y - 7 + dy * (dx === 0 ? 14 : 12);
                return [left, top, left + width, top + 14];
            }).find(isFree);
            if (box) {
                taken.push(box);
                ctx.fillStyle = colour(onFront ? "ink" : "soft");
                ctx.strokeText(schemeOf(row), box[0], box[1] + 7);
                ctx.fillText(schemeOf(row), box[0], box[1] + 7);
            }
        }
        ctx.restore();
    },
};

/* Lines of a point's tooltip. */
function linesOf(row) {
    return [...sizes(), ...measures()].map((measure) => {
        const low = endOf(row, measure, "low"), high = endOf(row, measure, "high");
        const interval = low !== null && high !== null ? ` (${textOf(low, measure)} to ${textOf(high, measure)})` : "";
        return `${measure.name}: ${cellText(row, measure)} ${measure.unit ?? ""}${interval}`;
    });
}

function bitsSets(shown, front, size, measure) {
    const place = (row) => ({ x: row[size.key], y: valueOf(row, measure) });
    const point = (row) => ({ ...place(row), row, onFront: front.includes(row), low: endOf(row, measure, "low"), high: endOf(row, measure, "high") });
    const sets = [...new Set(rows.map(treatmentOf))].map((treatment, i) => {
        const of = shown.filter((row) => treatmentOf(row) === treatment), look = series(i);
        return { ...look, label: treatment, data: of.map(point), showLine: false, borderWidth: 1.75, pointHoverRadius: 8,
                 pointRadius: of.map((row) => front.includes(row) ? 6 : 5),
                 backgroundColor: of.map((row) => front.includes(row) ? look.borderColor : colour("card")) };
    });
    const line = { label: "front", data: front.filter((row) => shown.includes(row)).map(place), stepped: true, order: 1, pointStyle: "line",
                   pointRadius: 0, pointHitRadius: 0, borderColor: colour("soft"), borderWidth: 1.5, borderDash: [4, 3] };
    return [...sets, line];
}

function drawBits() {
    const measure = chosen("bits-measure", measures()), size = chosen("bits-size", sizes());
    byId("bits").hidden = measure === undefined;
    if (measure === undefined)
        return;
    /* What is next to nothing beside the others would leave these no room on a logarithmic axis. */
    const front = frontOf(rows, size, measure), inRange = rows.filter((row) => valueOf(row, measure) !== null && isInRange(row));
    const most = Math.max(...inRange.map((row) => valueOf(row, measure)).filter(Number.isFinite));
    const isDrawn = (value) => Number.isFinite(value) && (!measure.log || value > 1e-10 * most);
    const shown = inRange.filter((row) => isDrawn(valueOf(row, measure)));
    const ends = (end) => shown.map((row) => endOf(row, measure, end) ?? valueOf(row, measure));
    const room = { suggestedMax: Math.max(...ends("high")), ...(measure.log ? {} : { suggestedMin: Math.min(...ends("low")) }) };
    draw("bits-chart", {
        data: { datasets: bitsSets(shown, front, size, measure) },
        plugins: [names],
        options: {
            layout: { padding: { right: 12 } },
            scales: {
                x: axis(size.axis, false, { grace: "4%" }),
                y: axis(`${titleOf(measure)} (${measure.high ? "higher" : "lower"} is better)`, measure.log, room),
            },
            plugins: {
                names: { high: measure.high },
                legend: legend(),
                tooltip: {
                    usePointStyle: true,
                    filter: ({ raw }) => raw.row !== undefined,
                    callbacks: { title: ([item]) => item ? nameOf(item.raw.row) : "", label: ({ raw }) => linesOf(raw.row) },
                },
            },
        },
    });
    const undrawn = inRange.filter((row) => !shown.includes(row)).map(nameOf), left = rows.length - inRange.length;
    byId("bits-caption").textContent = "Each point is a way of storing. The dashed line is the front: no other way is better with as few bits. " +
        `Filled points are on it, ${front.length} of ${rows.length}.` +
        (shown.some((row) => endOf(row, measure, "low") !== null) ? " Bars are 95 % intervals." : "") +
        (undrawn.length > 0 ? ` Next to no error, and not drawn: ${undrawn.join("; ")}.` : "") +
        (left > 0 ? ` ${left} of more than ${NARROW} bits, or without this number, are not shown.` : "");
    const onFront = front.map((row) => `${nameOf(row)}: ${textOf(row[size.key], size)} ${size.name}, ${cellText(row, measure)}`);
    byId("bits-chart").ariaLabel = `${titleOf(measure)} against ${size.name} of ${shown.length} ways. On the front: ${onFront.join("; ")}.`;
}

/* ---- error against position ---- */

function drawPosition() {
    const measure = chosen("position-measure", positionMeasures());
    byId("position").hidden = measure === undefined;
    if (measure === undefined)
        return;
    const sets = rows.filter((row) => lined.has(row)).map((row, i) => ({
        ...series(i), label: nameOf(row), backgroundColor: colour("card"), borderDash: DASHES[i % DASHES.length], borderWidth: 2, pointRadius: 3.5,
        data: row.by_position.map((bin) => {
            const value = valueOf(bin, measure);
            return { x: (bin.first + bin.last) / 2, y: measure.log && !(value > 0) ? null : value, bin };
        }),
        spanGaps: !(row.lost > 0), /* no line over what was lost */
    }));
    const last = Math.max(1, ...sets.flatMap((set) => set.data.map(({ bin }) => bin.last)));
    draw("position-chart", {
        data: { datasets: sets },
        options: {
            interaction: { mode: "index", intersect: false },
            scales: { x: axis("position of the token", false, { min: 0, max: last }), y: axis(titleOf(measure), measure.log) },
            plugins: {
                legend: legend(),
                tooltip: {
                    usePointStyle: true,
                    callbacks: {
                        title: ([item]) => item ? `tokens ${item.raw.bin.first} to ${item.raw.bin.last}` : "",
                        label: ({ dataset, raw }) => `${dataset.label}: ${cellText(raw.bin, measure)}`,
                    },
                },
            },
        },
    });
    byId("position-caption").textContent = "A line for each way that is ticked in the table below; each point is the mean of a span of positions.";
    byId("position-chart").ariaLabel = `${titleOf(measure)} against position: ${sets.map(({ label }) => label).join("; ")}.`;
}

/* ---- heat map ---- */

/* What the data has of { corner, lines, columns, at(line, column), text }: heads by layer, sides by layer, or tensors by way. null: nothing. */
function heatOf(way) {
    const grid = (entries, field, headings) => {
        const layers = [...new Set(entries.map(({ layer }) => layer))], fields = [...new Set(entries.map((entry) => entry[field]))];
        return { corner: "layer", lines: shortNames(layers.map(String)), columns: fields.map(headings), sample: entries[0],
                 at: (r, c) => entries.find((entry) => entry.layer === layers[r] && entry[field] === fields[c]) };
    };
    if (way?.by_head?.length > 0)
        return { ...grid(way.by_head, "kv_head", (head) => `head ${head}`), text: "A row for each layer, a column for each KV head." };
    if (way?.by_layer?.length > 0)
        return { ...grid(way.by_layer, "side", (side) => side === "k" ? "keys" : "values"),
                 text: "Only the keys, or only the values, of one layer are stored so, and all else is exact." };
    const tensors = [...groups.values()].filter((group) => group[0].input !== undefined && group[0].side === rows[0]?.side);
    const ways = rows.filter(isInRange).map(nameOf);
    if (tensors.length < 2)
        return null;
    return { corner: "way", lines: ways, columns: shortNames(tensors.map((group) => group[0].input)), sample: tensors[0][0],
             at: (r, c) => tensors[c].find((row) => nameOf(row) === ways[r]), text: "A row for each way, a column for each tensor." };
}

/* Of a colour, as WCAG counts it: at 0.18 black and white are as easy to read. */
function luminance(rgb) {
    return rgb.map((c) => (c / 255) ** 2.2).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
}

function paint(cell, share) {
    const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const cold = parts(colour("cold")), hot = parts(colour("hot")), rgb = cold.map((part, i) => Math.round(part + share * (hot[i] - part)));
    cell.style.background = `rgb(${rgb})`;
    cell.style.color = luminance(rgb) > 0.18 ? "#000000" : "#ffffff";
}

function drawHeat() {
    const way = rows[byId("heat-way").value] ?? rows[0], map = heatOf(way);
    byId("heat").hidden = map === null;
    if (map === null)
        return;
    const list = MEASURES.filter(({ key }) => key in map.sample);
    fillMeasures("heat-measure", list);
    byId("heat-way-label").hidden = map.corner === "way";
    const measure = chosen("heat-measure", list), badness = (value) => measure.log ? Math.log(value) : measure.high ? -value : value;
    const entries = map.lines.map((_, r) => map.columns.map((__, c) => map.at(r, c) ?? {}));
    const all = entries.flat().map((entry) => valueOf(entry, measure)).filter((value) => value !== null).map(badness).filter(Number.isFinite);
    const least = Math.min(...all), span = Math.max(...all) - least || 1;

    const body = entries.map((line, r) => element("tr", [element("th", map.lines[r], { scope: "row" }), ...line.map((entry) => {
        const cell = element("td", cellText(entry, measure)), value = valueOf(entry, measure);
        if (value !== null && Number.isFinite(badness(value)))
            paint(cell, (badness(value) - least) / span);
        return cell;
    })]));
    const head = element("tr", [map.corner, ...map.columns].map((name) => element("th", name, { scope: "col" })));
    byId("heat-map").replaceChildren(element("thead", head), element("tbody", body));
    byId("heat-scale").replaceChildren("less error", element("i"), "more");
    byId("heat-caption").textContent = `${titleOf(measure)}${map.corner === "way" ? "" : ` of ${nameOf(way)}`}. ${map.text} ` +
        `A stronger colour is more error${measure.log ? ", on a logarithmic scale" : ""}.`;
}

/* ---- the table ---- */

const sorting = { name: null, down: false };

function columnsOf() {
    const words = WAY.filter(({ get }) => rows.some((row) => (get(row) ?? null) !== null))
        .map((column) => ({ ...column, show: (row) => String(column.get(row) ?? "–") }));
    const numbers = [...sizes(), ...measures()].map((measure) => ({
        name: measure.name, unit: measure.unit, number: true, get: (row) => valueOf(row, measure), show: (row) => cellText(row, measure),
    }));
    return [...words, ...numbers];
}

/* What has no value is last in either order. */
function compare(a, b, down) {
    const isNone = (value) => value === null || value === undefined;
    if (isNone(a) || isNone(b))
        return isNone(a) - isNone(b);
    const order = typeof a === "number" ? (a === b ? 0 : a - b) : String(a).localeCompare(String(b), "en", { numeric: true });
    return down ? -order : order;
}

function headingOf(column) {
    const button = element("button", [column.name, column.unit ? element("small", column.unit) : []].flat(), { type: "button" });
    button.addEventListener("click", () => {
        Object.assign(sorting, { down: sorting.name === column.name && !sorting.down, name: column.name });
        drawTable();
        byId("table").querySelector("[aria-sort] button").focus();
    });
    const sort = sorting.name === column.name && { ariaSort: sorting.down ? "descending" : "ascending" };
    return element("th", button, { scope: "col", className: column.number ? "number" : "", ...sort });
}

function tickBox(row) {
    const box = element("input", null, { type: "checkbox", checked: lined.has(row), disabled: !row.by_position?.length });
    box.ariaLabel = `line of ${nameOf(row)}`;
    box.addEventListener("change", () => {
        lined[box.checked ? "add" : "delete"](row);
        drawPosition();
    });
    return element("td", box, { className: "tick" });
}

function drawTable() {
    const columns = columnsOf(), by = columns.find(({ name }) => name === sorting.name), hasLines = positionMeasures().length > 0;
    const measure = chosen("bits-measure", measures()), size = chosen("bits-size", sizes()), front = measure ? frontOf(rows, size, measure) : [];
    const words = byId("filter").value.toLowerCase().split(/\s+/), textColumns = columns.filter(({ number }) => !number);
    const isFound = (row) => {
        const text = [nameOf(row), ...textColumns.map(({ show }) => show(row))].join(" ").toLowerCase();
        return words.every((word) => text.includes(word)) && (!byId("front-only").checked || front.includes(row));
    };
    const shown = rows.filter(isFound);
    if (by)
        shown.sort((a, b) => compare(by.get(a), by.get(b), sorting.down));

    const head = [...(hasLines ? [element("th", "line", { scope: "col", className: "tick" })] : []), ...columns.map(headingOf)];
    const body = shown.map((row) => {
        const isFront = front.includes(row), [first, ...others] = columns;
        return element("tr", [
            ...(hasLines ? [tickBox(row)] : []),
            element("th", [first.show(row), ...(isFront ? [element("span", "front", { className: "badge" })] : [])], { scope: "row" }),
            ...others.map((column) => element("td", column.show(row), { className: column.number ? "number" : "" })),
        ], { className: isFront ? "front" : "" });
    });
    byId("table").replaceChildren(element("thead", element("tr", head)), element("tbody", body));
    byId("count").textContent = `${shown.length} of ${rows.length} ways. A heading sorts.` +
        (measure ? ` “front” is that of the first chart, ${measure.name} against ${size.name}.` : "");
}

/* ---- what it is about ---- */

/* "300", or "128–1,024" where they differ. */
function range(numbers) {
    const ends = [...new Set([Math.min(...numbers), Math.max(...numbers)])].filter(Number.isFinite);
    return ends.map((n) => n.toLocaleString("en")).join("–");
}

/* Which ways lost rows, or nothing. */
function lostWords() {
    const lost = rows.filter((row) => row.lost > 0).map((row) =>
        `${nameOf(row)} ${row.lost} of ${row.query_rows !== undefined ? `${row.query_rows} query rows` : row.predicted !== undefined
            ? `${row.predicted} predictions` : `${row.rows} rows`}`);
    return lost.length > 0 && `Lost, which is finite numbers of which something not finite came: ${lost.join("; ")}. Such ways have no other figures.`;
}

function drawFacts() {
    const first = rows[0] ?? {}, [title, lead] = KINDS[data.kind] ?? ["kvtile eval", ""];
    const queries = data.inputs.filter(({ kind }) => kind === "queries"), own = data.inputs.filter(({ name }) => name === first.input);
    const inputs = own.length > 0 ? own : data.inputs.filter(({ kind }) => kind !== "queries");
    const facts = [
        ["layers", first.layers],
        ["tensors", first.tensors],
        ["tokens", range(inputs.map(({ tokens }) => tokens))],
        ["KV heads", range(inputs.map(({ heads }) => heads))],
        ["query heads", range(queries.map(({ heads }) => heads))],
        ["channels", range(inputs.map(({ dim }) => dim))],
        ["from token", first.from],
        ["query rows", first.query_rows],
        ["tokens predicted", first.predicted],
        ["windows", first.windows],
        ["context", first.context],
        ["exact perplexity", first.exact_perplexity],
        ["first page", first.first],
        ["open page", first.open],
        ["stress", first.stress],
        ["ways of storing", rows.length],
    ].filter(([, value]) => value);
    byId("facts").replaceChildren(...facts.map(([name, value]) =>
        element("div", [element("dt", name), element("dd", typeof value === "number" ? value.toLocaleString("en") : value)])));
    const queried = { true: "Queries are the model's own.", false: "Keys stand for queries, which were not given." }[first.real_queries];
    const of = [first.model && `Model: ${first.model}.`, first.text && `Text: ${first.text}.`, queried];
    byId("lead").textContent = [lead, ...of, lostWords()].filter(Boolean).join(" ");
    byId("title").textContent = title;
    byId("version").textContent = `kvtile ${data.kvtile}`;
    document.title = `${title} – kvtile ${data.kvtile}`;
}

function drawWords() {
    byId("words").replaceChildren(...[...sizes(), ...measures()].flatMap((one) => [element("dt", titleOf(one)), element("dd", one.text)]));
}

function drawOrigin() {
    const quoted = (word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
    const columns = { input: "name", is: "kind", heads: "heads", tokens: "tokens", channels: "dim", "stored as": "dtype" };
    const row = (tag, texts) => element("tr", texts.map((text, i) => element(tag, text, { className: i > 1 && i < 5 ? "number" : "" })));
    const lines = data.inputs.map((input) => row("td", Object.values(columns).map((field) => String(input[field]))));
    byId("command").textContent = ["kvtile", ...data.arguments].map(quoted).join(" ");
    byId("inputs").replaceChildren(element("thead", row("th", Object.keys(columns))), element("tbody", lines));
    byId("inputs").parentElement.hidden = lines.length === 0;
}

/* ---- all of it ---- */

function drawCharts() {
    drawBits();
    drawPosition();
    drawHeat();
}

/* Six lines at most, from one end of the front to the other. */
function chooseLines() {
    const front = frontOf(rows.filter((row) => row.by_position?.length > 0 && row.bits_per_element <= NARROW), SIZES[0], positionMeasures()[0] ?? {});
    const step = Math.max(1, (front.length - 1) / 5);
    lined = new Set(front.filter((_, i) => i === Math.round(Math.round(i / step) * step)));
    return front[front.length >> 1];
}

function drawGroup() {
    rows = groups.get(byId("group").value) ?? [];
    const some = rows.some((row) => row.bits_per_element <= NARROW), all = rows.every((row) => row.bits_per_element <= NARROW);
    fillMeasures("bits-measure", measures());
    fillMeasures("bits-size", sizes());
    fill("bits-range", [...(some && !all ? [["narrow", `up to ${NARROW} bits`]] : []), ["all", "all"]]);
    fillMeasures("position-measure", positionMeasures());
    fill("heat-way", rows.map((row, i) => [String(i), nameOf(row)]), String(Math.max(0, rows.indexOf(chooseLines()))));
    drawFacts();
    drawCharts();
    drawTable();
    drawWords();
}

function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
    drawCharts();
}

const theme = () => document.documentElement.dataset.theme;

fill("group", [...groups.keys()].map((name) => [name, name]));
drawGroup();
drawOrigin();
setTheme(theme());
byId("download").href = URL.createObjectURL(new Blob([JSON.stringify(data, null, 2)], { type: "application/json" }));

const onChange = (id, action) => byId(id).addEventListener("input", action);
onChange("group", drawGroup);
for (const id of ["bits-measure", "bits-size", "bits-range"]) {
    onChange(id, () => {
        drawCharts();
        drawTable();
    });
}
onChange("position-measure", drawPosition);
onChange("heat-measure", drawHeat);
onChange("heat-way", drawHeat);
onChange("filter", drawTable);
onChange("front-only", drawTable);
byId("theme").addEventListener("click", () => setTheme(theme() === "dark" ? "light" : "dark"));
byId("print").addEventListener("click", () => print());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => setTheme(matches ? "dark" : "light"));

/* Paper is light, and as wide as A4 leaves it. */
let before;
addEventListener("beforeprint", () => {
    before = theme();
    setTheme("light");
    charts["bits-chart"]?.resize(690, 400);
    charts["position-chart"]?.resize(690, 290);
});
addEventListener("afterprint", () => setTheme(before));
