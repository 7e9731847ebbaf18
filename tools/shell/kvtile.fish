# SPDX-License-Identifier: MIT
# Completion for fish: commands and options are what the programs themselves list, the rest is files.
complete -c kvtile -n __fish_use_subcommand -f -a "(kvtile --options 2>/dev/null)"
complete -c kvtile -n __fish_use_subcommand -l help -l version
complete -c kvtile -n "not __fish_use_subcommand; and string match -q -- '-*' (commandline -ct)" -f \
    -a "(kvtile --options (commandline -opc)[2] 2>/dev/null)"
complete -c kvtile-engine -n __fish_use_subcommand -f -a "generate chat perplexity capture export"
complete -c kvtile-engine -n "string match -q -- '-*' (commandline -ct)" -f -a "(kvtile-engine --options 2>/dev/null)"
