/* Rows times a matrix: every row by itself, so that its numbers depend on no other row, nor on how many
 * there are or where they lie. A BLAS gives no such promise. */

static TARGET __attribute__((noinline)) void NAME(rows_of)(int rows, long inputs, const float *x,
                                                           const float *packed, float *out) {
    NAME(tile)(rows, inputs, 1, x, inputs, packed, out, PANEL);
}

/* out (rows, outputs) = x (rows, inputs) times weight, plus bias (null: 0). Entry (k, o) of the weight
 * is weight[k * input_step + o * output_step]. */
int NAME(multiply_rows)(const float *x, long rows, long inputs, const float *weight, long input_step,
                        long output_step, const float *bias, long outputs, float *out) {
    const long panels = up(outputs, PANEL);
    float *packed = room(panels * PANEL * inputs);
    if (!packed) return 1;
    for (long o = 0; o < outputs; o++)
        for (long k = 0; k < inputs; k++)
            packed[(o / PANEL * inputs + k) * PANEL + o % PANEL] =
                weight[k * input_step + o * output_step];
    for (long first = 0; first < rows; first += TILE) {
        const int count = (int)least(TILE, rows - first);
        for (long panel = 0; panel < panels; panel++) {
            float found[TILE * PANEL] = {0};
            const long width = least(PANEL, outputs - panel * PANEL);
            for (int r = 0; bias && r < count; r++)
                memcpy(found + r * PANEL, bias + panel * PANEL, width * sizeof(float));
            NAME(rows_of)(count, inputs, x + first * inputs, packed + panel * PANEL * inputs, found);
            for (int r = 0; r < count; r++)
                memcpy(out + (first + r) * outputs + panel * PANEL, found + r * PANEL,
                       width * sizeof(float));
        }
    }
    free(packed);
    return 0;
}
