/* Vectors and small products for one instruction set; recurrent.c includes this per set.
 *
 * The including file defines NAME(f) (the function's name for this set), TARGET (its attribute), LANES
 * (floats per vector) and TILE (rows of a tile that registers hold beside two vectors of columns).
 */

typedef float NAME(vec) __attribute__((vector_size(LANES * 4)));
typedef int NAME(ivec) __attribute__((vector_size(LANES * 4)));
#define VEC NAME(vec)
#define IVEC NAME(ivec)
#define PANEL (2 * LANES)
#define PANELS (UNITS / PANEL) /* in a group of units */
#define INLINE static inline __attribute__((always_inline)) TARGET
#define V(p) NAME(load)(p)

INLINE VEC NAME(load)(const float *p) { VEC v; __builtin_memcpy(&v, p, sizeof v); return v; }
INLINE void NAME(store)(float *p, VEC v) { __builtin_memcpy(p, &v, sizeof v); }

/* x within [-bound, bound]; NaN stays NaN. */
INLINE VEC NAME(clamp)(VEC x, float bound) {
#if LANES == 16
    return _mm512_max_ps(_mm512_set1_ps(-bound), _mm512_min_ps(_mm512_set1_ps(bound), x));
#elif LANES == 8
    return _mm256_max_ps(_mm256_set1_ps(-bound), _mm256_min_ps(_mm256_set1_ps(bound), x));
#else
    const VEC high = x - x + bound, low = x - x - bound;
    const IVEC above = x > high, below = x < low;
    x = (VEC)((above & (IVEC)high) | (~above & (IVEC)x));
    return (VEC)((below & (IVEC)low) | (~below & (IVEC)x));
#endif
}

/* a / b for positive b of ordinary size, within 2 units in the last place. */
INLINE VEC NAME(divide)(VEC a, VEC b) {
#if LANES == 16
    const VEC r = _mm512_rcp14_ps(b); /* 14 bits, doubled by one step of Newton's */
    return a * (r + r * (1.0f - b * r));
#else
    return a / b;
#endif
}

/* e^x within 2 units in the last place for |x| < 87, saturating beyond (Cephes' expf). */
INLINE VEC NAME(exponential)(VEC x) {
    x = NAME(clamp)(x, 87.0f);
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const VEC n = (x * 1.44269504088896341f + magic) - magic;
    VEC r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    VEC p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const IVEC power = (__builtin_convertvector(n, IVEC) + 127) << 23;
    return p * (VEC)power;
}

INLINE VEC NAME(sigmoid)(VEC x) { return NAME(divide)(x - x + 1.0f, 1.0f + NAME(exponential)(-x)); }

/* tanh within 4 units in the last place: the rational approximation of Eigen and XLA, odd of degree 13
 * over even of degree 6, fitted on |x| < 7.9, beyond which the float nearest to tanh is nearly 1. */
INLINE VEC NAME(tanh)(VEC x) {
    x = NAME(clamp)(x, 7.90531110763549805f);
    const VEC s = x * x;
    VEC p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
    p = p * s + -8.60467152213735e-11f;
    p = p * s + 5.12229709037114e-08f;
    p = p * s + 1.48572235717979e-05f;
    p = p * s + 6.37261928875436e-04f;
    p = p * s + 4.89352455891786e-03f;
    VEC q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
    q = q * s + 2.26843463243900e-03f;
    q = q * s + 4.89352518554385e-03f;
    return NAME(divide)(x * p, q);
}

/* out[r][0..PANEL) += sum over k < depth of a[r * row + k * step] * packed[k][0..PANEL). */
INLINE void NAME(tile_rows)(const int rows, const long row, const long step, const float *a,
                            long depth, const float *packed, float *out, long out_row) {
    VEC left[TILE], right[TILE];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        left[r] = V(out + r * out_row);
        right[r] = V(out + r * out_row + LANES);
    }
    for (long k = 0; k < depth; k++) {
        const VEC w0 = V(packed + k * PANEL), w1 = V(packed + k * PANEL + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const float value = a[r * row + k * step];
            left[r] += w0 * value;
            right[r] += w1 * value;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        NAME(store)(out + r * out_row, left[r]);
        NAME(store)(out + r * out_row + LANES, right[r]);
    }
}

/* The number of rows as a constant, so that each gets registers of its own. */
#define TILE_CASE(n)                                                                                \
    case n: NAME(tile_rows)(n, row, step, a, depth, packed, out, out_row); break;
INLINE void NAME(tile)(int rows, const long row, const long step, const float *a, long depth,
                       const float *packed, float *out, long out_row) {
    switch (rows) {
        TILE_CASE(1) TILE_CASE(2) TILE_CASE(3) TILE_CASE(4) TILE_CASE(5) TILE_CASE(6)
#if TILE == 12
        TILE_CASE(7) TILE_CASE(8) TILE_CASE(9) TILE_CASE(10) TILE_CASE(11) TILE_CASE(12)
#endif
    }
}
#undef TILE_CASE

/* The rows of a block, CHUNK floats apart, times one panel. */
static TARGET __attribute__((noinline)) void NAME(product)(int rows, const float *a, long depth,
                                                           const float *packed, float *out,
                                                           long out_row) {
    for (int tiles = (rows + TILE - 1) / TILE; tiles; tiles--) {
        const int count = (rows + tiles - 1) / tiles;
        NAME(tile)(count, CHUNK, 1, a, depth, packed, out, out_row);
        a += count * CHUNK, out += count * out_row, rows -= count;
    }
}

/* A tile of sums of outer products: a holds TILE floats for each k. */
static TARGET __attribute__((noinline)) void NAME(outer)(int rows, const float *a, long depth,
                                                         const float *packed, float *out) {
    NAME(tile)(rows, 1, TILE, a, depth, packed, out, PANEL);
}
