/* SPDX-License-Identifier: MIT */
"use strict";
/* What kvtile eval measures, a row for each field of its JSON that is a number. Fields that the data does not have are left out everywhere.
 *   log      the axis is logarithmic
 *   high     more is better
 *   percent  a share, shown times 100; change: a ratio, shown as what it has more than 1, in percent
 *   digits   behind the point; three that count when it is not given
 */
const MEASURES = [
    { key: "kl_mean", name: "KL mean", unit: "nats", log: true,
      text: "Kullback-Leibler divergence of the attention weights from the exact ones, mean of all query rows." },
    { key: "kl_p99", name: "KL 99 %", unit: "nats", log: true, text: "The divergence that 99 % of the query rows do not exceed." },
    { key: "kl_max", name: "KL max", unit: "nats", log: true, text: "The divergence of the worst query row." },
    { key: "kld_mean", name: "KLD mean", unit: "nats", log: true,
      text: "Kullback-Leibler divergence of the model's next-token distribution from the one with the exact cache, mean of all tokens." },
    { key: "kld_p99", name: "KLD 99 %", unit: "nats", log: true, text: "The divergence that 99 % of the tokens do not exceed." },
    { key: "kld_p999", name: "KLD 99.9 %", unit: "nats", log: true, text: "The divergence that 99.9 % of the tokens do not exceed." },
    { key: "kld_max", name: "KLD max", unit: "nats", log: true, text: "The divergence of the worst token." },
    { key: "perplexity_ratio", name: "perplexity", unit: "% more", change: true, digits: 3,
      text: "Change of the perplexity against the exact cache. It goes up and down with luck: the divergence is the number to compare." },
    { key: "same_top", name: "same top", unit: "%", percent: true, high: true, digits: 2,
      text: "How often the first choice stays: of query rows the most attended token, of a model the likeliest next token." },
    { key: "output_error", name: "output error", unit: "%", percent: true, log: true,
      text: "Error of attention's output as it is computed: root of the energy of the error over that of the exact output." },
    { key: "output_error_of_codes", name: "error of codes", unit: "%", percent: true, log: true,
      text: "The same of exact arithmetic on the stored codes: the output error without what the library's arithmetic adds." },
    { key: "snr_db", name: "SNR", unit: "dB", high: true, digits: 2,
      text: "Energy of the rows over energy of the error; 6 dB are a bit. “exact”: no error, “lost”: some row of finite numbers did not come back finite." },
    { key: "centred_snr_db", name: "centred SNR", unit: "dB", high: true, digits: 2,
      text: "The same with the energy of the rows' deviation from their mean: an offset that all tokens share carries no information." },
    { key: "latent_snr_db", name: "latent SNR", unit: "dB", high: true, digits: 2,
      text: "Energy of the latents' deviation from their mean over energy of the error." },
    { key: "rope_snr_db", name: "rotary SNR", unit: "dB", high: true, digits: 2, text: "The same of the rotary parts." },
    { key: "max_abs_error", name: "max error", log: true, text: "Largest difference of one number." },
    { key: "write_gbps", name: "write", unit: "GB/s", high: true, digits: 2, text: "10⁹ bytes of f32 rows stored per second, one thread." },
    { key: "read_gbps", name: "read", unit: "GB/s", high: true, digits: 2, text: "10⁹ bytes of f32 rows read back per second, one thread." },
];

/* What it takes. */
const SIZES = [
    { key: "bits_per_element", name: "bits", axis: "bits of a stored number", digits: 3,
      text: "Stored bits per number of a full page: codes, scales, centres and padding." },
    { key: "pair_bits_per_element", name: "pair bits", axis: "bits of a stored number, keys and values in a page", digits: 3,
      text: "The same of a page that holds keys and values, both so stored." },
    { key: "bits_all_told", name: "bits, all pages", axis: "bits of a stored number, all pages counted", digits: 3,
      text: "Bits per number of the whole cache as measured, with the pages that are stored otherwise." },
    { key: "bytes_per_token", name: "bytes/token", axis: "bytes of a token", digits: 0, text: "Bytes of one token in all heads." },
];

/* A heading and a sentence for each kind of measurement. */
const KINDS = {
    rows: ["Rows, stored and read back", "What each way of storing keys and values costs: stored bits against what comes back."],
    attention: ["Attention over a stored KV cache", "How far attention's weights and outputs move when keys and values take fewer bits, " +
        "beside attention over the rows as they were, in double precision."],
    latent: ["Attention over stored latents", "How far attention's weights and outputs move when latents take fewer bits, " +
        "beside attention over the rows as they were, in double precision."],
    model: ["A model with a stored KV cache", "How far a model's predictions of the next token move when its KV cache takes fewer bits, " +
        "beside the same model with the exact cache."],
};

const NARROW = 10; /* bits: wider formats are shown when they are asked for */

/* ---- numbers as people read them ---- */

function scaled(value, measure) {
    if (measure.percent)
        return 100 * value;
    return measure.change ? 100 * (value - 1) : value;
}

/* null where there is none, Infinity for "exact". */
function valueOf(row, measure) {
    const value = row[measure.key];
    if (measure.unit === "dB" && value === null && row.max_abs_error === 0)
        return Infinity;
    return typeof value === "number" ? scaled(value, measure) : null;
}

/* The "low" or "high" end of the confidence interval, or null. */
function endOf(row, measure, end) {
    const value = row[`${measure.key}_${end}`], log = row[`log_${measure.key}_${end}`];
    if (typeof value === "number")
        return scaled(value, measure);
    return typeof log === "number" ? scaled(Math.exp(log), measure) : null;
}

function textOf(value, measure) {
    if (value === null || value === undefined)
        return "–";
    if (value === Infinity)
        return "exact";
    if (measure.digits !== undefined)
        return value.toFixed(measure.digits);
    if (value === 0)
        return "0";
    return Math.abs(value) < 0.001 || Math.abs(value) >= 1000 ? value.toExponential(2) : value.toPrecision(3);
}

/* Speed is measured all the same. */
function isLost(row, measure) {
    return row.lost > 0 && row[measure.key] === null && measure.unit !== "GB/s";
}

function cellText(row, measure) {
    return isLost(row, measure) ? "lost" : textOf(valueOf(row, measure), measure);
}

function titleOf(measure) {
    return measure.unit ? `${measure.name}, ${measure.unit}` : measure.name;
}

function isBetter(measure, a, b) {
    return measure.high ? a > b : a < b;
}

/* Rows that no other row beats with as few bits, the fewest first. */
function frontOf(rows, size, measure) {
    const front = [];
    const order = (a, b) => a[size.key] - b[size.key] || (isBetter(measure, valueOf(a, measure), valueOf(b, measure)) ? -1 : 1);
    for (const row of rows.filter((one) => typeof one[size.key] === "number" && valueOf(one, measure) !== null).sort(order)) {
        if (front.length === 0 || isBetter(measure, valueOf(row, measure), valueOf(front.at(-1), measure)))
            front.push(row);
    }
    return front;
}

/* ---- ways of storing ---- */

function isSet(word) {
    return word !== null && word !== undefined && word !== "none";
}

function schemeOf(row) {
    return row.format ?? row.scheme ?? "?";
}

function detailOf(row) {
    return isSet(row.fp8_block) ? `${row.fp8_block} ${row.fp8_scale}` : row.effort;
}

const OTHERS = "other engines' formats";

/* What is done to rows before they become codes: one colour and one shape each. */
function treatmentOf(row) {
    const words = row.peer ? [OTHERS] : [];
    if (isSet(row.rank))
        words.push(`rank ${row.rank}`);
    if (isSet(row.rotation))
        words.push(row.rotation === "own" ? "own rotation" : `rotation ${row.rotation}`);
    if (isSet(row.centring))
        words.push(`${row.centring} centres`);
    return words.join(", ") || (row.scheme ? "plain" : OTHERS);
}

function nameOf(row) {
    const words = [schemeOf(row)], treatment = treatmentOf(row).replace(/^other engines' formats(, )?/, ""), detail = detailOf(row);
    if (treatment !== "plain" && treatment !== "")
        words.push(treatment);
    if (isSet(detail) && detail !== "default" && detail !== "row f32")
        words.push(detail);
    return words.join(", ");
}

/* Columns of the table that say what the way is. */
const WAY = [
    { name: "format", get: schemeOf },
    { name: "rank", get: (row) => row.rank, number: true },
    { name: "rotation", get: (row) => row.rotation },
    { name: "centring", get: (row) => row.centring },
    { name: "detail", get: detailOf },
];
