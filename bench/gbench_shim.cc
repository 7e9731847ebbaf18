/* SPDX-License-Identifier: MIT */
#include "bench/gbench_shim.h"

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sstream>
#include <vector>

namespace
{

benchmark::State *state_of(shim_state *state)
{
    return reinterpret_cast<benchmark::State *>(state);
}

const char *help_text = "";

void print_flags()
{
    std::fputs(help_text, stdout);
    benchmark::PrintDefaultHelp();
}

/* Operator new has failed, which Google Benchmark does not expect: it would end with SIGABRT. Nothing here allocates. */
void end_without_memory()
{
    std::fputs("kvtile: benchmarks: out of memory\n", stderr);
    std::_Exit(EXIT_FAILURE);
}

/* Before the constructors of shared libraries, of which Google Benchmark has some that allocate. */
void expect_no_memory()
{
    std::set_new_handler(end_without_memory);
}
__attribute__((section(".preinit_array"), used)) void (*const before_constructors)() = expect_no_memory;

/* One of Google's reporters whose text stays here; Google hands it a stream, which is not used. */
template <class Reporter> class Text : public Reporter
{
  public:
    template <class... Arguments> explicit Text(Arguments... arguments) : Reporter(arguments...) {}

    bool ReportContext(const benchmark::BenchmarkReporter::Context &context) override
    {
        this->SetOutputStream(&text_);
        return Reporter::ReportContext(context);
    }

    void write(FILE *out) const
    {
        const std::string text = text_.str();
        std::fwrite(text.data(), 1, text.size(), out);
    }

  private:
    std::ostringstream text_;
};

template <class Reporter> size_t run_twice_reported(Text<Reporter> &&report, FILE *out)
{
    const size_t n = benchmark::RunSpecifiedBenchmarks(nullptr, &report);
    report.write(out);
    return n;
}

class Capture : public benchmark::BenchmarkReporter
{
  public:
    Capture(void (*take)(void *, const shim_result *), void *context) : take_(take), context_(context) {}

    bool ReportContext(const Context &) override { return true; }

    void ReportRuns(const std::vector<Run> &runs) override
    {
        for (const Run &run : runs) {
            if (run.run_type != Run::RT_Iteration)
                continue;
            std::vector<const char *> names;
            std::vector<double> values;
            for (const auto &counter : run.counters) {
                names.push_back(counter.first.c_str());
                values.push_back(counter.second.value);
            }
            const std::string name = run.run_name.function_name;
            shim_result result = {};
            result.name = name.c_str();
            result.error = run.error_occurred ? run.error_message.c_str() : nullptr;
            result.iterations = static_cast<uint64_t>(run.iterations);
            result.seconds = run.iterations > 0 ? run.real_accumulated_time / static_cast<double>(run.iterations) : 0;
            result.n_counters = names.size();
            result.counter_names = names.data();
            result.counter_values = values.data();
            take_(context_, &result);
        }
    }

  private:
    void (*take_)(void *, const shim_result *);
    void *context_;
};

} // namespace

extern "C" {

void shim_register(const char *name, void (*run)(shim_state *, void *), void *context, int manual_time)
{
    benchmark::internal::Benchmark *registered =
        benchmark::RegisterBenchmark(name, [run, context](benchmark::State &state) { run(reinterpret_cast<shim_state *>(&state), context); });
    if (manual_time)
        registered->UseManualTime();
    registered->Unit(benchmark::kMicrosecond);
}

void shim_add_context(const char *key, const char *value)
{
    benchmark::AddCustomContext(key, value);
}

int shim_keep_running(shim_state *state)
{
    return state_of(state)->KeepRunning();
}

uint64_t shim_iterations(const shim_state *state)
{
    return static_cast<uint64_t>(reinterpret_cast<const benchmark::State *>(state)->iterations());
}

void shim_set_iteration_time(shim_state *state, double seconds)
{
    state_of(state)->SetIterationTime(seconds);
}

void shim_set_counter(shim_state *state, const char *name, double value)
{
    state_of(state)->counters[name] = benchmark::Counter(value);
}

void shim_set_items_processed(shim_state *state, uint64_t items)
{
    state_of(state)->SetItemsProcessed(static_cast<int64_t>(items));
}

void shim_set_bytes_processed(shim_state *state, uint64_t bytes)
{
    state_of(state)->SetBytesProcessed(static_cast<int64_t>(bytes));
}

void shim_skip_with_error(shim_state *state, const char *message)
{
    state_of(state)->SkipWithError(message);
}

int shim_initialize(int *argc, char **argv, const char *help)
{
    help_text = help;
    benchmark::Initialize(argc, argv, print_flags);
    return benchmark::ReportUnrecognizedArguments(*argc, argv) ? -1 : 0;
}

double shim_result_counter(const shim_result *result, const char *name)
{
    for (size_t i = 0; i < result->n_counters; i++) {
        if (std::strcmp(result->counter_names[i], name) == 0)
            return result->counter_values[i];
    }
    return NAN;
}

size_t shim_run(FILE *out, shim_format format)
{
    if (out == nullptr)
        return benchmark::RunSpecifiedBenchmarks();
    if (format == SHIM_CSV) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* as --benchmark_out_format=csv is, too */
        return run_twice_reported(Text<benchmark::CSVReporter>(), out);
#pragma GCC diagnostic pop
    }
    if (format == SHIM_CONSOLE)
        return run_twice_reported(Text<benchmark::ConsoleReporter>(benchmark::ConsoleReporter::OO_None), out);
    return run_twice_reported(Text<benchmark::JSONReporter>(), out);
}

size_t shim_run_captured(void (*take)(void *, const shim_result *), void *context)
{
    Capture capture(take, context);
    return benchmark::RunSpecifiedBenchmarks(&capture);
}

void shim_shutdown(void)
{
    benchmark::ClearRegisteredBenchmarks();
    benchmark::Shutdown();
}
}
