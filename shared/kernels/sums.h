/* Patients' gradient norms, and weighted sums of gradients, from the deltas. Layout: recurrent.c.
 *
 * A gradient is sum_t delta_t (outer) [x_t, 1 | h_before_t, 1]; here it lies as [panel of deltas][value]
 * [PANEL], gradient_size() floats. The ones make the two bias gradients. Padded steps are skipped.
 */

struct NAME(sum) {
    const struct sequence *s;
    const struct patients *patients;
    const float *weight; /* of each row, or of each stored gradient; null: 1 */
    float *stored;       /* a gradient for each patient, or null */
    double *squares;     /* of each patient */
    float *total;
    long ranges;
};

/* Where a patient's steps have been read up to. */
struct NAME(cursor) { long row, t; };

#define INPUT_TILES up(s->inputs + 1, TILE)
#define STATE_TILES up(s->hidden + 1, TILE)
#define GRADIENT_SIZE (gate_width(s) * value_width(s))

/* The next counting steps' places n * T + t, at most most; null rows stand for all rows. */
static long NAME(next_steps)(const struct sequence *s, const int64_t *rows, long count,
                             struct NAME(cursor) *cursor, long most, long *places) {
    long found = 0;
    for (; cursor->row < count; cursor->row++, cursor->t = 0) {
        const long n = rows ? rows[cursor->row] : cursor->row;
        for (; cursor->t < s->steps; cursor->t++) {
            if (found == most) return found;
            if (kept(s, n, cursor->t)) places[found++] = n * s->steps + cursor->t;
        }
    }
    return found;
}

/* One step's values times a weight into tiles that are STEPS * TILE floats apart; null is zero. */
INLINE void NAME(pack_tiles)(const float *values, long count, float weight, float *to) {
    for (; count >= TILE; count -= TILE, to += STEPS * TILE) {
        for (int j = 0; j < TILE; j++) to[j] = values ? values[j] * weight : 0.0f;
        if (values) values += TILE;
    }
    for (long j = 0; j < count; j++) to[j] = values ? values[j] * weight : 0.0f;
    to[count] = weight;
}

static TARGET void NAME(pack_values)(const struct sequence *s, const long *places, long count,
                                     const float *weight, float *to) {
    for (long k = 0; k < count; k++, to += TILE) {
        const long n = places[k] / s->steps, t = places[k] % s->steps;
        const float w = weight ? weight[n] : 1.0f;
        NAME(pack_tiles)(s->x + places[k] * s->inputs, s->inputs, w, to);
        NAME(pack_tiles)(state_before(s, n, t), s->hidden, w, to + INPUT_TILES * STEPS * TILE);
    }
}

/* Add these steps' part to one panel of a gradient. */
static TARGET void NAME(add_panel)(const struct sequence *s, const long *places, long count,
                                   const float *values, long panel, float *deltas, float *gradient) {
    const long width = gate_width(s), kind = panel * PANEL / UNITS % kinds_of(s->cell);
    for (long k = 0; k < count; k++) {
        const float *from = s->gates + places[k] * width + panel * PANEL;
        NAME(store)(deltas + k * PANEL, V(from));
        NAME(store)(deltas + k * PANEL + LANES, V(from + LANES));
    }
    const long lengths[2] = {s->inputs + 1, s->hidden + 1};
    const int used[2] = {uses_inputs(s->cell, kind), uses_states(s->cell, kind)};
    for (int part = 0; part < 2; part++) {
        for (long j = 0; j < lengths[part]; j += TILE, values += STEPS * TILE)
            if (used[part])
                NAME(outer)((int)least(TILE, lengths[part] - j), values, count, deltas,
                            gradient + j * PANEL);
        gradient += lengths[part] * PANEL;
    }
}

static long NAME(sum_scratch)(const struct sequence *s) {
    return STEPS * PANEL + (INPUT_TILES + STATE_TILES) * STEPS * TILE + 2 * STEPS;
}

/* Add the rows' part to the panels from first to last of a gradient; scratch: sum_scratch(). */
static TARGET void NAME(add_rows)(const struct sequence *s, const int64_t *rows, long count,
                                  const float *weight, long first, long last, float *scratch,
                                  float *gradient) {
    float *deltas = scratch, *values = deltas + STEPS * PANEL;
    long *places = (long *)(values + (INPUT_TILES + STATE_TILES) * STEPS * TILE);
    struct NAME(cursor) cursor = {0, 0};
    long found;
    while ((found = NAME(next_steps)(s, rows, count, &cursor, STEPS, places))) {
        NAME(pack_values)(s, places, found, weight, values);
        for (long panel = first; panel < last; panel++)
            NAME(add_panel)(s, places, found, values, panel, deltas,
                            gradient + panel * value_width(s) * PANEL);
    }
}

static TARGET double NAME(square)(const float *values, long count) {
    double sum = 0.0;
    for (long start = 0; start < count; start += 64 * PANEL) {
        VEC one = {0}, two = {0};
        const long end = least(count, start + 64 * PANEL);
        for (long k = start; k < end; k += PANEL) {
            one += V(values + k) * V(values + k);
            two += V(values + k + LANES) * V(values + k + LANES);
        }
        sum += NAME(total)(one + two);
    }
    return sum;
}

/* The totals of 16 vectors, added to sums. */
INLINE void NAME(add_totals)(const VEC part[16], float sums[16]) {
#if LANES == 16
    VEC pair[8], quad[4], half[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        pair[i] = _mm512_unpacklo_ps(part[2 * i], part[2 * i + 1]) +
                  _mm512_unpackhi_ps(part[2 * i], part[2 * i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512d one = (__m512d)pair[2 * i], two = (__m512d)pair[2 * i + 1];
        quad[i] = (VEC)_mm512_unpacklo_pd(one, two) + (VEC)_mm512_unpackhi_pd(one, two);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        half[i] = _mm512_shuffle_f32x4(quad[2 * i], quad[2 * i + 1], 0x88) +
                  _mm512_shuffle_f32x4(quad[2 * i], quad[2 * i + 1], 0xdd);
    NAME(store)(sums, V(sums) + _mm512_shuffle_f32x4(half[0], half[1], 0x88) +
                          _mm512_shuffle_f32x4(half[0], half[1], 0xdd));
#else
    for (int i = 0; i < 16; i++) sums[i] += NAME(total)(part[i]);
#endif
}

/* Inner products of four vectors with four others, added to sums. */
INLINE void NAME(inner)(const float *const *a, const float *const *b, long from, long length,
                        float sums[16]) {
    VEC part[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) part[i] = (VEC){0};
    for (long k = from; k < from + length; k += LANES) {
        const VEC b0 = V(b[0] + k), b1 = V(b[1] + k), b2 = V(b[2] + k), b3 = V(b[3] + k);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const VEC value = V(a[i] + k);
            part[4 * i] += value * b0;
            part[4 * i + 1] += value * b1;
            part[4 * i + 2] += value * b2;
            part[4 * i + 3] += value * b3;
        }
    }
    NAME(add_totals)(part, sums);
}

/* A step's deltas and values for the Gram identity, rounded up to whole vectors. */
struct NAME(gram) {
    long count, input_row, state_row;
    long *places;
    float *inputs, *states, *zeros;
};

/* The 4 x 4 terms <delta_t, delta_s> (<value_t, value_s>) of steps t = first.. and s = second.. */
static TARGET void NAME(gram_tile)(const struct sequence *s, const struct NAME(gram) *g, long first,
                                   long second, float terms[16]) {
    const float *rows[6][4]; /* deltas, inputs, states of the first steps, then of the second */
    const long width = gate_width(s), PH = padded(s);
    for (int i = 0; i < 4; i++)
        for (int side = 0; side < 2; side++) {
            const long k = (side ? second : first) + i, known = k < g->count;
            rows[3 * side][i] = known ? s->gates + g->places[k] * width : g->zeros;
            rows[3 * side + 1][i] = g->inputs + (known ? k : 0) * g->input_row;
            rows[3 * side + 2][i] = g->states + (known ? k : 0) * g->state_row;
        }
    float of_inputs[16], of_states[16], both[16] = {0}, one[16] = {0}, two[16] = {0};
    for (int i = 0; i < 16; i++) of_inputs[i] = of_states[i] = 1.0f; /* the biases */
    NAME(inner)(rows[1], rows[4], 0, g->input_row, of_inputs);
    NAME(inner)(rows[2], rows[5], 0, g->state_row, of_states);
    if (s->cell == GRU)
        for (long unit = 0; unit < PH; unit += UNITS) {
            NAME(inner)(rows[0], rows[3], 4 * unit, 2 * UNITS, both);
            NAME(inner)(rows[0], rows[3], 4 * unit + 2 * UNITS, UNITS, one);
            NAME(inner)(rows[0], rows[3], 4 * unit + 3 * UNITS, UNITS, two);
        }
    else
        NAME(inner)(rows[0], rows[3], 0, width, both);
    for (int i = 0; i < 16; i++)
        terms[i] = both[i] * (of_inputs[i] + of_states[i]) + one[i] * of_inputs[i] +
                   two[i] * of_states[i];
}

/* The squared norm by the Gram identity; negative where the steps nearly cancel, which costs digits. */
static TARGET double NAME(gram_square)(const struct sequence *s, const struct NAME(gram) *g) {
    double sum = 0.0, bound = 0.0;
    for (long first = 0; first < g->count; first += 4)
        for (long second = first; second < g->count; second += 4) {
            float terms[16];
            NAME(gram_tile)(s, g, first, second, terms);
            for (int i = 0; i < 16; i++) sum += (second > first ? 2.0 : 1.0) * terms[i];
            for (int i = 0; second == first && i < 4; i++)
                bound += sqrt(terms[5 * i] > 0 ? terms[5 * i] : 0.0);
        }
    return sum < CANCELLATION * bound * bound ? -1.0 : sum;
}

/* Whether the Gram identity takes fewer products than writing the gradient out. */
int NAME(gram_pays)(const struct sequence *s, long count) {
    return (count + 4) / 2 * (gate_width(s) + value_width(s)) < GRADIENT_SIZE;
}

/* A negative result: not measured, since memory is lacking or digits would be lost. */
static TARGET double NAME(try_gram)(const struct sequence *s, const int64_t *rows, long count,
                                    long steps) {
    struct NAME(gram) g = {0, up(s->inputs, LANES) * LANES, padded(s), 0, 0, 0, 0};
    g.places = malloc(steps * sizeof(long));
    g.inputs = room(steps * g.input_row);
    g.states = room(steps * g.state_row);
    g.zeros = room(gate_width(s));
    double square = -1.0;
    if (g.places && g.inputs && g.states && g.zeros) {
        struct NAME(cursor) cursor = {0, 0};
        g.count = NAME(next_steps)(s, rows, count, &cursor, steps, g.places);
        for (long k = 0; k < g.count; k++) {
            const float *h = state_before(s, g.places[k] / s->steps, g.places[k] % s->steps);
            memcpy(g.inputs + k * g.input_row, s->x + g.places[k] * s->inputs,
                   s->inputs * sizeof(float));
            if (h) memcpy(g.states + k * g.state_row, h, s->hidden * sizeof(float));
        }
        square = NAME(gram_square)(s, &g);
    }
    free(g.places);
    free(g.inputs);
    free(g.states);
    free(g.zeros);
    return square;
}

/* Take patients, and measure each; keep the gradients where they are asked for. */
static TARGET int NAME(measure_work)(struct job *job) {
    const struct NAME(sum) *sum = job->context;
    const struct sequence *s = sum->s;
    const long size = GRADIENT_SIZE;
    float *scratch = room(NAME(sum_scratch)(s)), *own = room(sum->stored ? 0 : size);
    int failed = !scratch || !own;
    for (long p; !failed && take(job, &p);) {
        const int64_t *rows = sum->patients->rows + sum->patients->start[p];
        const long count = sum->patients->start[p + 1] - sum->patients->start[p];
        const long steps = count * s->steps;
        double square = -1.0;
        if (!sum->stored && steps && NAME(gram_pays)(s, steps))
            square = NAME(try_gram)(s, rows, count, steps);
        if (square < 0.0 || square != square) {
            float *gradient = sum->stored ? sum->stored + p * size : own;
            memset(gradient, 0, size * sizeof(float));
            NAME(add_rows)(s, rows, count, 0, 0, gate_width(s) / PANEL, scratch, gradient);
            square = NAME(square)(gradient, size);
        }
        sum->squares[p] += square;
    }
    free(scratch);
    free(own);
    return failed;
}

/* Take ranges of panels, and sum all rows' gradients there. */
static TARGET int NAME(sum_work)(struct job *job) {
    const struct NAME(sum) *sum = job->context;
    const struct sequence *s = sum->s;
    const long panels = gate_width(s) / PANEL;
    float *scratch = room(NAME(sum_scratch)(s));
    if (!scratch) return 1;
    for (long i; take(job, &i);)
        NAME(add_rows)(s, 0, s->rows, sum->weight, panels * i / sum->ranges,
                       panels * (i + 1) / sum->ranges, scratch, sum->total);
    free(scratch);
    return 0;
}

enum { NAME(PIECE) = 4096 };

/* Take pieces of the gradient, and sum the stored ones there. */
static TARGET int NAME(stored_work)(struct job *job) {
    const struct NAME(sum) *sum = job->context;
    const struct sequence *s = sum->s;
    const long size = GRADIENT_SIZE;
    for (long i; take(job, &i);) {
        const long first = i * NAME(PIECE), last = least(size, first + NAME(PIECE));
        for (long p = 0; p < sum->patients->count; p++) {
            const float weight = sum->weight[p], *from = sum->stored + p * size;
            for (long k = first; k < last; k += LANES)
                NAME(store)(sum->total + k, V(sum->total + k) + V(from + k) * weight);
        }
    }
    return 0;
}

/* Gradient into torch's layout: (G, I), (G, H), (G), (G). */
int NAME(unpack)(const struct sequence *s, const float *gradient, float *input_weights,
                 float *hidden_weights, float *input_bias, float *hidden_bias) {
    const long I = s->inputs, H = s->hidden, kinds = kinds_of(s->cell);
    for (long column = 0; column < gate_width(s); column++) {
        const long kind = column / UNITS % kinds;
        const long unit = column / (UNITS * kinds) * UNITS + column % UNITS;
        if (unit >= H) continue;
        const long gate = gate_of(s->cell, kind) * H + unit;
        const float *from = gradient + column / PANEL * PANEL * value_width(s) + column % PANEL;
        if (uses_inputs(s->cell, kind)) {
            for (long k = 0; k < I; k++) input_weights[gate * I + k] = from[k * PANEL];
            input_bias[gate] = from[I * PANEL];
        }
        from += (I + 1) * PANEL;
        if (uses_states(s->cell, kind)) {
            for (long k = 0; k < H; k++) hidden_weights[gate * H + k] = from[k * PANEL];
            hidden_bias[gate] = from[H * PANEL];
        }
    }
    return 0;
}

/* Floats of one patient's gradient in the kernel's own layout. */
long NAME(gradient_size)(const struct sequence *s) { return GRADIENT_SIZE; }

/* Add each patient's squared gradient norm to squares, and fill stored where it is not null. */
int NAME(measure)(const struct sequence *s, const struct patients *patients, double *squares,
                  float *stored) {
    const struct NAME(sum) sum = {s, patients, 0, stored, squares, 0, 0};
    return run(NAME(measure_work), &sum, patients->count, s->threads);
}

/* Sum the rows' gradients, each times its weight (null: 1), into torch's layout. Where stored is not
 * null, the stored gradients of the patients are summed, and there is a weight for each patient. */
int NAME(sum_gradients)(const struct sequence *s, const struct patients *patients,
                        const float *weight, float *stored, float *input_weights,
                        float *hidden_weights, float *input_bias, float *hidden_bias) {
    struct NAME(sum) sum = {s, patients, weight, stored, 0, room(GRADIENT_SIZE), 0};
    if (!sum.total) return 1;
    int failed = 0;
    if (stored) {
        failed = run(NAME(stored_work), &sum, up(GRADIENT_SIZE, NAME(PIECE)), s->threads);
    } else {
        sum.ranges = least(least(s->threads, MOST_THREADS), gate_width(s) / PANEL);
        failed = run(NAME(sum_work), &sum, sum.ranges, s->threads);
    }
    if (!failed)
        NAME(unpack)(s, sum.total, input_weights, hidden_weights, input_bias, hidden_bias);
    free(sum.total);
    return failed;
}

#undef INPUT_TILES
#undef STATE_TILES
#undef GRADIENT_SIZE
