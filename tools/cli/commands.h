/* SPDX-License-Identifier: MIT */
/* The subcommands of `kvtile`. Each takes its own arguments (argv[0] is the subcommand's name), prints results on stdout, errors on stderr
 * as one line "kvtile <command>: <argument>: <what is wrong and what would be right>", and returns the exit code: 0 only on success,
 * 2 for arguments that cannot be understood, 1 for everything else. */
#ifndef KVT_COMMANDS_H
#define KVT_COMMANDS_H

int kvt_cmd_size(int argc, const char **argv);
int kvt_cmd_eval(int argc, const char **argv);
int kvt_cmd_convert(int argc, const char **argv);
int kvt_cmd_bench(int argc, const char **argv);
int kvt_cmd_inspect(int argc, const char **argv);
int kvt_cmd_store(int argc, const char **argv);
int kvt_cmd_info(int argc, const char **argv);

#endif
