# SPDX-License-Identifier: MIT
# What a bit costs: the picture of accuracy.md, from the tables of `kvtile eval --csv` in one folder.
#     gnuplot -e "from='FOLDER'" docs/accuracy.gp >docs/accuracy.svg
set terminal svg size 1100,1150 font 'sans-serif,14' dynamic background 'white' noenhanced
set datafile separator comma
set logscale y
set xrange [3:9.4]
set xtics 1
set format y '%.0e'
set xlabel 'bits per element, without the first page and the open one'
set grid lw 0.5
set border 3
set tics nomirror
set key bottom left Left reverse samplen 1
set multiplot layout 2,2 margins 0.07,0.98,0.06,0.96 spacing 0.09,0.11

bits = 'bits_per_element'
ours(centring, what) = strcol('centring') eq centring ? column(what) : NaN
# Where labels have room: left, right, or right and higher.
side(scheme) = scheme eq 'mxfp4' || scheme eq 'turboquant4' || scheme eq 'fp8_tensor' ? -1 : scheme eq 'nvfp4' ? 2 : 1
theirs(where, what) = side(strcol('scheme')) == where ? column(what) : NaN

do for [panel in '1 2 3 4'] {
    table = word('attention attention model outliers', int(panel))
    what = word('kl_mean output_error kld_mean kld_mean', int(panel))
    own = from . '/' . table . '.csv'
    others = from . '/' . table . '_others.csv'
    set title panel == 1 ? 'Attention: divergence of the weights' : panel == 2 ? 'Attention: error of the output' : \
        panel == 3 ? "The demonstration's model: divergence of its predictions" : 'The same model, with outliers in keys and values'
    plot others using bits:what with points pt 6 lc rgb '#b05010' title "other engines' formats, rotated", \
        others using bits:(theirs(-1, what)):(strcol('scheme')) with labels right offset -0.8,0 tc rgb '#b05010' font ',10' notitle, \
        others using bits:(theirs(1, what)):(strcol('scheme')) with labels left offset 0.8,0 tc rgb '#b05010' font ',10' notitle, \
        others using bits:(theirs(2, what)):(strcol('scheme')) with labels left offset 0.8,0.6 tc rgb '#b05010' font ',10' notitle, \
        own using bits:(ours('none', what)) with points pt 4 lc rgb '#6080c0' title 'kvtile, rotated', \
        own using bits:(ours('own', what)) with points pt 7 lc rgb '#1040a0' title 'kvtile, rotated, with own centres', \
        own using bits:(ours('own', what)):(strcol('scheme')) with labels right offset -0.6,-0.6 tc rgb '#1040a0' font ',10' notitle
    unset key
}
unset multiplot
