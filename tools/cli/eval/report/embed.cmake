# SPDX-License-Identifier: MIT
# Puts the page's parts together, and writes them as C: two arrays of bytes, since C has limits for strings.
#   cmake -D FROM=FOLDER -D CHART=FILE -D TO=FILE -P embed.cmake
foreach(part page.html page.css measures.js page.js)
  file(READ ${FROM}/${part} ${part})
endforeach()
file(READ ${CHART} chart)
string(REGEX REPLACE "//# sourceMappingURL=[^\n]*" "" chart "${chart}") # a browser would ask for it
if(chart MATCHES "</script")
  message(FATAL_ERROR "${CHART} would end the script that it stands in")
endif()

set(page "${page.html}")
string(REPLACE "/* page.css */" "${page.css}" page "${page}")
string(REPLACE "/* chart.js */" "${chart}" page "${page}")
string(REPLACE "/* measures.js */" "${measures.js}" page "${page}")
string(REPLACE "/* page.js */" "${page.js}" page "${page}")
set(mark "{/* data */}")
string(FIND "${page}" "${mark}" at)
string(LENGTH "${mark}" length)
math(EXPR after "${at} + ${length}")
string(SUBSTRING "${page}" 0 ${at} head)
string(SUBSTRING "${page}" ${after} -1 tail)

set(text "/* Made by tools/cli/eval/report/embed.cmake. */\n#include <stddef.h>\n")
foreach(name head tail)
  string(LENGTH "${${name}}" bytes)
  string(HEX "${${name}}" hex)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
  string(APPEND text "extern const unsigned char eval_page_${name}[];\nconst unsigned char eval_page_${name}[] = {\n${hex}\n};\n"
                     "extern const size_t eval_page_${name}_bytes;\nconst size_t eval_page_${name}_bytes = ${bytes};\n")
endforeach()
file(WRITE ${TO} "${text}")
