/* Patients' gradients and their norms, and sums of gradients, from the deltas. Layout: recurrent.c.
 *
 * A gradient is sum_t delta_t (outer) [x_t, 1 | h_before_t, 1]; here it lies as [panel of deltas][value]
 * [PANEL], gradient_size() floats. The ones make the two bias gradients. Padded steps are skipped.
 *
 * A patient's gradient is written in single precision from its own rows alone, then measured and summed
 * in double. So the norm is that of the very numbers that are summed, however much they lost to
 * rounding, and no other patient's part depends on who else is there.
 */

struct NAME(sum) {
    const struct sequence *s;
    const struct patients *patients;
    const double *weight; /* of each stored gradient */
    float *stored;        /* a gradient for each patient */
    double *squares;      /* of each patient */
    float *total;
    double *weighted;
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

/* One step's values, then 1, into tiles that are STEPS * TILE floats apart; null is zero. */
INLINE void NAME(pack_tiles)(const float *values, long count, float *to) {
    for (; count >= TILE; count -= TILE, to += STEPS * TILE) {
        for (int j = 0; j < TILE; j++) to[j] = values ? values[j] : 0.0f;
        if (values) values += TILE;
    }
    for (long j = 0; j < count; j++) to[j] = values ? values[j] : 0.0f;
    to[count] = 1.0f;
}

static TARGET void NAME(pack_values)(const struct sequence *s, const long *places, long count,
                                     float *to) {
    for (long k = 0; k < count; k++, to += TILE) {
        const long n = places[k] / s->steps, t = places[k] % s->steps;
        NAME(pack_tiles)(s->x + places[k] * s->inputs, s->inputs, to);
        NAME(pack_tiles)(state_before(s, n, t), s->hidden, to + INPUT_TILES * STEPS * TILE);
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

/* Add all rows' part to the panels from first to last of a gradient; scratch: sum_scratch(). */
static TARGET void NAME(add_rows)(const struct sequence *s, long first, long last, float *scratch,
                                  float *gradient) {
    float *deltas = scratch, *values = deltas + STEPS * PANEL;
    long *places = (long *)(values + (INPUT_TILES + STATE_TILES) * STEPS * TILE);
    struct NAME(cursor) cursor = {0, 0};
    long found;
    while ((found = NAME(next_steps)(s, 0, s->rows, &cursor, STEPS, places))) {
        NAME(pack_values)(s, places, found, values);
        for (long panel = first; panel < last; panel++)
            NAME(add_panel)(s, places, found, values, panel, deltas,
                            gradient + panel * value_width(s) * PANEL);
    }
}

/* The sum of squares, exact to double precision; not finite where a value is not. */
static TARGET double NAME(square)(const float *values, long count) {
    double sums[LANES] = {0}, sum = 0.0;
    for (long k = 0; k < count; k += LANES)
        for (int j = 0; j < LANES; j++) sums[j] += (double)values[k + j] * values[k + j];
    for (int j = 0; j < LANES; j++) sum += sums[j];
    return sum;
}

/* Write a patient's gradient and return its squared norm; a panel stays in the first cache. */
static TARGET double NAME(write)(const struct sequence *s, const int64_t *rows, long count,
                                 float *scratch, float *gradient) {
    float *deltas = scratch, *values = deltas + STEPS * PANEL;
    long *places = (long *)(values + (INPUT_TILES + STATE_TILES) * STEPS * TILE);
    const long panels = gate_width(s) / PANEL, size = value_width(s) * PANEL;
    struct NAME(cursor) cursor = {0, 0};
    double square = 0.0;
    long found = STEPS;
    for (int begun = 0; found == STEPS; begun = 1) {
        found = NAME(next_steps)(s, rows, count, &cursor, STEPS, places);
        NAME(pack_values)(s, places, found, values);
        for (long panel = 0; panel < panels; panel++) {
            float *part = gradient + panel * size;
            if (!begun) memset(part, 0, size * sizeof(float));
            NAME(add_panel)(s, places, found, values, panel, deltas, part);
            if (found < STEPS) square += NAME(square)(part, size);
        }
    }
    return square;
}

/* Take patients; write and measure the gradient of each. */
static TARGET int NAME(measure_work)(struct job *job) {
    const struct NAME(sum) *sum = job->context;
    const struct sequence *s = sum->s;
    float *scratch = room(NAME(sum_scratch)(s));
    if (!scratch) return 1;
    for (long p; take(job, &p);) {
        const int64_t *rows = sum->patients->rows + sum->patients->start[p];
        const long count = sum->patients->start[p + 1] - sum->patients->start[p];
        sum->squares[p] += NAME(write)(s, rows, count, scratch, sum->stored + p * GRADIENT_SIZE);
    }
    free(scratch);
    return 0;
}

/* Take ranges of panels, and sum all rows' gradients there. */
static TARGET int NAME(sum_work)(struct job *job) {
    const struct NAME(sum) *sum = job->context;
    const struct sequence *s = sum->s;
    const long panels = gate_width(s) / PANEL;
    float *scratch = room(NAME(sum_scratch)(s));
    if (!scratch) return 1;
    for (long i; take(job, &i);)
        NAME(add_rows)(s, panels * i / sum->ranges, panels * (i + 1) / sum->ranges, scratch,
                       sum->total);
    free(scratch);
    return 0;
}

enum { NAME(PIECE) = 2048, NAME(TOGETHER) = 4 };

/* Take pieces of the gradient, and sum the stored ones there. A gradient of weight 0 adds nothing,
 * whatever it holds: 0 times infinity would be NaN. */
static TARGET int NAME(stored_work)(struct job *job) {
    static const float nothing[NAME(PIECE)];
    const struct NAME(sum) *sum = job->context;
    const struct sequence *s = sum->s;
    const long size = GRADIENT_SIZE, patients = sum->patients->count;
    for (long i; take(job, &i);) {
        const long first = i * NAME(PIECE), length = least(size - first, NAME(PIECE));
        double *restrict to = sum->weighted + first;
        for (long p = 0; p < patients; p += NAME(TOGETHER)) {
            const float *from[NAME(TOGETHER)];
            double weight[NAME(TOGETHER)];
            for (int j = 0; j < NAME(TOGETHER); j++) {
                weight[j] = p + j < patients ? sum->weight[p + j] : 0.0;
                from[j] = weight[j] != 0.0 ? sum->stored + (p + j) * size + first : nothing;
            }
            for (long k = 0; k < length; k++)
                to[k] += (weight[0] * from[0][k] + weight[1] * from[1][k]) +
                         (weight[2] * from[2][k] + weight[3] * from[3][k]);
        }
    }
    return 0;
}

/* Gradient into torch's layout: (G, I), (G, H), (G), (G). */
#define UNPACK(name, real)                                                                          \
    int NAME(name)(const struct sequence *s, const real *gradient, real *input_weights,             \
                   real *hidden_weights, real *input_bias, real *hidden_bias) {                     \
        const long I = s->inputs, H = s->hidden, kinds = kinds_of(s->cell);                         \
        for (long column = 0; column < gate_width(s); column++) {                                   \
            const long kind = column / UNITS % kinds;                                               \
            const long unit = column / (UNITS * kinds) * UNITS + column % UNITS;                    \
            if (unit >= H) continue;                                                                \
            const long gate = gate_of(s->cell, kind) * H + unit;                                    \
            const real *from = gradient + column / PANEL * PANEL * value_width(s) + column % PANEL; \
            if (uses_inputs(s->cell, kind)) {                                                       \
                for (long k = 0; k < I; k++) input_weights[gate * I + k] = from[k * PANEL];         \
                input_bias[gate] = from[I * PANEL];                                                 \
            }                                                                                       \
            from += (I + 1) * PANEL;                                                                \
            if (uses_states(s->cell, kind)) {                                                       \
                for (long k = 0; k < H; k++) hidden_weights[gate * H + k] = from[k * PANEL];        \
                hidden_bias[gate] = from[H * PANEL];                                                \
            }                                                                                       \
        }                                                                                           \
        return 0;                                                                                   \
    }
UNPACK(unpack, float)
UNPACK(unpack_double, double)
#undef UNPACK

/* Floats of one patient's gradient in the kernel's own layout. */
long NAME(gradient_size)(const struct sequence *s) { return GRADIENT_SIZE; }

/* Write each patient's gradient into stored, and add its squared norm to squares. */
int NAME(measure)(const struct sequence *s, const struct patients *patients, double *squares,
                  float *stored) {
    const struct NAME(sum) sum = {.s = s, .patients = patients, .squares = squares, .stored = stored};
    return run(NAME(measure_work), &sum, patients->count, s->threads);
}

/* Sum the stored gradients, each times its patient's weight, into torch's layout. */
int NAME(sum_stored)(const struct sequence *s, const struct patients *patients, const double *weight,
                     float *stored, double *input_weights, double *hidden_weights,
                     double *input_bias, double *hidden_bias) {
    struct NAME(sum) sum = {.s = s, .patients = patients, .weight = weight, .stored = stored};
    sum.weighted = (double *)room(2 * GRADIENT_SIZE);
    if (!sum.weighted) return 1;
    const int failed = run(NAME(stored_work), &sum, up(GRADIENT_SIZE, NAME(PIECE)), s->threads);
    NAME(unpack_double)(s, sum.weighted, input_weights, hidden_weights, input_bias, hidden_bias);
    free(sum.weighted);
    return failed;
}

/* Sum all rows' gradients into torch's layout. */
int NAME(sum_gradients)(const struct sequence *s, float *input_weights, float *hidden_weights,
                        float *input_bias, float *hidden_bias) {
    struct NAME(sum) sum = {.s = s, .total = room(GRADIENT_SIZE)};
    if (!sum.total) return 1;
    sum.ranges = least(least(s->threads, MOST_THREADS), gate_width(s) / PANEL);
    const int failed = run(NAME(sum_work), &sum, sum.ranges, s->threads);
    if (!failed)
        NAME(unpack)(s, sum.total, input_weights, hidden_weights, input_bias, hidden_bias);
    free(sum.total);
    return failed;
}

#undef INPUT_TILES
#undef STATE_TILES
#undef GRADIENT_SIZE
