/* The recurrent cells through time on a CPU: plain C interface, no state, no dependency.
 *
 * One binary holds a portable version and, on x86-64, one each for AVX2 and AVX-512;
 * consilium_level() says which of them this CPU runs best. Callers split the rows among threads.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

enum { RNN = 0, LSTM = 1, GRU = 2, BLOCK = 6 };

static long gates_of(int cell) { return cell == LSTM ? 4 : cell == GRU ? 3 : 1; }

/* Zeroed memory on a cache line's boundary, or null. */
static float *room(long floats) {
    void *memory = 0;
    const size_t bytes = ((size_t)floats * sizeof(float) + 63) / 64 * 64;
    if (posix_memalign(&memory, 64, bytes ? bytes : 64)) return 0;
    return memset(memory, 0, bytes);
}

static void release(int count, ...) {
    va_list list;
    va_start(list, count);
    while (count--) free(va_arg(list, void *));
    va_end(list);
}

#define TARGET
#define LANES 4
#define NAME(f) f##_portable
#include "through_time.h"
#undef NAME
#undef LANES
#undef TARGET

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define NAME(f) f##_avx2
#include "through_time.h"
#undef NAME
#undef LANES
#undef TARGET

#define TARGET __attribute__((target("avx512f,avx512dq,avx2,fma")))
#define LANES 16
#define NAME(f) f##_avx512
#include "through_time.h"
#undef NAME
#undef LANES
#undef TARGET
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
