// Pixels in the lanes: each channel's rows are copied into a panel with zeros around them, in which every tap is a fixed
// distance away. Rows follow each other without a gap, so the right border of one is the left border of the next.
// With a stride, the panel has a part for each remainder of rows and columns by the stride.

// The spatial filter lies in stretches of PAIR pixels, one for each tap: (pixels / PAIR, taps, PAIR).
enum { PAIR = 2 * LANES };

// Two planes at once: out[p] = Σ_t K_t[p] · x[p + x_at[t]]. With a fixed number of taps, the channels' numbers are kept in
// registers.
INLINE void two_planes(real *restrict out, int64_t out_plane, const real *restrict x, int64_t x_plane,
                       const int64_t *restrict x_at, const real *restrict s, const real *restrict c, int64_t taps, int fixed,
                       int64_t count, int add) {
    enum { KEPT = 9 };
    const real *x_kept[KEPT];
    vec kept[2][KEPT];
    for (int64_t t = 0; t < taps && fixed; t++) {
        x_kept[t] = x + x_at[t];
        for (int plane = 0; plane < 2; plane++)
            kept[plane][t] = c[plane * taps + t] - (vec){0};
    }
    for (int64_t p = 0; p < count; p += PAIR, s += taps * PAIR) {
        vec sum[2][2] = {0};
#pragma GCC unroll 9
        for (int64_t t = 0; t < taps; t++) {
            const real *here = fixed ? x_kept[t] : x + x_at[t];
#pragma GCC unroll 2
            for (int part = 0; part < 2; part++) {
                vec of_pixel = GET(s, t * PAIR + part * LANES);
#pragma GCC unroll 2
                for (int plane = 0; plane < 2; plane++) {
                    vec of_channel = c[plane * taps + t] - (vec){0};
                    if (fixed)
                        of_channel = kept[plane][t];
                    vec kernel = add ? of_pixel + of_channel : of_pixel * of_channel;
                    sum[plane][part] += kernel * GET(here, p + plane * x_plane + part * LANES);
                }
            }
        }
        for (int plane = 0; plane < 2; plane++)
            for (int part = 0; part < 2; part++)
                PUT(out, plane * out_plane + p + part * LANES) = sum[plane][part];
    }
}

APART void filter_planes(real *out, int64_t out_plane, const real *x, int64_t x_plane, const int64_t *x_at, const real *s,
                         const real *c, int64_t taps, int64_t count, int add) {
    if (taps == 9 && !add)
        two_planes(out, out_plane, x, x_plane, x_at, s, c, 9, 1, count, 0);
    else if (add)
        two_planes(out, out_plane, x, x_plane, x_at, s, c, taps, 0, count, 1);
    else
        two_planes(out, out_plane, x, x_plane, x_at, s, c, taps, 0, count, 0);
}

// Two planes' part of the filters' gradients: with q = g[p] · x[p + x_at], sums over p of q · S for the channel filter, and
// q · C added to the spatial one's.
INLINE void vectors_of_two_planes(vec *sums, real *restrict of_s, const real *restrict g, int64_t g_plane,
                                        const real *restrict x, int64_t x_plane, const real *restrict s, real c0, real c1,
                                        int add) {
    vec first = GET(g, 0) * GET(x, 0), second = GET(g, g_plane) * GET(x, x_plane), of_pixel = GET(s, 0);
    if (add) {
        PUT(of_s, 0) += first + second;
        sums[0] += first, sums[1] += second;
    } else {
        PUT(of_s, 0) += first * c0 + second * c1;
        sums[0] += first * of_pixel, sums[1] += second * of_pixel;
    }
}

INLINE void tap_of_two_planes(real *of_s, real *of_c, const real *g, int64_t g_plane, const real *x, int64_t x_plane,
                              const real *s, int64_t s_step, real c0, real c1, int64_t count, int add) {
    vec sums[2][2] = {0};
    int64_t p = 0;
    for (; p + PAIR <= count; p += PAIR, s += s_step)
        for (int part = 0; part < 2; part++) {
            int64_t at = p + part * LANES;
            vectors_of_two_planes(sums[part], of_s + at, g + at, g_plane, x + at, x_plane, s + part * LANES, c0, c1, add);
        }
    for (; p < count; p += LANES, s += LANES) {
        real rest[2 * LANES];
        vec wanted = GET(some_lanes, MAX(2 * LANES - (count - p), LANES));
        PUT(rest, 0) = GET(g, p) * wanted, PUT(rest, LANES) = GET(g, p + g_plane) * wanted;
        vectors_of_two_planes(sums[0], of_s + p, rest, LANES, x + p, x_plane, s, c0, c1, add);
    }
    for (int plane = 0; plane < 2; plane++)
        of_c[plane] = total(sums[0][plane] + sums[1][plane]);
}

APART void gradients_of_planes(real *of_s, real *of_c, const real *g, int64_t g_plane, const real *x,
                               int64_t x_plane, const real *s, int64_t s_step, real c0, real c1, int64_t count, int add) {
    if (add)
        tap_of_two_planes(of_s, of_c, g, g_plane, x, x_plane, s, s_step, c0, c1, count, 1);
    else
        tap_of_two_planes(of_s, of_c, g, g_plane, x, x_plane, s, s_step, c0, c1, count, 0);
}

// Rows first, first + row_step, ... and columns from `left` in steps of `column_step` between a plane of a tensor and a
// panel; what lies outside the plane, or outside [low, high) of its rows, is left alone.
INLINE void copy_plane(int storing, real *panel, int64_t width, const struct tensor *tensor, int64_t image,
                             int64_t channel, const int64_t *size, int64_t low, int64_t high, int64_t first,
                             int64_t rows, int64_t row_step, int64_t left, int64_t column_step) {
    int64_t skip = left < 0 ? UP(-left, column_step) : 0;
    int64_t count = MIN(width, UP(size[1] - left, column_step)) - skip, step = column_step * tensor->step[COLUMN];
    int64_t begin = first < low ? UP(low - first, row_step) : 0, end = first < high ? MIN(rows, UP(high - first, row_step)) : 0;
    if (count <= 0 || begin >= end)
        return;
    if (tensor->dtype == REAL && step == 1) {
        real *values = (real *)at(tensor, image, channel, first + begin * row_step, left + skip * column_step);
        real *own = panel + begin * width + skip;
        if (storing)
            move_rows(values, row_step * tensor->step[ROW], own, width, end - begin, count);
        else
            move_rows(own, width, values, row_step * tensor->step[ROW], end - begin, count);
        return;
    }
    for (int64_t m = begin; m < end; m++) {
        int64_t row = first + m * row_step;
        char *values = at(tensor, image, channel, row, left + skip * column_step);
        if (storing)
            store(values, tensor->dtype, step, panel + m * width + skip, 1, count);
        else
            load(panel + m * width + skip, 1, values, tensor->dtype, step, count);
    }
}

APART void load_plane(real *panel, int64_t width, const struct tensor *tensor, int64_t image, int64_t channel,
                            const int64_t *size, int64_t first, int64_t rows, int64_t row_step, int64_t left,
                            int64_t column_step) {
    copy_plane(0, panel, width, tensor, image, channel, size, 0, size[0], first, rows, row_step, left, column_step);
}

APART void store_plane(const real *panel, int64_t width, const struct tensor *tensor, int64_t image,
                             int64_t channel, const int64_t *size, int64_t low, int64_t high, int64_t first,
                             int64_t rows, int64_t row_step, int64_t left, int64_t column_step) {
    copy_plane(1, (real *)panel, width, tensor, image, channel, size, low, high, first, rows, row_step, left,
                     column_step);
}

// How the rows of results are cut into blocks, and what a block's panels measure.
struct panels {
    int64_t width;             // of a row with its border
    int64_t rows, blocks;      // of results in a block; blocks of an image
    int64_t halo;              // rows above and below which a gradient of the input reads
    int64_t padding[2];
    int64_t part, x_size;      // one remainder's part of the input's panel; all of it
    int64_t out_size, g_size;  // of a panel of results; of the gradient with its halo
};

static struct panels make_panels(const struct arguments *a) {
    enum { MOST = 1024 };  // values of a panel, so that the panels of all taps stay near
    struct panels p;
    for (int axis = 0; axis < 2; axis++)
        p.padding[axis] = a->dilation[axis] * (a->kernel[axis] - 1) / 2;
    int64_t sides = UP(p.padding[1], a->stride[1]), reach = 2 * p.padding[0] / a->stride[0];
    p.width = a->out_size[1] + (a->stride[1] == 1 ? sides : MAX(sides, 2 * p.padding[1] / a->stride[1]));
    p.halo = UP(p.padding[0], a->stride[0]);
    p.rows = MAX(UP(MOST, p.width), reach);
    p.blocks = UP(a->out_size[0], MIN(p.rows, a->out_size[0]));
    p.rows = UP(a->out_size[0], p.blocks);
    p.part = (p.rows + reach + 2) * p.width + 4 * LANES;
    p.x_size = p.part * a->stride[0] * a->stride[1];
    p.out_size = (p.rows + 1) * p.width + 4 * LANES;
    p.g_size = (p.rows + 2 * p.halo + 2) * p.width + 4 * LANES;
    return p;
}

// Where each tap lies in the input's panel.
static void tap_places(const struct arguments *a, const struct panels *p, int64_t *x_at) {
    for (int64_t u = 0; u < a->kernel[0]; u++)
        for (int64_t v = 0; v < a->kernel[1]; v++) {
            int64_t down = u * a->dilation[0], right = v * a->dilation[1];
            int64_t part = down % a->stride[0] * a->stride[1] + right % a->stride[1];
            x_at[u * a->kernel[1] + v] = part * p->part + down / a->stride[0] * p->width + right / a->stride[1];
        }
}

static void load_input(const struct arguments *a, const struct panels *p, real *panel, int64_t image,
                             int64_t channel, int64_t first_row) {
    int64_t rows = p->rows + 2 * p->padding[0] / a->stride[0];
    for (int64_t down = 0; down < a->stride[0]; down++)
        for (int64_t right = 0; right < a->stride[1]; right++)
            load_plane(panel + (down * a->stride[1] + right) * p->part, p->width, &a->input, image, channel, a->size,
                             first_row * a->stride[0] + down - p->padding[0], rows, a->stride[0],
                             right - p->padding[1], a->stride[1]);
}

// Some taps of one head's and branch's spatial filter, in stretches: the values of `rows` rows from that of each tap's `first`
// on, and of columns from -beside on. Normalised where all taps are taken.
static void load_spatial(const struct arguments *a, int64_t width, real *to, real *panel, int64_t size, int64_t image,
                         int64_t filter, int64_t taps, const int64_t *chosen, const int64_t *first, const int64_t *beside,
                         int64_t rows) {
    int64_t all = a->kernel[0] * a->kernel[1], stretches = UP(rows * width, PAIR);
    for (int64_t t = 0; t < taps; t++) {
        for (int64_t i = 0; i < size; i++)
            panel[i] = a->spatial.data || a->add ? 0 : 1;
        if (a->spatial.data)
            load_plane(panel, width, &a->spatial, image, filter * all + chosen[t], a->out_size, first[t], rows, 1, -beside[t], 1);
        for (int64_t stretch = 0; stretch < stretches; stretch++)
            memcpy(to + (stretch * taps + t) * PAIR, panel + stretch * PAIR, PAIR * sizeof(real));
    }
    if (a->spatial.data && a->spatial_scale) {
        const real *scale = (const real *)a->spatial_scale + filter * all, *shift = a->spatial_shift;
        for (int64_t stretch = 0; stretch < stretches; stretch++)
            normalise(to + stretch * all * PAIR, PAIR, all, PAIR, scale, shift ? shift + filter * all : 0, 0, a->eps);
    }
}
