# SPDX-License-Identifier: MIT
# Speed: the picture of performance.md, from the numbers of its tables in speed.dat.
#     gnuplot docs/speed.gp >docs/speed.svg
set terminal svg size 1100,460 font 'sans-serif,14' dynamic background 'white' noenhanced
data = system("dirname '" . ARG0 . "'") . '/speed.dat'
set style data histogram
set style histogram clustered gap 1
set style fill solid noborder
set grid y lw 0.5
set border 3
set tics nomirror
set xtics rotate by -45
set yrange [0:*]
set key top left Left reverse samplen 1
set multiplot layout 1,2 margins 0.06,0.98,0.16,0.9 spacing 0.08,0

set title 'Decode step from memory: times as fast as on f16 tiles'
plot 1 with lines lc rgb '#808080' dt 2 notitle, \
    data using 2:xtic(1) lc rgb '#1040a0' title 'avx512icl', \
    data using 3 lc rgb '#90b0e0' title 'avx2'

set title 'Keys in the L2 cache, avx512icl: elements per nanosecond'
plot data using 5:xtic(1) lc rgb '#1040a0' title 'read to f32', \
    data using 4 lc rgb '#b05010' title 'written from f32, default effort'
unset multiplot
