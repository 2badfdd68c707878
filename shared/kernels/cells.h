/* Through time, forward and backward: a block of rows runs through all steps, so that its state stays
 * in the first cache and the packed weights in the second. PH: H, padded to whole groups.
 *
 * Operands of products lie in chunks of CHUNK columns, [chunk][row][CHUNK], a constant distance apart.
 */

struct NAME(pass) {
    const struct sequence *s;
    const float *packed, *packed_inputs, *bias;
    long blocks;
};

static long NAME(packed_forward_size)(const struct sequence *s) {
    return gate_width(s) * (padded(s) + s->inputs);
}

/* Panel by panel, padded hidden + inputs rows of PANEL: transposed weights of PANEL units of a kind. */
static void NAME(pack_forward)(const struct sequence *s, float *packed, float *bias) {
    const long I = s->inputs, H = s->hidden, PH = padded(s), kinds = kinds_of(s->cell);
    for (long column = 0; column < gate_width(s); column++) {
        const long kind = column / UNITS % kinds;
        const long unit = column / (UNITS * kinds) * UNITS + column % UNITS;
        if (unit >= H) continue;
        const long gate = gate_of(s->cell, kind) * H + unit;
        float *to = packed + column / PANEL * PANEL * (PH + I) + column % PANEL;
        if (uses_inputs(s->cell, kind)) {
            for (long k = 0; k < I; k++) to[(PH + k) * PANEL] = s->input_weights[gate * I + k];
            bias[column] += s->input_bias[gate];
        }
        if (uses_states(s->cell, kind)) {
            for (long k = 0; k < H; k++) to[k * PANEL] = s->hidden_weights[gate * H + k];
            bias[column] += s->hidden_bias[gate];
        }
    }
}

/* For each group: panels of the weights' columns, a row for each kind and unit of the group. */
static void NAME(pack_backward)(const struct sequence *s, const float *weights, long columns,
                                long panels, float *packed) {
    const long kinds = kinds_of(s->cell);
    for (long row = 0; row < gate_width(s); row++) {
        const long group = row / (UNITS * kinds), kind = row / UNITS % kinds;
        const long unit = group * UNITS + row % UNITS;
        if (unit >= s->hidden) continue;
        const float *from = weights + (gate_of(s->cell, kind) * s->hidden + unit) * columns;
        float *to = packed + group * panels * kinds * UNITS * PANEL + row % (UNITS * kinds) * PANEL;
        for (long panel = 0; panel * PANEL < columns; panel++)
            memcpy(to + panel * kinds * UNITS * PANEL, from + panel * PANEL,
                   least(PANEL, columns - panel * PANEL) * sizeof(float));
    }
}

/* out (rows of UNITS) += columns first to last of the operand (chunks) times a panel's rows. */
INLINE void NAME(chunked)(int count, const float *operand, long first, long last, const float *panel,
                          float *out) {
    while (first < last) {
        const long depth = least(CHUNK - first % CHUNK, last - first);
        const float *chunk = operand + first / CHUNK * CHUNK * count + first % CHUNK;
        NAME(product)(count, chunk, depth, panel + first * PANEL, out, UNITS);
        first += depth;
    }
}

/* Floats of scratch that one block needs. */
static long NAME(forward_scratch)(const struct sequence *s) {
    return BLOCK * (2 * up(padded(s) + s->inputs, CHUNK) * CHUNK + padded(s) +
                    kinds_of(s->cell) * UNITS);
}

/* One row's units j to j + LANES of a group: pre-activations in z become gates; new state and memory. */
INLINE void NAME(activate)(const int cell, const float *z, long kind_row, VEC h, VEC c, float *gates,
                           VEC *new_h, VEC *new_c) {
    *new_c = c;
    if (cell == LSTM) {
        const VEC i = NAME(sigmoid)(V(z)), f = NAME(sigmoid)(V(z + kind_row)),
                  g = NAME(tanh)(V(z + 2 * kind_row)), o = NAME(sigmoid)(V(z + 3 * kind_row));
        *new_c = f * c + i * g;
        *new_h = o * NAME(tanh)(*new_c);
        NAME(store)(gates, i);
        NAME(store)(gates + UNITS, f);
        NAME(store)(gates + 2 * UNITS, g);
        NAME(store)(gates + 3 * UNITS, o);
    } else if (cell == GRU) {
        const VEC reset = NAME(sigmoid)(V(z)), update = NAME(sigmoid)(V(z + kind_row)),
                  part = V(z + 3 * kind_row),
                  candidate = NAME(tanh)(V(z + 2 * kind_row) + reset * part);
        *new_h = candidate + update * (h - candidate);
        NAME(store)(gates, reset);
        NAME(store)(gates + UNITS, update);
        NAME(store)(gates + 2 * UNITS, candidate);
        NAME(store)(gates + 3 * UNITS, part);
    } else {
        *new_h = NAME(tanh)(V(z));
        NAME(store)(gates, *new_h);
    }
}

INLINE void NAME(forward_block)(const int cell, const struct NAME(pass) *pass, long first, int count,
                                float *scratch) {
    const struct sequence *s = pass->s;
    const long I = s->inputs, H = s->hidden, PH = padded(s), T = s->steps, kinds = kinds_of(cell);
    const long kind_row = count * UNITS, operand = up(PH + I, CHUNK) * CHUNK * count;
    float *old = scratch, *new = old + operand, *memory = new + operand, *z = memory + PH * count;
    memset(old, 0, (z - old) * sizeof(float));
    for (long step = 0; step < T; step++) {
        const long t = s->reverse ? T - 1 - step : step;
        for (int r = 0; r < count; r++) /* beside the state, so that one product takes both */
            for (long k = PH, next; k < PH + I; k = next) {
                next = least(PH + I, (k / CHUNK + 1) * CHUNK);
                memcpy(old + k / CHUNK * CHUNK * count + r * CHUNK + k % CHUNK,
                       s->x + ((first + r) * T + t) * I + k - PH, (next - k) * sizeof(float));
            }
        for (long unit = 0; unit < PH; unit += UNITS) {
            const float *panel = pass->packed + unit * kinds * (PH + I);
            for (long kind = 0; kind < kinds; kind++) {
                float *out = z + kind * kind_row;
                for (int r = 0; r < count; r++) {
                    const float *begun = pass->bias;
                    if (!I) begun = s->gates + ((first + r) * T + t) * PH * kinds;
                    memcpy(out + r * UNITS, begun + unit * kinds + kind * UNITS,
                           UNITS * sizeof(float));
                }
                const long from = uses_states(cell, kind) && step ? 0 : PH;
                const long to = uses_inputs(cell, kind) ? PH + I : PH;
                for (long q = 0; q < PANELS; q++, out += PANEL, panel += (PH + I) * PANEL)
                    NAME(chunked)(count, old, from, to, panel, out);
            }
            const long place = unit / CHUNK * CHUNK * count + unit % CHUNK;
            for (int r = 0; r < count; r++) {
                const long n = first + r, at = n * T + t;
                float *gates = s->gates + (at * PH + unit) * kinds;
                float *h_old = old + place + r * CHUNK, *h_new = new + place + r * CHUNK;
                float *c = memory + unit * count + r * UNITS;
                const int counts = kept(s, n, t);
                for (long j = 0; j < UNITS; j += LANES) {
                    VEC new_h, new_c;
                    NAME(activate)(cell, z + r * UNITS + j, kind_row, V(h_old + j), V(c + j),
                                   gates + j, &new_h, &new_c);
                    NAME(store)(h_new + j, counts ? new_h : V(h_old + j));
                    if (cell == LSTM) {
                        if (counts) NAME(store)(c + j, new_c);
                        NAME(store)(s->memory + at * PH + unit + j, V(c + j));
                    }
                }
                memcpy(s->states + at * s->state_step + unit, h_new,
                       least(UNITS, H - unit) * sizeof(float));
            }
        }
        float *swapped = old;
        old = new, new = swapped;
    }
}

/* Prefetch what a row needs a step from now: rows lie far apart, so the processor does not do it. */
INLINE void NAME(expect)(const int cell, const struct sequence *s, long n, long t, long unit) {
    const long PH = padded(s), T = s->steps, back = s->reverse ? 1 : -1;
    const long earlier = t + back, twice = t + 2 * back, at = n * T + earlier;
    if (earlier < 0 || earlier >= T) return;
    const float *grad = s->grad + at * s->grad_step + unit;
    const float *gates = s->gates + (at * PH + unit) * kinds_of(cell);
    for (long j = 0; j < UNITS; j += 16) __builtin_prefetch(grad + j, 0);
    for (long j = 0; j < UNITS * kinds_of(cell); j += 16) __builtin_prefetch(gates + j, 1);
    if (cell == LSTM && twice >= 0 && twice < T)
        for (long j = 0; j < UNITS; j += 16)
            __builtin_prefetch(s->memory + (n * T + twice) * PH + unit + j, 0);
}

static long NAME(backward_scratch)(const struct sequence *s) {
    return BLOCK * (3 * padded(s) + CHUNK + up(s->inputs, PANEL) * PANEL);
}

/* One row's units j to j + LANES of a group: gates become deltas, in place and in d; carried is what
 * goes past the gates into the state before. p: memory before, or state before; q: memory after. */
INLINE void NAME(differentiate)(const int cell, float *gates, float *d, VEC total, VEC p, VEC q,
                                float *memory_grad, VEC *carried) {
    *carried = total - total;
    if (cell == LSTM) {
        const VEC i = V(gates), f = V(gates + UNITS), g = V(gates + 2 * UNITS),
                  o = V(gates + 3 * UNITS), squashed = NAME(tanh)(q);
        const VEC dm = V(memory_grad) + total * o * (1.0f - squashed * squashed);
        NAME(store)(d, dm * g * i * (1.0f - i));
        NAME(store)(d + UNITS, dm * p * f * (1.0f - f));
        NAME(store)(d + 2 * UNITS, dm * i * (1.0f - g * g));
        NAME(store)(d + 3 * UNITS, total * squashed * o * (1.0f - o));
        NAME(store)(memory_grad, dm * f);
    } else if (cell == GRU) {
        const VEC reset = V(gates), update = V(gates + UNITS), candidate = V(gates + 2 * UNITS);
        const VEC dn = total * (1.0f - update) * (1.0f - candidate * candidate);
        NAME(store)(d, dn * V(gates + 3 * UNITS) * reset * (1.0f - reset));
        NAME(store)(d + UNITS, total * (p - candidate) * update * (1.0f - update));
        NAME(store)(d + 2 * UNITS, dn);
        NAME(store)(d + 3 * UNITS, dn * reset);
        *carried = total * update;
    } else {
        const VEC h = V(gates);
        NAME(store)(d, total * (1.0f - h * h));
    }
    const long kinds = cell == RNN ? 1 : 4;
    for (long kind = 0; kind < kinds; kind++)
        NAME(store)(gates + kind * UNITS, V(d + kind * UNITS));
}

/* One row of one group: its deltas into gates and d; gradients that bypass the gates go to before. */
INLINE void NAME(row_deltas)(const int cell, const struct sequence *s, long n, long t, long unit,
                             const float *total, float *memory_grad, float *d, float *before) {
    const long PH = padded(s), T = s->steps, at = n * T + t, kinds = cell == RNN ? 1 : 4;
    float *gates = s->gates + (at * PH + unit) * kinds;
    NAME(expect)(cell, s, n, t, unit);
    if (!kept(s, n, t)) {
        memset(gates, 0, kinds * UNITS * sizeof(float));
        memset(d, 0, kinds * UNITS * sizeof(float));
        for (long j = 0; j < UNITS; j += LANES)
            NAME(store)(before + j, V(before + j) + V(total + j));
        return;
    }
    float held[UNITS] = {0};
    const float *p = held, *q = held;
    const long earlier = t + (s->reverse ? 1 : -1);
    if (cell == LSTM) {
        q = s->memory + at * PH + unit;
        if (earlier >= 0 && earlier < T) p = s->memory + (n * T + earlier) * PH + unit;
    } else if (cell == GRU) {
        const float *h = state_before(s, n, t);
        if (h) memcpy(held, h + unit, least(UNITS, s->hidden - unit) * sizeof(float));
    }
    for (long j = 0; j < UNITS; j += LANES) {
        VEC carried;
        NAME(differentiate)(cell, gates + j, d + j, V(total + j), V(p + j), V(q + j),
                            memory_grad + j, &carried);
        NAME(store)(before + j, V(before + j) + carried);
    }
}

/* A group's deltas times the weights of its kinds: from the states, or from the inputs. */
INLINE void NAME(through_weights)(const int cell, int from_states, int count, const float *d,
                                  const float *packed, long columns, float *out, long out_row) {
    const long kinds = cell == RNN ? 1 : 4;
    for (long column = 0; column < columns; column += PANEL, packed += kinds * UNITS * PANEL) {
        const long leading = cell == GRU ? (from_states ? 2 : 3) : kinds;
        NAME(product)(count, d, leading * UNITS, packed, out + column, out_row);
        if (cell == GRU && from_states)
            NAME(product)(count, d + 3 * UNITS, UNITS, packed + 3 * UNITS * PANEL, out + column,
                          out_row);
    }
}

INLINE void NAME(backward_block)(const int cell, const struct NAME(pass) *pass, long first, int count,
                                 float *scratch) {
    const struct sequence *s = pass->s;
    const long I = s->inputs, H = s->hidden, PH = padded(s), T = s->steps, kinds = kinds_of(cell);
    const long input_row = up(I, PANEL) * PANEL;
    float *total = scratch, *before = total + PH * count, *memory_grad = before + PH * count,
          *d = memory_grad + PH * count, *dx = d + CHUNK * count;
    memset(total, 0, (d - total) * sizeof(float));
    for (long step = T - 1; step >= 0; step--) {
        const long t = s->reverse ? T - 1 - step : step;
        for (int r = 0; r < count; r++) {
            const float *grad = s->grad + ((first + r) * T + t) * s->grad_step;
            for (long j = 0; j < H; j++) total[r * PH + j] += grad[j];
        }
        memset(before, 0, PH * count * sizeof(float));
        memset(dx, 0, input_row * count * sizeof(float));
        for (long unit = 0; unit < PH; unit += UNITS) {
            for (int r = 0; r < count; r++)
                NAME(row_deltas)(cell, s, first + r, t, unit, total + r * PH + unit,
                                 memory_grad + r * PH + unit, d + r * CHUNK, before + r * PH + unit);
            if (step)
                NAME(through_weights)(cell, 1, count, d, pass->packed + unit * kinds * PH, PH, before,
                                      PH);
            if (s->input_grad)
                NAME(through_weights)(cell, 0, count, d,
                                      pass->packed_inputs + unit * kinds * input_row, input_row, dx,
                                      input_row);
        }
        for (int r = 0; s->input_grad && r < count; r++) {
            float *to = s->input_grad + ((first + r) * T + t) * I;
            for (long k = 0; k < I; k++)
                to[k] = dx[r * input_row + k] + (s->add_to_input_grad ? to[k] : 0.0f);
        }
        float *swapped = total;
        total = before, before = swapped;
    }
}

/* Take blocks of rows, nearly equal, and run each through time. */
#define BLOCKS(function, scratch_size)                                                              \
    const struct NAME(pass) *pass = job->context;                                                   \
    const long rows = pass->s->rows;                                                                \
    float *scratch = room(scratch_size(pass->s));                                                   \
    if (!scratch) return 1;                                                                         \
    for (long b; take(job, &b);) {                                                                  \
        const long first = rows * b / pass->blocks, last = rows * (b + 1) / pass->blocks;           \
        switch (pass->s->cell) {                                                                    \
        case LSTM: function(LSTM, pass, first, (int)(last - first), scratch); break;                \
        case GRU: function(GRU, pass, first, (int)(last - first), scratch); break;                  \
        default: function(RNN, pass, first, (int)(last - first), scratch);                          \
        }                                                                                           \
    }                                                                                               \
    free(scratch);                                                                                  \
    return 0;

static TARGET int NAME(forward_work)(struct job *job) {
    BLOCKS(NAME(forward_block), NAME(forward_scratch))
}

static TARGET int NAME(backward_work)(struct job *job) {
    BLOCKS(NAME(backward_block), NAME(backward_scratch))
}
#undef BLOCKS

static int NAME(run_blocks)(int (*work)(struct job *), struct NAME(pass) *pass) {
    const long threads = least(pass->s->threads, MOST_THREADS);
    pass->blocks = up(up(pass->s->rows, BLOCK), threads) * threads;
    pass->blocks = least(pass->blocks, pass->s->rows);
    return run(work, pass, pass->blocks, threads);
}

/* Fill states, gates and memory; without inputs the gates hold what those and the biases would have
 * given, and are replaced. 0: success; 1: no memory. */
int NAME(forward)(const struct sequence *s) {
    float *packed = room(NAME(packed_forward_size)(s)), *bias = room(gate_width(s));
    int failed = 1;
    if (packed && bias) {
        struct NAME(pass) pass = {s, packed, 0, bias, 0};
        NAME(pack_forward)(s, packed, bias);
        failed = NAME(run_blocks)(NAME(forward_work), &pass);
    }
    free(packed);
    free(bias);
    return failed;
}

/* Turn gates into deltas, and write or add to the gradient of the inputs where asked. */
int NAME(backward)(const struct sequence *s) {
    const long input_row = up(s->inputs, PANEL) * PANEL;
    float *packed = room(gate_width(s) * padded(s)),
          *inputs = room(s->input_grad ? gate_width(s) * input_row : 0);
    int failed = 1;
    if (packed && inputs) {
        struct NAME(pass) pass = {s, packed, inputs, 0, 0};
        NAME(pack_backward)(s, s->hidden_weights, s->hidden, padded(s) / PANEL, packed);
        if (s->input_grad)
            NAME(pack_backward)(s, s->input_weights, s->inputs, input_row / PANEL, inputs);
        failed = NAME(run_blocks)(NAME(backward_work), &pass);
    }
    free(packed);
    free(inputs);
    return failed;
}
