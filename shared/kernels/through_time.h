/* Recurrent cells through time, for one instruction set; through_time.c includes this per set.
 *
 * The including file defines NAME(f) (the function's name for this set), TARGET (its attribute) and
 * LANES (floats per vector). Layout is time-major: step t of row n of a (T, N, G) array begins at
 * (t * N + n) * G. Rows [first, last) are worked on, a block of BLOCK rows through all steps, so that
 * a block's state stays in the first cache and the packed weights in the second.
 *
 * Names: H hidden units, W = H rounded up to whole panels (padding is zero and stays zero), PANEL =
 * two vectors of columns. Errors: 0 is success, 1 means that no memory could be had.
 */

typedef float NAME(vec) __attribute__((vector_size(LANES * 4)));
typedef int NAME(ivec) __attribute__((vector_size(LANES * 4)));
#define VEC NAME(vec)
#define IVEC NAME(ivec)
#define PANEL (2 * LANES)
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE VEC NAME(load)(const float *p) { VEC v; __builtin_memcpy(&v, p, sizeof v); return v; }
INLINE void NAME(store)(float *p, VEC v) { __builtin_memcpy(p, &v, sizeof v); }
INLINE VEC NAME(pick)(IVEC mask, VEC yes, VEC no) {
    return (VEC)((mask & (IVEC)yes) | (~mask & (IVEC)no));
}

/* e^x within 2 units in the last place for |x| < 87, saturating beyond (Cephes' expf). */
INLINE VEC NAME(exponential)(VEC x) {
    const VEC zero = x - x;
    x = NAME(pick)(x > zero + 87.0f, zero + 87.0f, x);
    x = NAME(pick)(x < zero - 87.0f, zero - 87.0f, x);
    const VEC magic = zero + 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
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

INLINE VEC NAME(sigmoid)(VEC x) { return 1.0f / (1.0f + NAME(exponential)(-x)); }

/* tanh: odd Taylor-like series near 0, where the quotient would lose digits. */
INLINE VEC NAME(tanh)(VEC x) {
    const VEC e = NAME(exponential)(-2.0f * x), square = x * x;
    VEC p = square * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    p = p * square * x + x;
    return NAME(pick)(square < 0.390625f + (x - x), p, (1.0f - e) / (1.0f + e));
}

/* out[r][0..columns) += a[r][0..depth) * packed; packed is panel by panel, depth rows of PANEL. */
INLINE void NAME(product_rows)(const int rows, const float *a, long a_width, long depth,
                               const float *packed, float *out, long columns) {
    for (long column = 0; column < columns; column += PANEL, packed += depth * PANEL) {
        VEC left[BLOCK], right[BLOCK];
        for (int r = 0; r < rows; r++) {
            left[r] = NAME(load)(out + r * columns + column);
            right[r] = NAME(load)(out + r * columns + column + LANES);
        }
        for (long k = 0; k < depth; k++) {
            const VEC w0 = NAME(load)(packed + k * PANEL);
            const VEC w1 = NAME(load)(packed + k * PANEL + LANES);
            for (int r = 0; r < rows; r++) {
                const float value = a[r * a_width + k];
                left[r] += w0 * value;
                right[r] += w1 * value;
            }
        }
        for (int r = 0; r < rows; r++) {
            NAME(store)(out + r * columns + column, left[r]);
            NAME(store)(out + r * columns + column + LANES, right[r]);
        }
    }
}

static TARGET void NAME(product)(int rows, const float *a, long a_width, long depth,
                                 const float *packed, float *out, long columns) {
    switch (rows) {
    case 1: NAME(product_rows)(1, a, a_width, depth, packed, out, columns); break;
    case 2: NAME(product_rows)(2, a, a_width, depth, packed, out, columns); break;
    case 3: NAME(product_rows)(3, a, a_width, depth, packed, out, columns); break;
    case 4: NAME(product_rows)(4, a, a_width, depth, packed, out, columns); break;
    case 5: NAME(product_rows)(5, a, a_width, depth, packed, out, columns); break;
    default: NAME(product_rows)(6, a, a_width, depth, packed, out, columns);
    }
}

static long NAME(padded)(long size) { return (size + PANEL - 1) / PANEL * PANEL; }

/* Pack the transpose of the recurrent weights (gates * H, H): depth H, columns gates * W. */
static void NAME(pack_forward)(const float *weights, long gates, long H, float *packed) {
    const long W = NAME(padded)(H), columns = gates * W;
    for (long column = 0; column < columns; column++) {
        const long gate = column / W, unit = column % W;
        float *to = packed + column / PANEL * PANEL * H + column % PANEL;
        for (long k = 0; k < H; k++)
            to[k * PANEL] = unit < H ? weights[(gate * H + unit) * H + k] : 0.0f;
    }
}

/* Pack the recurrent weights themselves: depth gates * W (padding zero), columns W. */
static void NAME(pack_backward)(const float *weights, long gates, long H, float *packed) {
    const long W = NAME(padded)(H), depth = gates * W;
    for (long column = 0; column < W; column++) {
        float *to = packed + column / PANEL * PANEL * depth + column % PANEL;
        for (long k = 0; k < depth; k++)
            to[k * PANEL] = k % W < H && column < H ? weights[(k / W * H + k % W) * H + column] : 0;
    }
}

static void NAME(widen)(const float *from, long gates, long H, float *to, long W) {
    for (long g = 0; g < gates; g++) memcpy(to + g * W, from + g * H, H * sizeof(float));
}

static TARGET void NAME(add)(const float *from, long gates, long H, float *to, long W) {
    for (long g = 0; g < gates; g++)
        for (long j = 0; j < H; j++) to[g * W + j] += from[g * H + j];
}

static void NAME(narrow)(const float *from, long gates, long H, float *to, long W) {
    for (long g = 0; g < gates; g++) memcpy(to + g * H, from + g * W, H * sizeof(float));
}

#define AT(array, t, n, width) ((array) + ((t) * rows + (n)) * (width))
#define KEPT(t, n) (keep == 0 || keep[(t) * rows + (n)] != 0.0f)
#define V(p) NAME(load)(p)

/* gates (T, N, G*H): input projections without bias in, activated gates out. bias: two vectors (G*H),
 * the inputs' and the states'. states, beside: see cells.py. */
INLINE int NAME(forward_cell)(const int cell, long first, long last, long rows, long steps,
                              long H, const float *weights, const float *input_bias,
                              const float *hidden_bias, const float *keep, float *gates,
                              float *states, float *beside) {
    const long G = gates_of(cell), W = NAME(padded)(H);
    float *packed = room(G * W * H), *z = room(BLOCK * G * W), *x = room(G * W),
          *h = room(BLOCK * W), *c = room(BLOCK * W), *b = room(G * W), *e = room(G * W);
    if (!packed || !z || !x || !h || !c || !b || !e) goto out_of_memory;
    NAME(pack_forward)(weights, G, H, packed);
    NAME(widen)(hidden_bias, G, H, b, W);
    NAME(widen)(input_bias, G, H, e, W);
    if (cell != GRU)
        for (long j = 0; j < G * W; j++) b[j] += e[j];
    for (long start = first; start < last; start += BLOCK) {
        const int count = (int)(last - start < BLOCK ? last - start : BLOCK);
        memset(h, 0, BLOCK * W * sizeof(float));
        memset(c, 0, BLOCK * W * sizeof(float));
        for (long t = 0; t < steps; t++) {
            for (int r = 0; r < count; r++) {
                float *row = z + r * G * W;
                memcpy(row, b, G * W * sizeof(float));
                if (cell != GRU) NAME(add)(AT(gates, t, start + r, G * H), G, H, row, W);
            }
            NAME(product)(count, h, W, H, packed, z, G * W);
            for (int r = 0; r < count; r++) {
                const long n = start + r;
                float *row = z + r * G * W, *hr = h + r * W, *cr = c + r * W;
                if (cell == GRU) {
                    memcpy(x, e, G * W * sizeof(float));
                    NAME(add)(AT(gates, t, n, G * H), G, H, x, W);
                    memcpy(AT(beside, t, n, H), row + 2 * W, H * sizeof(float));
                }
                const int kept = KEPT(t, n);
                for (long j = 0; j < W; j += LANES) {
                    VEC new_h, new_c = V(cr + j);
                    if (cell == LSTM) {
                        const VEC i = NAME(sigmoid)(V(row + j)), f = NAME(sigmoid)(V(row + W + j)),
                                  g = NAME(tanh)(V(row + 2 * W + j)),
                                  o = NAME(sigmoid)(V(row + 3 * W + j));
                        new_c = f * new_c + i * g;
                        new_h = o * NAME(tanh)(new_c);
                        NAME(store)(row + j, i);
                        NAME(store)(row + W + j, f);
                        NAME(store)(row + 2 * W + j, g);
                        NAME(store)(row + 3 * W + j, o);
                    } else if (cell == GRU) {
                        const VEC reset = NAME(sigmoid)(V(x + j) + V(row + j)),
                                  update = NAME(sigmoid)(V(x + W + j) + V(row + W + j)),
                                  candidate =
                                      NAME(tanh)(V(x + 2 * W + j) + reset * V(row + 2 * W + j));
                        new_h = candidate + update * (V(hr + j) - candidate);
                        NAME(store)(row + j, reset);
                        NAME(store)(row + W + j, update);
                        NAME(store)(row + 2 * W + j, candidate);
                    } else {
                        new_h = NAME(tanh)(V(row + j));
                        NAME(store)(row + j, new_h);
                    }
                    if (kept) {
                        NAME(store)(hr + j, new_h);
                        NAME(store)(cr + j, new_c);
                    }
                }
                for (long j = H; j < W; j++) hr[j] = cr[j] = 0.0f;
                NAME(narrow)(row, G, H, AT(gates, t, n, G * H), W);
                memcpy(AT(states, t + 1, n, H), hr, H * sizeof(float));
                if (cell == LSTM) memcpy(AT(beside, t + 1, n, H), cr, H * sizeof(float));
            }
        }
    }
    release(7, packed, z, x, h, c, b, e);
    return 0;
out_of_memory:
    release(7, packed, z, x, h, c, b, e);
    return 1;
}

/* gates: activated gates in, deltas as the inputs saw them out. hidden_deltas: GRU only, those the
 * states saw. grad (T, N, H): loss gradient of every output state. */
INLINE int NAME(backward_cell)(const int cell, long first, long last, long rows, long steps, long H,
                          const float *weights, const float *keep, const float *grad, float *gates,
                          const float *states, const float *beside, float *hidden_deltas) {
    const long G = gates_of(cell), W = NAME(padded)(H);
    float *packed = room(G * W * W), *d = room(BLOCK * G * W), *a = room(G * W),
          *dh = room(BLOCK * W), *dc = room(BLOCK * W), *p = room(W), *q = room(W), *s = room(W);
    if (!packed || !d || !a || !dh || !dc || !p || !q || !s) goto out_of_memory;
    NAME(pack_backward)(weights, G, H, packed);
    for (long start = first; start < last; start += BLOCK) {
        const int count = (int)(last - start < BLOCK ? last - start : BLOCK);
        memset(dh, 0, BLOCK * W * sizeof(float));
        memset(dc, 0, BLOCK * W * sizeof(float));
        for (long t = steps - 1; t >= 0; t--) {
            for (int r = 0; r < count; r++) {
                const long n = start + r;
                float *row = d + r * G * W, *dhr = dh + r * W, *dcr = dc + r * W;
                const float *g_in = AT(grad, t, n, H);
                for (long j = 0; j < H; j++) dhr[j] += g_in[j];
                if (!KEPT(t, n)) {
                    memset(row, 0, G * W * sizeof(float));
                    memset(AT(gates, t, n, G * H), 0, G * H * sizeof(float));
                    if (cell == GRU) memset(AT(hidden_deltas, t, n, G * H), 0, G * H * 4);
                    continue;
                }
                NAME(widen)(AT(gates, t, n, G * H), G, H, a, W);
                if (cell == LSTM) {
                    memcpy(p, AT(beside, t, n, H), H * sizeof(float));
                    memcpy(q, AT(beside, t + 1, n, H), H * sizeof(float));
                } else if (cell == GRU) {
                    memcpy(p, AT(states, t, n, H), H * sizeof(float));
                    memcpy(q, AT(beside, t, n, H), H * sizeof(float));
                }
                for (long j = 0; j < W; j += LANES) {
                    const VEC total = V(dhr + j);
                    VEC passed = total - total;
                    if (cell == LSTM) {
                        const VEC i = V(a + j), f = V(a + W + j), g = V(a + 2 * W + j),
                                  o = V(a + 3 * W + j), squashed = NAME(tanh)(V(q + j));
                        const VEC dm = V(dcr + j) + total * o * (1.0f - squashed * squashed);
                        NAME(store)(row + j, dm * g * i * (1.0f - i));
                        NAME(store)(row + W + j, dm * V(p + j) * f * (1.0f - f));
                        NAME(store)(row + 2 * W + j, dm * i * (1.0f - g * g));
                        NAME(store)(row + 3 * W + j, total * squashed * o * (1.0f - o));
                        NAME(store)(dcr + j, dm * f);
                    } else if (cell == GRU) {
                        const VEC reset = V(a + j), update = V(a + W + j), n_ = V(a + 2 * W + j);
                        const VEC dn = total * (1.0f - update) * (1.0f - n_ * n_);
                        NAME(store)(row + j, dn * V(q + j) * reset * (1.0f - reset));
                        NAME(store)(row + W + j,
                                    total * (V(p + j) - n_) * update * (1.0f - update));
                        NAME(store)(row + 2 * W + j, dn * reset);
                        NAME(store)(s + j, dn);
                        passed = total * update;
                    } else {
                        const VEC out = V(a + j);
                        NAME(store)(row + j, total * (1.0f - out * out));
                    }
                    NAME(store)(dhr + j, passed);
                }
                if (cell == GRU) {
                    NAME(narrow)(row, G, H, AT(hidden_deltas, t, n, G * H), W);
                    NAME(narrow)(row, 2, H, AT(gates, t, n, G * H), W);
                    memcpy(AT(gates, t, n, G * H) + 2 * H, s, H * sizeof(float));
                } else {
                    NAME(narrow)(row, G, H, AT(gates, t, n, G * H), W);
                }
            }
            NAME(product)(count, d, G * W, G * W, packed, dh, W);
        }
    }
    release(8, packed, d, a, dh, dc, p, q, s);
    return 0;
out_of_memory:
    release(8, packed, d, a, dh, dc, p, q, s);
    return 1;
}

/* The cell as a constant, so that each gets loops of its own. */
#define FOR_EACH_CELL(function, ...)                                                               \
    switch (cell) {                                                                                \
    case LSTM: return function(LSTM, __VA_ARGS__);                                                 \
    case GRU: return function(GRU, __VA_ARGS__);                                                   \
    default: return function(RNN, __VA_ARGS__);                                                    \
    }

TARGET int NAME(forward)(int cell, long first, long last, long rows, long steps, long H,
                         const float *weights, const float *input_bias, const float *hidden_bias,
                         const float *keep, float *gates, float *states, float *beside) {
    FOR_EACH_CELL(NAME(forward_cell), first, last, rows, steps, H, weights, input_bias, hidden_bias,
                  keep, gates, states, beside)
}

TARGET int NAME(backward)(int cell, long first, long last, long rows, long steps, long H,
                          const float *weights, const float *keep, const float *grad, float *gates,
                          const float *states, const float *beside, float *hidden_deltas) {
    FOR_EACH_CELL(NAME(backward_cell), first, last, rows, steps, H, weights, keep, grad, gates,
                  states, beside, hidden_deltas)
}

#undef FOR_EACH_CELL
#undef V
#undef KEPT
#undef AT
#undef INLINE
#undef PANEL
#undef IVEC
#undef VEC
