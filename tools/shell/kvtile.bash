# SPDX-License-Identifier: MIT
# Completion for bash: commands and options are what the programs themselves list, the rest is files.
# shellcheck shell=bash
_kvtile() {
    local current=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} words
    COMPREPLY=()
    if [[ ${program##*/} == kvtile-engine ]]; then
        words="$("$program" --options 2>/dev/null)"
        [[ $COMP_CWORD -eq 1 ]] && words+=" generate chat perplexity capture export"
    elif [[ $COMP_CWORD -eq 1 ]]; then
        words="$("$program" --options 2>/dev/null) --help --version"
    else
        words="$("$program" --options "${COMP_WORDS[1]}" 2>/dev/null)"
    fi
    if [[ $current == -* || $COMP_CWORD -eq 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    else
        compopt -o default 2>/dev/null
    fi
}
complete -F _kvtile kvtile kvtile-engine
