/* Recurrent cells on a CPU, forward, backward, gradient norms and sums, and noise.
 *
 * Plain C interface, no state, no dependency. One binary holds a portable version and, on x86-64, one
 * each for AVX2 and AVX-512; consilium_level() says which of them this CPU runs best.
 *
 * Layout: batch-major, step t of row n of an (N, T, width) array begins at (n * T + t) * width. Hidden
 * units are handled in groups of UNITS; what the kernel keeps for itself (gates, memory) is padded to
 * whole groups, and padding is zero or multiplied by zero. A group has KINDS pre-activations a unit:
 * RNN 1; LSTM 4 (input, forget, candidate, output); GRU 4 (reset, update, the candidate's part from the
 * inputs, its part from the states). So gates and deltas lie as [group][kind][unit], and each kind
 * depends on the inputs, on the states, or on both: uses_inputs(), uses_states().
 *
 * Threads take blocks of rows (or patients, or columns) from a counter. No number depends on how many
 * threads there are, nor on which takes what. Letters of shapes: docs/shapes.md.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { RNN = 0, LSTM = 1, GRU = 2 };
enum { UNITS = 32, CHUNK = 256, BLOCK = 24, STEPS = 256, MOST_THREADS = 64 };

static long least(long a, long b) { return a < b ? a : b; }
static long up(long size, long unit) { return (size + unit - 1) / unit; }
static long kinds_of(int cell) { return cell == RNN ? 1 : 4; }
static long gate_of(int cell, long kind) { return cell == GRU && kind == 3 ? 2 : kind; }
static int uses_inputs(int cell, long kind) { return cell != GRU || kind != 3; }
static int uses_states(int cell, long kind) { return cell != GRU || kind != 2; }

/* One direction of one layer; the Python side fills it (through_time.py). Unused pointers are null. */
struct sequence {
    int32_t cell, reverse, threads, add_to_input_grad;
    int64_t rows, steps, inputs, hidden, state_step, grad_step;
    const float *input_weights, *hidden_weights, *input_bias, *hidden_bias; /* (G, I) (G, H) (G) (G) */
    const float *x;          /* (N, T, I); I = 0: forward finds pre-activations in the gates */
    const float *keep;       /* (N, T), 0 at padding; null: all count */
    float *states;           /* (N, T, H), steps state_step floats apart */
    float *gates, *memory;   /* gates, then deltas; the LSTM's memory (N, T, padded H) */
    const float *grad;       /* of the states, (N, T, H), steps grad_step floats apart */
    float *input_grad;       /* (N, T, I) or null */
};

/* Patients' rows: those of patient p are rows[start[p]] to rows[start[p + 1] - 1]. */
struct patients {
    int64_t count;
    const int64_t *start, *rows;
};

static long padded(const struct sequence *s) { return up(s->hidden, UNITS) * UNITS; }
static long gate_width(const struct sequence *s) { return padded(s) * kinds_of(s->cell); }
/* Values a step that a weight gradient is an outer product with: inputs, 1, states, 1. */
static long value_width(const struct sequence *s) { return s->inputs + s->hidden + 2; }
static int kept(const struct sequence *s, long n, long t) {
    return s->keep == 0 || s->keep[n * s->steps + t] != 0.0f;
}
/* The state that step t started from, or null for the zero state. */
static const float *state_before(const struct sequence *s, long n, long t) {
    t += s->reverse ? 1 : -1;
    return t < 0 || t >= s->steps ? 0 : s->states + (n * s->steps + t) * s->state_step;
}

/* Zeroed memory on a cache line's boundary, or null. */
static float *room(long floats) {
    void *memory = 0;
    const size_t bytes = ((size_t)floats * sizeof(float) + 63) / 64 * 64;
    if (posix_memalign(&memory, 64, bytes ? bytes : 64)) return 0;
    return memset(memory, 0, bytes);
}

/* Items 0 to count - 1, taken by threads; work() returns 1 when it finds no memory. */
struct job {
    int (*work)(struct job *);
    const void *context;
    long count, next;
    int failed;
};

static int take(struct job *job, long *item) {
    *item = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
    return *item < job->count;
}

static void work_off(void *pointer) {
    struct job *job = pointer;
    if (job->work(job)) __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
}

static void *work_off_thread(void *pointer) {
    work_off(pointer);
    return 0;
}

/* GOMP_parallel of the OpenMP library that the process already uses, or null. Its threads wait for work
 * by spinning, so threads of our own would have to share the cores with them. */
static void (*shared_threads)(void (*)(void *), void *, unsigned, unsigned);

void consilium_share_threads(void *gomp_parallel) {
    shared_threads = (void (*)(void (*)(void *), void *, unsigned, unsigned))gomp_parallel;
}

static int run(int (*work)(struct job *), const void *context, long count, long threads) {
    struct job job = {work, context, count, 0, 0};
    pthread_t helpers[MOST_THREADS];
    long started = 0;
    threads = least(least(threads, count), MOST_THREADS);
    if (threads > 1 && shared_threads) {
        shared_threads(work_off, &job, (unsigned)threads, 0);
        return job.failed;
    }
    while (started < threads - 1 && !pthread_create(&helpers[started], 0, work_off_thread, &job))
        started++;
    work_off(&job);
    while (started) pthread_join(helpers[--started], 0);
    return job.failed;
}

#define TARGET
#define LANES 4
#define TILE 6
#define NAME(f) f##_portable
#include "lanes.h"
#include "cells.h"
#include "sums.h"
#include "rows.h"
#include "normal.h"
#include "discrete.h"
#include "done.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define TILE 6
#define NAME(f) f##_avx2
#include "lanes.h"
#include "cells.h"
#include "sums.h"
#include "rows.h"
#include "normal.h"
#include "discrete.h"
#include "done.h"

#define TARGET __attribute__((target("avx512f,avx512dq,avx2,fma")))
#define LANES 16
#define TILE 12
#define NAME(f) f##_avx512
#include "lanes.h"
#include "cells.h"
#include "sums.h"
#include "rows.h"
#include "normal.h"
#include "discrete.h"
#include "done.h"
#endif

/* Let this process keep freed memory of this size class: a training step allocates the same large
 * arrays again and again, and faulting their pages in anew costs more than the arithmetic. */
void consilium_keep_memory(void) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the largest that glibc takes */
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
}

/* 0 portable, 1 AVX2, 2 AVX-512. */
int consilium_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}
