# SPDX-License-Identifier: MIT
# The report of `kvtile bench --json` as Markdown: a table for each tier, head_dim and place, a row for each scheme (attend: and group, tokens, threads).
#   build/release/bin/kvtile bench --json | jq -rf bench/table.jq
# A cell has elements per nanosecond and, in brackets, our time over the floor's; of append, over a bulk write's. docs/performance.md says what they are.
def places($n): pow(10; $n) as $one | . * $one | round / $one | tostring;
def cell: if . == null then "" elif .error then .error
  else (.elements_per_ns | if . < 10 then places(2) else places(1) end) + " (" + (.bulk_ratio // .floor_ratio | places(2)) + ")" end;
def table:
  (map({op, side}) | unique_by([(.op | {"write":0, "read":1, "append":2, "import":3, "export":4}[.]), .side])) as $columns
  | (reduce .[] as $r ([]; if index($r.scheme) then . else . + [$r.scheme] end)) as $schemes
  | . as $all
  | "| scheme | " + ($columns | map(.op + " " + (.side | ascii_upcase)) | join(" | ")) + " |",
    "|---|" + ($columns | map("---:|") | join("")),
    ($schemes[] as $s | "| " + $s + " | "
      + ($columns | map(. as $c | first($all[] | select(.scheme == $s and .op == $c.op and .side == $c.side)) // null | cell) | join(" | ")) + " |");
def value($n): if . == null then "" else places($n) end;
def steps:
  "| scheme | group | tokens | threads | µs | GB/s | of reading | of multiplying | f16 tiles | plain f16 |",
  "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
  (.[] | "| \(.scheme)\(if .rope_scheme then "+" + .rope_scheme else "" end) | \(.group) | \(.tokens) | \(.threads) | \(.microseconds | value(if . < 100 then 1 else 0 end)) | \(.gbps_stored | value(1)) | \(.read_share | value(2))"
    + " | \(.multiply_share | value(2)) | \(.f16_speedup | value(2)) | \(.reference_speedup | value(1)) |");
.results | group_by([.op == "attend", .where, .tier, .head_dim])[]
  | "", "\(.[0].tier), head_dim \(.[0].head_dim), \(.[0].where):", "", if .[0].op == "attend" then steps else table end
