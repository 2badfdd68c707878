/* Normal deviates from uniform words, by Box and Muller (1958), for one instruction set. */

typedef double NAME(wide) __attribute__((vector_size(LANES * 4)));
typedef int64_t NAME(wide_int) __attribute__((vector_size(LANES * 4)));
#define WIDE NAME(wide)
#define WIDE_INT NAME(wide_int)
#define WIDE_LANES (LANES / 2)

/* mask ? yes : no */
INLINE WIDE NAME(choose)(WIDE_INT mask, WIDE yes, WIDE no) {
    return (WIDE)((mask & (WIDE_INT)yes) | (~mask & (WIDE_INT)no));
}

/* Natural logarithm of normal x > 0, within 1 unit in the last place (fdlibm's e_log.c). */
INLINE WIDE NAME(log)(WIDE x) {
    WIDE_INT bits = (WIDE_INT)x + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd);
    const WIDE k = __builtin_convertvector((bits >> 52) - 1023, WIDE);
    bits = (bits & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd; /* from sqrt(1/2) to sqrt(2) */
    const WIDE f = (WIDE)bits - 1.0, s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
    WIDE r = z * 1.479819860511658591e-01 + 1.531383769920937332e-01;
    r = r * z + 1.818357216161805012e-01;
    r = r * z + 2.222219843214978396e-01;
    r = r * z + 2.857142874366239149e-01;
    r = r * z + 3.999999999940941908e-01;
    r = (r * z + 6.666666666666735130e-01) * z;
    return k * 6.93147180369123816490e-01 -
           ((half - (s * (half + r) + k * 1.90821492927058770002e-10)) - f);
}

/* Sine and cosine of 2 pi x for 0 <= x < 1, within 2 units in the last place (fdlibm's kernels). */
INLINE void NAME(turn)(WIDE x, WIDE *sine, WIDE *cosine) {
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to a whole number */
    const WIDE rounded = 4.0 * x + magic;
    const WIDE_INT quarter = (WIDE_INT)rounded;
    const WIDE y = (x - 0.25 * (rounded - magic)) * 6.28318530717958647693, z = y * y;
    WIDE s = z * 1.58969099521155010221e-10 - 2.50507602534068634195e-08;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z - 1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = s * z - 1.66666666666666324348e-01;
    s = y + y * z * s;
    WIDE c = z * -1.13596475577881948265e-11 + 2.08757232129817482790e-09;
    c = c * z - 2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z - 1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
    c = 1.0 - 0.5 * z + z * z * c;
    const WIDE_INT swap = -(quarter & 1); /* all ones where the quarter is odd */
    *sine = (WIDE)((WIDE_INT)NAME(choose)(swap, c, s) ^ ((quarter & 2) << 62));
    *cosine = (WIDE)((WIDE_INT)NAME(choose)(swap, s, c) ^ (((quarter + 1) & 2) << 62));
}

INLINE WIDE NAME(uniform)(const uint64_t *words) {
    WIDE_INT w;
    __builtin_memcpy(&w, words, sizeof w);
    return __builtin_convertvector((w >> 11) & 0x001fffffffffffff, WIDE) * 0x1p-53;
}

/* both[i] and both[count + i], independent standard normal, from uniform words radius[i], angle[i]. */
TARGET void NAME(normals)(const uint64_t *radius, const uint64_t *angle, int64_t count, double *both) {
    for (int64_t i = 0; i < count; i += WIDE_LANES) {
        const size_t bytes = least(WIDE_LANES, count - i) * sizeof(double);
        uint64_t words[2][WIDE_LANES] = {{0}};
        memcpy(words[0], radius + i, bytes);
        memcpy(words[1], angle + i, bytes);
        const WIDE square = -2.0 * NAME(log)(1.0 - NAME(uniform)(words[0]));
        WIDE sine, cosine, r;
        for (int j = 0; j < WIDE_LANES; j++) r[j] = sqrt(square[j]);
        NAME(turn)(NAME(uniform)(words[1]), &sine, &cosine);
        cosine *= r;
        sine *= r;
        memcpy(both + i, &cosine, bytes);
        memcpy(both + count + i, &sine, bytes);
    }
}
