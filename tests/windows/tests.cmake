# SPDX-License-Identifier: MIT
# What of the tests Windows cannot do. KVT_NOT_HERE_TEST: why there is no such test; KVT_FAILS_HERE_TEST: lines of a script that must fail.
set(KVT_NOT_HERE_test_stack "winpthreads has no pthread_attr_setstack, by which a thread is given a stack that is looked at")
set(KVT_NOT_HERE_test_cli_outputs "it tries devices, pipes, links, modes, owners, limits and signals, as POSIX has them")
set(KVT_NOT_HERE_test_cli_size_plot "gnuplot is not called on Windows")
# Tests that are not built here at all; tests/CMakeLists.txt adds them in the end.
set(KVT_NOT_HERE_test_allocations "no library is preloaded on Windows")
set(KVT_NOT_HERE_test_cli_compare "it compares shared libraries, which are not built for Windows")
set(KVT_NOT_HERE_check_install "it looks at shared libraries, which are not built for Windows")
set(KVT_NOT_HERE_check_example "it looks at shared libraries, which are not built for Windows")
set(KVT_NOT_HERE_check_snippets "documents are the same everywhere, and the native compiler reads them")
set(KVT_NOT_HERE_example_large "it has huge pages by calls of Linux")
set(KVT_NOT_HERE_example_raii "C++ has no std::aligned_alloc on Windows")
set(KVT_NOT_HERE test_allocations test_cli_compare check_install check_example check_snippets example_large example_raii)
# Lines of scripts.
set(KVT_FAILS_HERE_test_cli_size "--plot without gnuplot")
# Windows does not replace a file that is mapped, as the input is.
set(KVT_FAILS_HERE_test_cli_convert "same: cannot be written: Permission denied")
# Names of files have no quotes there; --latent needs LAPACKE, which has no package for mingw-w64.
set(KVT_FAILS_HERE_test_cli_eval "a \"b\", c.qvkt|--csv: (quotes|not 2 lines)|--latent|basis|rank")
# The same, and /dev/full has no reason there.
set(KVT_FAILS_HERE_test_report "--latent|latent.html|hostile|a name ends a script|names are not as they were|/dev/full|a full device")
