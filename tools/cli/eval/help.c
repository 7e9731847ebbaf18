/* SPDX-License-Identifier: MIT */
/* What kvtile eval says of itself. */
#include "tools/cli/eval/job.h"

#include <stdio.h>

/* One screen of 80 columns. */
static const char BRIEF[] = "Examples:\n"
                            "  kvtile eval keys.npy values.npy                      rows stored and read back\n"
                            "  kvtile eval --attention keys.npy values.npy queries.npy --schemes q8_0,kv5,kv4\n"
                            "  kvtile eval --latent glm_layer3.npy --rope-dim 64    latents of MLA\n"
                            "  kvtile eval --budget 4.75 captured/*                 a scheme for each layer\n"
                            "  kvtile eval --model Llama.gguf --text t.txt --schemes quality,balanced,kv4\n"
                            "\n"
                            "Stores your keys, values or a model's whole cache in each scheme, and reports\n"
                            "exact bytes, accuracy and speed. INPUTs are .npy, .npz, .safetensors or QVKT.\n"
                            "\n"
                            "  --schemes LIST      kv4,q8_0, pairs such as kv5/kv4, presets (quality,\n"
                            "                      balanced, compact, tight), \"peers\"; default: all\n"
                            "  --rotation LIST     none, 64, 128          --centring LIST  none, page, own\n"
                            "  --side k|v          of inputs whose names do not say it\n"
                            "  --order token,head,dim   of arrays that are not [head][token][dim]\n"
                            "  --mean              only what is summed up over all inputs\n"
                            "  --no-speed          the quick way\n"
                            "  --report FILE.html  a page to look at       --json, --csv    for programs\n"
                            "\n"
                            "kvtile eval --help-all has every option, the columns and the formats.\n";

static const char HELP[] =
    "Usage: kvtile eval INPUT... [options]\n"
    "       kvtile eval --attention INPUT... [options]\n"
    "       kvtile eval --latent INPUT... [options]\n"
    "       kvtile eval --budget BITS|BYTES INPUT... [options], or --max-kl X\n"
    "       kvtile eval --model MODEL [--tokenizer FILE] --text FILE [options]\n"
    "Stores the rows of each INPUT in each scheme, with each rotation, centring and effort, reads them back, and reports exact bytes, accuracy and\n"
    "speed: the largest first, of equal size the most accurate first. Several inputs of one side are also summed up.\n"
    "\n"
    "With --attention the first keys, the first values and the first queries among the inputs are a layer, the second ones the next, and what is\n"
    "reported is what causal attention makes of them: the divergence of its weights and the error of its output.\n"
    "\n"
    "With --latent inputs without values are latents of MLA, [token][latent and rotary part], and queries are absorbed ones: they are stored in "
    "each\n"
    "way, the rotary part in each scheme of --rope, and as FlashMLA, DeepSeek-V4 and ggml store them. Of keys and values the best latents of each\n"
    "--rank are made, by singular value decomposition, and stored so, beside the keys and values themselves.\n"
    "\n"
    "With --budget or --max-kl the inputs are layers as for --attention; each scheme is tried on the keys and the values of each layer alone, and "
    "the\n"
    "choice for each layer is proposed that has the least error within the budget, or the fewest bytes within the divergence, and measured.\n"
    "\n"
    "With --model a model runs over a text, once with an exact KV cache and once with each way of storing it, and what is reported is how far its\n"
    "predictions of the next token move.\n"
    "\n"
    "INPUT: rows of keys or values, [token][dim] or [head][token][dim], also in a batch of 1: QVKT (f32), .npy (f32, f16), .npz and .safetensors\n"
    "       (every array of f32, f16 or bf16 that has such a shape); with --shape, numbers and nothing else\n"
    "\n";

static const char HELP_OF_OPTIONS[] =
    "A LIST is words separated by commas, or \"all\". Every combination is measured, once where the width makes two the same.\n"
    "  --schemes LIST    see kvtile info (default: all, which is kvtile's own); other engines' formats, listed below, or \"peers\", all of them;\n"
    "                    for --attention and --model also pairs, keys/values (kv5/kv4), and presets: quality kv6/kv5, balanced kv5/kv4,\n"
    "                    compact kv4, tight kv4/kv3\n"
    "  --rotation LIST   none, 64, 128\n"
    "  --centring LIST   none, sequence, page, own: none, or a centre from what is stored before, of the first page or of the one before,\n"
    "                    or the mean of the page itself, which must then be written whole. When neither this nor --rotation is\n"
    "                    given: none with none, and 64 with page; when one of them is: \"none\" for the other\n"
    "  --effort LIST     fast, default, best: of the encoders that search, kv6 to kv2 (default: default)\n"
    "  --fp8-block LIST  row, 32, 64, 128: channels that share a scale in e4m3 and e5m2 (default: row)\n"
    "  --fp8-scale LIST  f32, e8m0: their scales (default: f32)\n"
    "\n"
    "  --side k|v      store as keys or as values; auto (the default): as the name of the tensor says, or else that of the file: by a word like\n"
    "                  \"values\", or by a v of its own (\"layer3_v\"), the last one in it; a name that says nothing is of keys\n"
    "  --order ORDER   of arrays: head,token,dim (the default) or token,head,dim\n"
    "  --attention     compare attention; without queries keys stand for them\n"
    "  --queries N     at most so many tokens of a layer ask, evenly spaced (default 128)\n"
    "  --scale X       of logits (default: 1 / sqrt(head_dim))\n"
    "  --budget X      bits per element on average (4.75), or bytes per token of all layers (1200B, 3KiB)\n"
    "  --max-kl X      mean divergence of attention's weights in nats (0.001)\n"
    "  --latent        compare latents\n"
    "  --rope-dim N    the last N numbers of a latent's row are its rotary part (default: 0)\n"
    "  --rope LIST     schemes of the rotary part (default: bf16,kv8)\n"
    "  --rank LIST     ranks of the latents of keys and values (default: an eighth, a quarter and half of a token's numbers)\n"
    "  --shape LIST    INPUTs have no header: [heads,]tokens,dim, or in the order of --order\n"
    "  --dtype f32|f16|bf16\n"
    "                  of INPUTs without a header (default: f32)\n"
    "  --from N        measure tokens N and later; all are stored (default 0).\n"
    "                  Latents of keys and values are made from the tokens before N only, when N is not 0\n"
    "  --mean          only what is summed up over all inputs\n"
    "  --no-speed      do not measure speed, which is what takes time\n"
    "  --tier LIST     kernels that may run: \"avx2\" = that tier and what it inherits, \"-avx512\" = all but that one\n"
    "  --json          an array of objects, one per tensor and way of storing; with --mean one per side and way\n"
    "  --csv           the same as lines with commas, without what is by head, layer or position\n"
    "  --report FILE   also a page to look at, .html: charts, and a table to sort; \"-\": to stdout, in place of the table\n"
    "  --help-all      this text; --help: one screen\n";

static const char HELP_OF_MODELS[] =
    "\n"
    "Models:\n"
    "  --model MODEL   a Hugging Face folder of the Llama architecture (config.json, safetensors), a GGUF file (also of qwen2, qwen3, gemma3, phi3,\n"
    "                  smollm3), a llama2.c checkpoint or its f16 form. Schemes may be pairs of keys and values: \"kv5/kv4\"\n"
    "  --tokenizer F   of llama2.c, or tokenizer.json (default: what a folder or a GGUF file brings along)\n"
    "  --text FILE     what the model is run on\n"
    "  --tokens N      the first N tokens of the text (default: all)\n"
    "  --context N     tokens of a window; each begins anew (default: the model's context)\n"
    "  --bos           windows begin with the token that marks a text's beginning, for models that were trained so\n"
    "  --first S       scheme of the first page of a window, in every way; none: as the others (default kv8)\n"
    "  --open S        scheme of the page that is not full; none: each token is stored at once (default bf16)\n"
    "  --by-layer      also each layer's keys alone, and its values alone, the others exact\n"
    "  --stress S      outliers: a model that computes the same from keys and values with strong outlier channels\n"
    "  --threads N     that share the work (default 1); results do not depend on it\n";

static const char HELP_OF_COLUMNS[] =
    "\n"
    "bits        stored bits per element of the row: codes, scales, centres and padding of a page of 64 tokens that\n"
    "            holds this side of one head and nothing else (JSON: page_bytes), over 64 * dim\n"
    "pair        the same of a page that holds keys and values, both so stored: together their centres need less padding\n"
    "B/token     bytes of one token in all heads, as in \"bits\"\n"
    "SNR         energy of the rows over energy of the error; \"exact\" when there is no error (JSON: null, max_abs_error 0)\n"
    "centred     energy of the rows' deviation from each channel's mean over the tokens (per head) over energy of the error:\n"
    "            an offset that all tokens share carries no information. Token 0, in many models unlike all others, is left\n"
    "            out of the mean and of both energies\n"
    "GB/s        10^9 bytes of f32 rows per second, written and read (inputs of 16 bits are widened first, so that all inputs\n"
    "            compare): the first head, over and over for 20 ms at least, best pass, one thread\n"
    "Energies of a tensor are summed over its heads. The sums over several are means: of each head's dB, of each tensor's GB/s.\n"
    "KL          --attention: of the weights over stored keys from those over the keys themselves, in nats, a query row's; mean and largest\n"
    "same top    rows whose most attended token is the same\n"
    "error %     of the output: root of error energy over energy, all rows together\n"
    "latent dB   --latent: energy of the deviations of latents from their mean over that of their errors; \"rope dB\": of rotary parts\n"
    "added dB    what this library's arithmetic adds to what exact arithmetic on the stored codes would have\n"
    "told        --model: bits of all pages at the end of a window, the first and the open one among them\n"
    "PPL %       change of the perplexity; +-: half of the 95 % interval's width\n"
    "KLD         divergence of next-token distributions from those with the exact cache, in nats: mean, what 99.9 % of the tokens stay below, "
    "largest\n"
    "top %       tokens whose likeliest prediction is the same\n"
    "            Intervals are made from means of blocks of 64 tokens, since neighbours resemble each other\n"
    "All tokens are written in order from 0, as an engine does: page 0 has no centre yet.\n"
    "Rows with a NaN or an infinity are stored but left out of SNR, mean and error; JSON \"nonfinite\" counts such numbers.\n"
    "\"lost\": some row (rows, query rows, predictions) of finite numbers did not come back finite. All that is said of accuracy is \"lost\" then, "
    "in\n"
    "JSON null, in CSV empty, and \"lost\" counts such rows. --budget and --max-kl do not choose what loses a row.\n"
    "\n"
    "Examples:\n"
    "  kvtile eval layer0_keys.qvkt layer0_values.qvkt\n"
    "  kvtile eval --attention layer0_keys.qvkt layer0_values.qvkt layer0_queries.qvkt --schemes q8_0,kv5,kv4\n"
    "  kvtile eval --latent glm_layer3.npy --rope-dim 64 --schemes kv6,kv4 --rotation 64 --centring page\n"
    "  kvtile eval --latent *.qvkt --schemes bf16,kv6,kv4 --rank 64,128 --from 512\n"
    "  kvtile eval keys.f16 --shape 8,4096,128 --dtype f16 --side k\n"
    "  kvtile eval --model gutenberg-3.5M.f16.bin --tokenizer tok2048.bin --text chesterton-brown.txt --schemes kv5/kv4,kv4,q4_0\n"
    "  kvtile eval --attention *.qvkt --schemes balanced,kv4,ggml_q4_0 --rotation 64 --centring own --first kv8 --open bf16\n"
    "  kvtile eval --budget 4.75 *.qvkt --rotation 64 --centring none,page\n"
    "  kvtile eval *.qvkt --mean --schemes kv4,kv4h,q4_0 --rotation none,64 --centring all --effort all\n"
    "  kvtile eval cache.safetensors --schemes q8_0,kv4 --json | jq -r '.[] | [.input, .scheme, .rotation, .snr_db] | @tsv'\n";

static void print_peers(void)
{
    puts("\nOther engines' formats, which have no centring; rotated, as llama.cpp does it, by Hadamard transforms of blocks:");
    for (size_t i = 0; peer_at(i) != NULL; i++)
        printf("  %-13s %s\n", peer_at(i)->name, peer_at(i)->title);
}

void eval_print_help(bool all)
{
    if (!all) {
        fputs(BRIEF, stdout);
        return;
    }
    fputs(HELP, stdout);
    fputs(HELP_OF_OPTIONS, stdout);
    print_peers();
    fputs(HELP_OF_MODELS, stdout);
    fputs(HELP_OF_COLUMNS, stdout);
}
