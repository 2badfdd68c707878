/* What the processor's multiply-add units can do at most: no memory, no dependence, all threads. */
#include <pthread.h>
#include <time.h>

/* The widest vectors there are, one to a register, and chains enough that the units never wait. */
#if defined(__AVX512F__)
enum { LANES = 16, CHAINS = 16, MOST_THREADS = 64 };
#elif defined(__AVX__)
enum { LANES = 8, CHAINS = 12, MOST_THREADS = 64 };
#else
enum { LANES = 4, CHAINS = 12, MOST_THREADS = 64 };
#endif
#if defined(__aarch64__)
#define REGISTER "+w"
#else
#define REGISTER "+x"
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
#define UNROLL _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++)

static void *work(void *pointer) {
    const long rounds = *(long *)pointer;
    vec sum[CHAINS], x, y, total = {0};
    for (int i = 0; i < LANES; i++) x[i] = 0.999f, y[i] = 1e-3f;
    UNROLL sum[i] = y * (float)i;
    for (long k = 0; k < rounds; k++) {
        UNROLL sum[i] = sum[i] * x + y;
        __asm__ volatile("" : REGISTER(x)); /* or the loop would be folded */
    }
    UNROLL total += sum[i];
    volatile float kept = total[0];
    (void)kept;
    return 0;
}

/* Multiplications and additions a second. */
double peak(int threads, long rounds) {
    pthread_t helper[MOST_THREADS];
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 1; i < threads; i++) pthread_create(&helper[i], 0, work, &rounds);
    work(&rounds);
    for (int i = 1; i < threads; i++) pthread_join(helper[i], 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double seconds = (end.tv_sec - start.tv_sec) + 1e-9 * (end.tv_nsec - start.tv_nsec);
    return 2.0 * LANES * CHAINS * rounds * threads / seconds;
}
