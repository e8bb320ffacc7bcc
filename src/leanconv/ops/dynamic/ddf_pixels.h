// Channels in the lanes: a pixel's taps are single numbers, its input a vector of channels for each tap. Pixels at the
// border, or between the steps of a stride, simply have fewer taps. A run of pixels has the same ones, each a step on.

// One head of an image whose channels are dense, or the spatial filter of it.
struct view {
    const real *data;
    int64_t tap, row, column;
};

struct run {
    int64_t pixels, taps, of_kernel;              // taps: those that are there, of all the kernel's
    int64_t *x_at, *s_at, *c_at;                  // for each of them
    int64_t channels, x_step, s_step, y_step;     // steps from pixel to pixel
};

// y[n] = Σ_t K_t[n] · x[n + x_at[t]] for one or two neighbours n. With a fixed number of taps, all that doesn't depend on the
// channel is kept in registers.
INLINE void few_pixels(const int few, real *restrict y, const real *restrict x, const real *restrict s,
                       const real *restrict c, const struct run *run, const int64_t taps, const int fixed, const int add) {
    enum { KEPT = 9 };
    int64_t blocks = blocks_of(run->channels), of_kernel = fixed ? taps : run->of_kernel;
    const real *x_kept[KEPT];
    vec kept[2][KEPT];
    if (fixed)
        for (int64_t t = 0; t < taps; t++) {
            x_kept[t] = x + run->x_at[t];
            for (int n = 0; n < few; n++)
                kept[n][t] = s[run->s_at[t] + n * run->s_step] - (vec){0};
        }
    for (int64_t block = 0; block < blocks; block++) {
        int64_t first = first_of(block, run->channels);
        vec sum[2] = {0};
#pragma GCC unroll 9
        for (int64_t t = 0; t < taps; t++) {
            vec of_channel = GET(c, (block * of_kernel + (fixed ? t : run->c_at[t])) * LANES);
            const real *here = fixed ? x_kept[t] : x + run->x_at[t];
#pragma GCC unroll 2
            for (int n = 0; n < few; n++) {
                vec of_pixel = s[run->s_at[t] + n * run->s_step] - (vec){0};
                if (fixed)
                    of_pixel = kept[n][t];
                vec kernel = add ? of_channel + of_pixel : of_channel * of_pixel;
                sum[n] += kernel * GET(here, first + n * run->x_step);
            }
        }
        for (int n = 0; n < few; n++)
            PUT(y, n * run->y_step + first) = sum[n];
    }
}

INLINE void all_pixels(real *y, const real *x, const real *s, const real *c, const struct run *run, const int64_t taps,
                       const int fixed, const int add) {
    int64_t n = 0;
    for (; n + 2 <= run->pixels; n += 2)
        few_pixels(2, y + n * run->y_step, x + n * run->x_step, s + n * run->s_step, c, run, taps, fixed, add);
    for (; n < run->pixels; n++)
        few_pixels(1, y + n * run->y_step, x + n * run->x_step, s + n * run->s_step, c, run, taps, fixed, add);
}

APART void filter_pixels(real *y, const real *x, const real *s, const real *c, const struct run *run, int add) {
    if (run->taps == 9 && run->of_kernel == 9 && !add)
        all_pixels(y, x, s, c, run, 9, 1, 0);
    else if (add)
        all_pixels(y, x, s, c, run, run->taps, 0, 1);
    else
        all_pixels(y, x, s, c, run, run->taps, 0, 0);
}

// The filters' gradients from up to AT_ONCE neighbours: with q = g[n] · x[n + x_at[t]], q · S for the channel filter's,
// and the sum over channels of q · C for the spatial one's. It takes some taps and blocks at once: the channel filter's
// part stays in registers along the neighbours; the lanes of the spatial one's are summed when all blocks are through.
enum { AT_ONCE = 16 };

INLINE void gradients_of_blocks(const int taps, const int blocks, vec (*restrict sums)[AT_ONCE], int64_t count,
                                real *restrict of_c, const real *restrict g, const real *restrict x,
                                const real *restrict s, const real *restrict c, const struct run *run, int64_t tap,
                                int64_t block, const int add) {
    const int64_t g_step = run->y_step, x_step = run->x_step, s_step = run->s_step;
    const int64_t first = first_of(block, run->channels), far = run->of_kernel * LANES;
    const vec in = GET(some_lanes, LANES - (block * LANES - first));
    const real *g_here = g + first, *x_here[3], *s_here[3];
    int64_t place[3];
    vec of_channel[3][2], all[3][2];
    for (int t = 0; t < taps; t++) {
        x_here[t] = x + run->x_at[tap + t] + first;
        s_here[t] = s + run->s_at[tap + t];
        place[t] = block * far + run->c_at[tap + t] * LANES;
        for (int b = 0; b < blocks; b++) {
            all[t][b] = GET(of_c, place[t] + b * far);
            of_channel[t][b] = in;
            if (!add)
                of_channel[t][b] *= GET(c, place[t] + b * far);
        }
    }
    for (int64_t n = 0; n < count; n++) {
        // The next blocks: from pixel to pixel their stride is too long for the processor to foresee them.
        for (int b = 0; b < blocks; b++) {
            __builtin_prefetch(g_here + n * g_step + (blocks + b) * LANES);
            __builtin_prefetch(x_here[taps - 1] + n * x_step + (blocks + b) * LANES);
        }
#pragma GCC unroll 3
        for (int t = 0; t < taps; t++) {
            vec sum = block ? sums[t][n] : (vec){0}, of_pixel = s_here[t][n * s_step] - (vec){0};
#pragma GCC unroll 2
            for (int b = 0; b < blocks; b++) {
                vec product = GET(g_here, n * g_step + b * LANES) * GET(x_here[t], n * x_step + b * LANES);
                sum += product * of_channel[t][b];
                if (!add)
                    product *= of_pixel;
                all[t][b] += product;
            }
            sums[t][n] = sum;
        }
    }
    for (int t = 0; t < taps; t++)
        for (int b = 0; b < blocks; b++)
            PUT(of_c, place[t] + b * far) = all[t][b];
}

INLINE void gradients_of_taps(const int taps, int64_t count, real *restrict of_s, int64_t of_s_tap, real *restrict of_c,
                              const real *restrict g, const real *restrict x, const real *restrict s,
                              const real *restrict c, const struct run *run, int64_t tap, const int add) {
    vec sums[3][AT_ONCE];
    int64_t block = 0;
    for (; (block + 2) * LANES <= run->channels; block += 2)
        gradients_of_blocks(taps, 2, sums, count, of_c, g, x, s, c, run, tap, block, add);
    for (; block < blocks_of(run->channels); block++)
        gradients_of_blocks(taps, 1, sums, count, of_c, g, x, s, c, run, tap, block, add);
    for (int t = 0; t < taps; t++)
        totals(of_s + run->c_at[tap + t] * of_s_tap, sums[t], count);
}

INLINE void gradients_of_all(real *of_s, int64_t of_s_tap, real *of_c, const real *g, const real *x, const real *s,
                             const real *c, const struct run *run, const int add) {
    for (int64_t n = 0; n < run->pixels; n += AT_ONCE) {
        int64_t count = MIN(AT_ONCE, run->pixels - n), tap = 0;
        const real *g_here = g + n * run->y_step, *x_here = x + n * run->x_step, *s_here = s + n * run->s_step;
        for (; tap + 3 <= run->taps; tap += 3)
            gradients_of_taps(3, count, of_s + n, of_s_tap, of_c, g_here, x_here, s_here, c, run, tap, add);
        for (; tap < run->taps; tap++)
            gradients_of_taps(1, count, of_s + n, of_s_tap, of_c, g_here, x_here, s_here, c, run, tap, add);
    }
}

APART void gradients_of_pixels(real *of_s, int64_t of_s_tap, real *of_c, const real *g, const real *x, const real *s,
                               const real *c, const struct run *run, int add) {
    if (add)
        gradients_of_all(of_s, of_s_tap, of_c, g, x, s, c, run, 1);
    else
        gradients_of_all(of_s, of_s_tap, of_c, g, x, s, c, run, 0);
}

// Some rows of an image: in place where they are of the sums' type, else converted.
static struct view view_rows(const struct tensor *tensor, int64_t image, int64_t channels, const int64_t *size,
                                         int64_t first, int64_t last, real *scratch) {
    if (tensor->dtype == REAL)
        return (struct view){(const real *)at(tensor, image, 0, 0, 0), 0, tensor->step[ROW], tensor->step[COLUMN]};
    first = MAX(first, 0), last = MIN(last, size[0]);
    for (int64_t row = first; row < last; row++)
        for (int64_t column = 0; column < size[1]; column++)
            load(scratch + ((row - first) * size[1] + column) * channels, 1, at(tensor, image, 0, row, column),
                       tensor->dtype, 1, channels);
    return (struct view){scratch - first * size[1] * channels, 0, size[1] * channels, channels};
}

static const real one_or_zero[] = {1, 0};

static struct view view_spatial(const struct arguments *a, int64_t image, int64_t first, int64_t last,
                                            real *scratch) {
    const struct tensor *tensor = &a->spatial;
    if (!tensor->data)
        return (struct view){one_or_zero + a->add, 0, 0, 0};
    if (tensor->dtype == REAL && !a->spatial_scale)
        return (struct view){(const real *)at(tensor, image, 0, 0, 0), tensor->step[CHANNEL], tensor->step[ROW],
                                   tensor->step[COLUMN]};
    first = MAX(first, 0), last = MIN(last, a->out_size[0]);
    int64_t width = a->out_size[1], values = (last - first) * width, taps = a->kernel[0] * a->kernel[1];
    int64_t filters = a->scale * a->scale * a->heads;
    for (int64_t tap = 0; tap < filters * taps; tap++)
        for (int64_t row = first; row < last; row++)
            load(scratch + tap * values + (row - first) * width, 1, at(tensor, image, tap, row, 0), tensor->dtype,
                       tensor->step[COLUMN], width);
    for (int64_t filter = 0; filter < filters && a->spatial_scale; filter++) {
        const real *shift = a->spatial_shift;
        normalise(scratch + filter * taps * values, values, taps, values, (const real *)a->spatial_scale + filter * taps,
                        shift ? shift + filter * taps : 0, 0, a->eps);
    }
    return (struct view){scratch - first * width, values, width, 1};
}
