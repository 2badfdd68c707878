/* Decisions behind discrete noise, as far as floating point makes them, for one instruction set.
 *
 * E = -ln U of the uniform real U that begins with a 64-bit word. Where a decision is within error of
 * falling the other way, its place is noted and the caller decides. slack: relative error that all of
 * the arithmetic is trusted to keep within.
 */

typedef uint64_t NAME(wide_word) __attribute__((vector_size(LANES * 4)));

/* Whole numbers from 0 to 2^52 as floating point: they become the mantissa of 2^52 + x. */
INLINE WIDE NAME(number)(WIDE_INT x) { return (WIDE)(x | 0x4330000000000000) - 0x1p52; }

/* floor(x) for |x| < 2^51: adding 1.5 * 2^52 rounds to the nearest whole number. */
INLINE WIDE_INT NAME(floor)(WIDE x) {
    const WIDE magic = (WIDE){0} + 0x1.8p52, near = x + magic;
    return (WIDE_INT)near - (WIDE_INT)magic + (near - magic > x);
}

/* Note in doubtful[] the places, from first on, of lanes that are all ones; return how many there are. */
INLINE int64_t NAME(note)(WIDE_INT unsure, int64_t first, long now, int64_t doubts, int64_t *doubtful) {
    int64_t any = 0;
    for (long j = 0; j < WIDE_LANES; j++) any |= unsure[j];
    if (__builtin_expect(any != 0, 0))
        for (long j = 0; j < now; j++)
            if (unsure[j]) doubtful[doubts++] = first + j;
    return doubts;
}

/* -ln of the uniform numbers that words stand for; all ones in *rare where a word is so small that its
 * value may be off by more than SMALL_WORDS (one in 2^24). */
#define SMALL_WORDS 0x1p-39
INLINE WIDE NAME(waiting)(const uint64_t *words, WIDE_INT *rare) {
    NAME(wide_word) w;
    __builtin_memcpy(&w, words, sizeof w);
    const WIDE high = NAME(number)((WIDE_INT)(w >> 32)), low = NAME(number)((WIDE_INT)(w & 0xffffffff));
    const WIDE uniform = ((high * 0x1p32 + low) + 0.5) * 0x1p-64;
    *rare = uniform < 0x1p-24;
    return -NAME(log)(uniform);
}

/* size[i] = floor(scale * E); doubtful[] holds the places where that is not certain, and their number
 * is returned. */
INLINE void NAME(some_floors)(const uint64_t *words, double scale, double slack, int64_t *size,
                                 WIDE_INT *unsure) {
    WIDE_INT rare;
    const WIDE value = NAME(waiting)(words, &rare);
    const WIDE error = scale * (slack * (1.0 + value) + SMALL_WORDS);
    const WIDE_INT low = NAME(floor)(scale * value - error), high = NAME(floor)(scale * value + error);
    __builtin_memcpy(size, &low, sizeof low);
    *unsure = (low != high) | rare;
}
TARGET int64_t NAME(geometric)(const uint64_t *words, int64_t count, double scale, double slack,
                               int64_t *size, int64_t *doubtful) {
    int64_t doubts = 0, i = 0;
    WIDE_INT unsure;
    for (; i + WIDE_LANES <= count; i += WIDE_LANES) {
        NAME(some_floors)(words + i, scale, slack, size + i, &unsure);
        doubts = NAME(note)(unsure, i, WIDE_LANES, doubts, doubtful);
    }
    if (i == count) return doubts;
    uint64_t last[WIDE_LANES] = {0};
    int64_t sizes[WIDE_LANES];
    memcpy(last, words + i, (count - i) * sizeof *last);
    NAME(some_floors)(last, scale, slack, sizes, &unsure);
    memcpy(size + i, sizes, (count - i) * sizeof *sizes);
    return NAME(note)(unsure, i, count - i, doubts, doubtful);
}

/* keep[i] = E > (size[i] - variance / scale)^2 / (2 variance); doubtful[] as above. */
INLINE WIDE_INT NAME(some_accepted)(const uint64_t *words, const int64_t *size, double scale,
                                    double variance, double slack, WIDE_INT *unsure) {
    WIDE_INT whole, rare;
    __builtin_memcpy(&whole, size, sizeof whole);
    const WIDE value = NAME(waiting)(words, &rare), x = NAME(number)(whole);
    const WIDE away = x - variance / scale, over = value - away * away * (0.5 / variance);
    const WIDE error = slack * (2.0 + value + x * x * (1.0 / variance)) + SMALL_WORDS;
    *unsure = ((over <= error) & (over >= -error)) | rare;
    return over > 0.0;
}
TARGET int64_t NAME(accepted)(const uint64_t *words, const int64_t *size, int64_t count, double scale,
                              double variance, double slack, uint8_t *keep, int64_t *doubtful) {
    int64_t doubts = 0, i = 0;
    WIDE_INT unsure;
    for (; i + WIDE_LANES <= count; i += WIDE_LANES) {
        const WIDE_INT more = NAME(some_accepted)(words + i, size + i, scale, variance, slack, &unsure);
        for (long j = 0; j < WIDE_LANES; j++) keep[i + j] = more[j] & 1;
        doubts = NAME(note)(unsure, i, WIDE_LANES, doubts, doubtful);
    }
    if (i == count) return doubts;
    uint64_t last[WIDE_LANES] = {0};
    int64_t sizes[WIDE_LANES] = {0};
    memcpy(last, words + i, (count - i) * sizeof *last);
    memcpy(sizes, size + i, (count - i) * sizeof *sizes);
    const WIDE_INT more = NAME(some_accepted)(last, sizes, scale, variance, slack, &unsure);
    for (long j = 0; j < count - i; j++) keep[i + j] = more[j] & 1;
    return NAME(note)(unsure, i, count - i, doubts, doubtful);
}
#undef SMALL_WORDS
