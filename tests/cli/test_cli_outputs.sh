#!/bin/sh
# SPDX-License-Identifier: MIT
# Where the commands write: devices, pipes, links, modes, full and closed outputs, signals; and what names of files can do to terminals, plots and sheets.
# Usage: test_cli_outputs.sh JQ DEMO ENGINE KVTILE [EMULATOR...]
set -eu
arguments=demo
# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"
mkdir "${work:?}/files"
cd "$work/files"

# ---- what there is to write: a head of 1 and of 2048 tokens, a model
rows() { # rows TOKENS: that many rows of 32 zeros
    printf 'QVKT\0\0\0\0\1\0\0\0'
    # shellcheck disable=SC2059
    printf "$(printf '\\%03o\\%03o' $(($1 % 256)) $(($1 / 256)))\\0\\0\\040\\0\\0\\0"
    head -c $((128 * $1)) /dev/zero
}
rows 1 >one.qvkt
rows 2048 >many.qvkt
mkdir model
config='{"model_type":"llama","num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"hidden_size":256,"head_dim":64,"max_position_embeddings":4096}'
echo "$config" >model/config.json
weights="$demo/gutenberg-3.5M.f16.bin"
words="--tokenizer $demo/tok2048.bin"

to_q8() { # to_q8 INPUT OUTPUT [EMULATOR...]
    input=$1
    output=$2
    shift 2
    run "$@" "$kvtile" convert "$input" --to ggml_q8_0 -o "$output"
}

no_temporary() { # no_temporary WHAT
    [ -z "$(find . -name '.kvtile-*')" ] || fail "$1: a temporary file is left: $(find . -name '.kvtile-*')"
}

# ---- files, and what is no file
to_q8 one.qvkt good.q8 "$@"
[ "$(wc -c <good.q8)" -eq 34 ] || fail "34 bytes would be right"
if [ "$(id -u)" -eq 0 ] && mknod null c 1 3 2>/dev/null; then
    to_q8 one.qvkt null "$@"
    [ -c null ] || fail "a device is replaced"
else
    echo "not run: a device node of its own"
fi
mkfifo pipe
cat pipe >from_pipe &
reader=$!
to_q8 one.qvkt pipe "$@"
wait "$reader"
[ -p pipe ] || fail "a pipe is replaced"
cmp good.q8 from_pipe || fail "a pipe carries something else"
expect_error 1 "nobody reads from it" "$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o pipe
[ -p pipe ] || fail "a pipe without a reader is replaced"
mkdir elsewhere
echo old >elsewhere/target
ln -s elsewhere/target link
ln -s ../link elsewhere/back
to_q8 one.qvkt elsewhere/back "$@"
if [ ! -L link ] || [ ! -L elsewhere/back ]; then fail "a link is replaced"; fi
cmp good.q8 elsewhere/target || fail "a link's target is not replaced"
ln -s elsewhere/new dangling
to_q8 one.qvkt dangling "$@"
[ -L dangling ] || fail "a link to nothing is replaced"
cmp good.q8 elsewhere/new || fail "a link's target is not made"
ln -s loop loop
expect_error 1 "Too many levels of symbolic links" "$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o loop
for mode in 600 640 755; do
    echo old >secret
    chmod "$mode" secret
    to_q8 one.qvkt secret "$@"
    [ "$(stat -c %a secret)" = "$mode" ] || fail "mode $mode became $(stat -c %a secret)"
done
if [ "$(id -u)" -eq 0 ]; then
    chown 12345:23456 secret
    to_q8 one.qvkt secret "$@"
    [ "$(stat -c %u:%g secret)" = 12345:23456 ] || fail "the owner became $(stat -c %u:%g secret)"
fi
(umask 027 && to_q8 one.qvkt masked "$@")
[ "$(stat -c %a masked)" = 640 ] || fail "umask 027 gives $(stat -c %a masked)"
for path in nowhere/file elsewhere "" one.qvkt/file model/; do
    expect_error 1 "cannot be written" "$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o "$path"
done
"$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o /dev/stdout >both || fail "-o /dev/stdout"
head -c 34 both | cmp - good.q8 || fail "-o /dev/stdout does not come first"
[ "$(tail -c +35 both | wc -l)" -eq 1 ] || fail "-o /dev/stdout: what was printed is lost"
no_temporary "files"

# ---- no room: a limit on the size of files, a full device, a full disk
check_old() { # check_old WHAT: the file "old" is as it was
    [ "$(cat old 2>/dev/null)" = "as it was" ] || fail "$1: the old output is touched"
    no_temporary "$1"
}
no_room() { # no_room TEXT COMMAND...: fails with TEXT, and "old" stays
    rm -rf old
    echo "as it was" >old
    text=$1
    shift
    expect_error 1 "$text" "$@"
    check_old "$*"
}
# limited BLOCKS COMMAND...: under `ulimit -f`, its output to no file
limited() {
    blocks=$1
    shift
    sh -c "ulimit -f $blocks"'; exec "$@"' sh "$@"
}
# As few tokens as are more than a block of 512 bytes.
no_room "File too large" limited 1 "$@" "$kvtile" convert many.qvkt --to ggml_q8_0 -o old
no_room "File too large" limited 1 "$@" "$engine" export --model "$weights" --out old
# shellcheck disable=SC2086
no_room "File too large" limited 1 "$@" "$engine" capture --model "$weights" $words --text "$demo/chesterton-brown.txt" --tokens 2 --out captured
[ -z "$(find captured -type f)" ] || fail "a part of what was captured is left"
if "$@" "$kvtile" eval one.qvkt --no-speed --report page.html >"$work/stdout" 2>&1; then
    cp page.html kept.html
    limited 100 "$@" "$kvtile" eval one.qvkt --no-speed --report page.html >/dev/null 2>&1 && fail "a page within a limit"
    cmp page.html kept.html || fail "a page is replaced by half of one"
else
    echo "not run: pages, which this kvtile was built without"
fi
if command -v gnuplot >"$work/result"; then
    rm -f old
    echo "as it was" >old
    limited 4 "$@" "$kvtile" size model --plot old >/dev/null 2>"$work/stderr" && fail "a plot within a limit"
    grep -q "File too large" "$work/stderr" || fail "a plot within a limit: $(cat "$work/stderr")"
    check_old "a plot within a limit"
else
    echo "not run: plots, for which there is no gnuplot"
fi
expect_error 1 "No space left on device" "$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o /dev/full
if [ "$(id -u)" -eq 0 ] && mkdir disk && mount -t tmpfs -o size=16k none disk 2>/dev/null; then
    echo "as it was" >disk/old
    expect_error 1 "No space left on device" "$@" "$kvtile" convert many.qvkt --to ggml_q8_0 -o disk/old
    [ "$(cat disk/old)" = "as it was" ] || fail "a full disk: the old output is touched"
    expect_error 1 "No space left on device" "$@" "$kvtile" convert many.qvkt --to ggml_q8_0 -o disk/new
    [ "$(find disk -type f)" = disk/old ] || fail "a full disk: left behind: $(find disk -type f)"
    umount disk
else
    echo "not run: a full disk, which takes the right to mount one"
fi

# ---- the standard output: full, closed
mute() { # mute COMMAND...: says that its output goes nowhere
    for how in '>/dev/full' '>&-' '<&- >&-'; do
        got=0
        eval '"$@"' "$how" 2>"$work/stderr" || got=$?
        [ "$got" -eq 1 ] || fail "exit code $got, not 1, with $how: $*"
        grep -q "cannot be written" "$work/stderr" || fail "no message with $how: $*: $(cat "$work/stderr")"
    done
}
for command in "" size eval convert bench info; do
    # shellcheck disable=SC2086
    "$@" "$kvtile" $command --help >"$work/stdout" 2>&1 || continue # built without benchmarks
    # shellcheck disable=SC2086
    mute "$@" "$kvtile" $command --help
done
mute "$@" "$kvtile" --version
mute "$@" "$kvtile" info
mute "$@" "$kvtile" info --json
mute "$@" "$kvtile" size --list
mute "$@" "$kvtile" size gemma-4-E2B
mute "$@" "$kvtile" size model --json
mute "$@" "$kvtile" size --table
for form in "" --json --csv "--report -"; do
    # shellcheck disable=SC2086
    mute "$@" "$kvtile" eval one.qvkt --schemes kv4 --no-speed $form
done
mute "$@" "$kvtile" eval --attention many.qvkt many.qvkt --side auto --help
mute "$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o new.q8
mute "$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o new.q8 --json
mute "$@" "$engine" --help
# shellcheck disable=SC2086
{
    mute "$@" "$engine" generate --model "$weights" $words --prompt "Father" --tokens 2
    mute "$@" "$engine" perplexity --model "$weights" $words --text "$demo/chesterton-brown.txt" --tokens 3
    mute "$@" "$engine" perplexity --model "$weights" $words --text "$demo/chesterton-brown.txt" --tokens 3 --schemes kv4
    mute "$@" "$engine" capture --model "$weights" $words --text "$demo/chesterton-brown.txt" --tokens 2 --out captured
}
bench="${kvtile%/*}/kvtile-bench"
if [ -x "$bench" ]; then
    quick="--benchmark_filter=read/q8_0/k/scalar/64/f32/plain/l2 --benchmark_min_time=0.001"
    # shellcheck disable=SC2086
    {
        mute "$@" "$bench" --help
        mute "$@" "$bench" --benchmark_list_tests
        mute "$@" "$bench" $quick
        mute "$@" "$kvtile" bench --quick --schemes q8_0 --ops read --side k --where l2
        mute "$@" "$kvtile" bench --quick --schemes q8_0 --ops read --side k --where l2 --json
        mute "$@" "${kvtile%/*}/kvtile-count" --help
        mute "$@" "${kvtile%/*}/kvtile-count" --list
        run "$@" "$bench" $quick --benchmark_out=bench.json
        "$jq" -e '.benchmarks[0].name | test("^read/q8_0/")' bench.json >"$work/result" || fail "--benchmark_out"
        run "$@" "$bench" $quick --benchmark_out=bench.csv --benchmark_out_format=csv
        grep -q '^"read/q8_0/' bench.csv || fail "--benchmark_out_format=csv"
        for target in /dev/full old nowhere/file; do
            echo "as it was" >old
            if limited 1 "$@" "$bench" $quick --benchmark_out="$target" >"$work/stdout" 2>"$work/stderr"; then fail "--benchmark_out=$target"; fi
            grep -q "$target: cannot be written" "$work/stderr" || fail "--benchmark_out=$target: $(cat "$work/stderr")"
            check_old "--benchmark_out=$target"
        done
    }
else
    echo "not run: benchmarks, which are not built"
fi
# No file gets the number of a closed descriptor: nothing but itself is in it.
"$@" "$kvtile" convert one.qvkt --to ggml_q8_0 -o closed.q8 <&- >&- 2>&- && fail "closed descriptors"
cmp good.q8 closed.q8 || fail "closed descriptors: something else is in the file"
if command -v gnuplot >"$work/result"; then
    run "$@" "$kvtile" size model --plot whole.svg
    "$@" "$kvtile" size model --plot closed.svg >&- 2>"$work/stderr" && fail "--plot with a closed output"
    cmp whole.svg closed.svg || fail "--plot with a closed output: another picture"
fi

# ---- signals: whole or as it was, and nothing else
rows 65535 >large.qvkt
run "$@" "$kvtile" convert large.qvkt --to ggml_q4_0 -o large.q4
signals="HUP INT QUIT TERM USR1 ALRM"
[ $# -eq 0 ] || signals="INT TERM" # an emulator takes its time
for signal in $signals; do
    for wait in 0 0.003 0.01 0.02 0.04; do
        echo "as it was" >old
        # From a shell of its own: in the background of this one SIGINT and SIGQUIT are ignored.
        sh -c 'trap - INT QUIT; exec "$@"' sh "$@" "$kvtile" convert large.qvkt --to ggml_q4_0 -o old >"$work/stdout" 2>&1 &
        sleep "$wait"
        kill -s "$signal" $! 2>/dev/null || true
        wait $! 2>/dev/null || true
        [ "$(head -c 10 old)" = "as it was" ] || cmp old large.q4 || fail "SIG$signal after $wait s: a part of the output"
        no_temporary "SIG$signal after $wait s"
    done
done

# ---- names: as data, never as what another program does
control() { # control FILE: whether it has a character that steers a terminal
    LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]' "$1"
}
tamed() { # tamed COMMAND...: whatever it says, it has none of them
    "$@" >"$work/stdout" 2>"$work/stderr" || true
    cat "$work/stdout" "$work/stderr" >"$work/said"
    [ -s "$work/said" ] || fail "says nothing: $*"
    tr -d '\r' <"$work/said" >"$work/result"
    if control "$work/result"; then fail "control characters: $(cat -v "$work/said")"; fi
}
set_of_bytes='\033]0;t\a \302\2331m \177 \342\200\256x \342\201\246x \r\n \377'
[ $# -eq 0 ] || set_of_bytes='\302\2331m \342\200\256x'
for bytes in $set_of_bytes; do
    # shellcheck disable=SC2059
    name="$(printf "$bytes").k"
    mkdir "$name.d"
    echo "$config" >"$name.d/config.json"
    cp one.qvkt "$name.qvkt"
    echo "$config" >"$name.json"
    tamed "$@" "$kvtile" "$name"
    tamed "$@" "$kvtile" size "$name"
    tamed "$@" "$kvtile" size "$name.d"
    tamed "$@" "$kvtile" size "$name.json" "$name.d" --ctx 1m
    tamed "$@" "$kvtile" size "$name.d" --json
    "$jq" -e .model "$work/stdout" >"$work/result" || fail "--json with $bytes"
    for form in "" --json --csv; do
        # shellcheck disable=SC2086
        tamed "$@" "$kvtile" eval "$name.qvkt" --schemes kv4 --no-speed $form
    done
    tamed "$@" "$kvtile" eval "$name.qvkt" --schemes "$name" --rotation "$name"
    tamed "$@" "$kvtile" convert "$name.qvkt" --to ggml_q8_0 -o "$name.q8" --json
    tamed "$@" "$kvtile" convert "$name.qvkt" --to "$name" -o x
    tamed "$@" "$kvtile" "--$name"
    tamed "$@" "$engine" "$name"
    # shellcheck disable=SC2086
    tamed "$@" "$engine" capture --model "$weights" $words --text "$demo/chesterton-brown.txt" --tokens 1 --out "$name.captured"
    tamed "$@" "$engine" export --model "$name.json" --out x
done
# What a model says: to a terminal without them, to others as it is.
cat >terminal.py <<'PYTHON'
import os, pty, sys
said = []
def read(descriptor):
    said.append(os.read(descriptor, 1024))
    return said[-1]
status = pty.spawn(sys.argv[1:], read)
sys.exit(os.waitstatus_to_exitcode(status))
PYTHON
prompt=$(printf 'a\033]0;t\a\302\233b\303\251\342\200\256c\td\377e')
# shellcheck disable=SC2086
{
    run python3 terminal.py "$@" "$engine" generate --model "$weights" $words --prompt "$prompt" --tokens 1
    tr -d '\r' <"$work/stdout" >"$work/result"
    if control "$work/result"; then fail "control characters of a text: $(cat -v "$work/result")"; fi
    grep -qF "$(printf 'a\\x1b]0;t\\x07\\u009bb\303\251\\u202ec\td\\xffe')" "$work/result" || fail "a text on a terminal: $(cat -v "$work/result")"
    run "$@" "$engine" generate --model "$weights" $words --prompt "$prompt" --tokens 1
    grep -qaF "$prompt" "$work/stdout" || fail "a text is another one"
}
# The bytes of such a name are in JSON as they were.
name=$(printf '\342\200\256x.k')
run "$@" "$kvtile" convert "$name.qvkt" --to ggml_q8_0 -o x --json
[ "$("$jq" -r .input "$work/stdout")" = "$name.qvkt" ] || fail "a name in JSON is another one"

cp one.qvkt "=1+1,k.qvkt"
run "$@" "$kvtile" eval "=1+1,k.qvkt" --schemes kv4 --no-speed --csv
grep -q "^\"'=1+1,k.qvkt\"," "$work/stdout" || fail "a formula in CSV: $(cat "$work/stdout")"
expect_error 2 "--csv: and --json" "$@" "$kvtile" eval one.qvkt --csv --json

if command -v gnuplot >"$work/result"; then
    # shellcheck disable=SC2016
    for name in 'x`touch PWNED`' '$(touch PWNED)' 'a"; system("touch PWNED"); "' "b'.system('touch PWNED').'" '@c\n<b>&amp;' '{Bold d}^2_3'; do
        mkdir "./$name"
        echo "$config" >"./$name/config.json"
        rm -f plot.svg
        run "$@" "$kvtile" size "./$name" --plot plot.svg
        [ ! -e PWNED ] || fail "a name is a command: $name"
        python3 -c 'import sys, xml.dom.minidom as dom
texts = [e.firstChild.data for e in dom.parse("plot.svg").getElementsByTagName("text")]
name = sys.argv[1].replace("\"", "\x27").replace("\\", "/") + " f16"
sys.exit(not any(t.strip() == name for t in texts))' "$name" || fail "a name is another one in a plot: $name"
    done
    mkdir "$(printf '%0200d' 0)"
    echo "$config" >"$(printf '%0200d' 0)/config.json"
    run "$@" "$kvtile" size "$(printf '%0200d' 0)" --plot plot.svg
    grep -q '>00*\.\.\. f16<' plot.svg || fail "a plot with a long name has no titles"
fi

finish
