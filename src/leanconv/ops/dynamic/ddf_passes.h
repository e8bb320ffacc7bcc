// The passes over images: items of work, and what they need.
struct pass {
    const struct arguments *a;
    struct panels panels;
    struct axis axis[2], back_axis[2];   // of pixels
    int64_t rows, blocks;                // of results in an item; items along an image's rows
    int64_t chunk, chunks;               // channels in an item, and items along a head's channels
    int64_t images_of_filter;            // 1 where one channel filter serves all images
    real *filters;                       // the channel filter in blocks
    real *of_channel, *of_spatial;       // partial gradients
    int64_t y_size, s_size, x_size, g_size;  // of an item's memory, by pixels
};

static int by_pixels(const struct arguments *a, int backward) {
    int dense = a->input.step[CHANNEL] == 1 && a->channels / a->heads >= LANES && a->output.step[CHANNEL] == 1;
    return dense && (!backward || !a->of_input.data || a->of_input.step[CHANNEL] == 1);
}

// One branch's pixels of the output.
static struct tensor branch_of(const struct arguments *a, int64_t branch) {
    struct tensor output = a->output;
    output.data = at(&output, 0, 0, branch / a->scale, branch % a->scale);
    output.step[ROW] *= a->scale, output.step[COLUMN] *= a->scale;
    return output;
}

// Where a chunk of channels leaves its part of the spatial filter's gradient.
static struct tensor spatial_target(const struct pass *pass, int64_t chunk) {
    const struct arguments *a = pass->a;
    int64_t area = a->out_size[0] * a->out_size[1], image = a->heads * a->kernel[0] * a->kernel[1] * area;
    if (pass->chunks == 1)
        return a->of_spatial;
    return (struct tensor){(char *)(pass->of_spatial + chunk * a->batch * image), REAL, {image, area, a->out_size[1], 1}};
}

static real *filters_of(const struct pass *pass, int64_t image, int64_t branch, int64_t head) {
    const struct arguments *a = pass->a;
    image = MIN(image, pass->images_of_filter - 1);
    int64_t size = filter_size(a);
    return pass->filters + (image * a->scale * a->scale + branch) * size + head * (size / a->heads);
}

// Two channels' filters, tap by tap.
static void pick(real *c, const real *filters, int64_t channels, int64_t taps, int64_t first, int64_t second) {
    const real *places[] = {filters + place(first, channels, taps), filters + place(second, channels, taps)};
    for (int plane = 0; plane < 2; plane++)
        for (int64_t t = 0; t < taps; t++)
            c[plane * taps + t] = places[plane][t * LANES];
}

static void forward_planes(void *context, int64_t item, void *memory) {
    const struct pass *pass = context;
    const struct arguments *a = pass->a;
    const struct panels *p = &pass->panels;
    int64_t chunk = item % pass->chunks, block = item / pass->chunks % p->blocks, rest = item / pass->chunks / p->blocks;
    int64_t head = rest % a->heads, image = rest / a->heads;
    int64_t taps = a->kernel[0] * a->kernel[1], channels = a->channels / a->heads, branches = a->scale * a->scale;
    int64_t row = block * p->rows, rows = MIN(p->rows, a->out_size[0] - row);
    real *spatial = memory, *x = spatial + branches * taps * p->out_size, *y = x + 2 * p->x_size;
    int64_t x_at[taps], chosen[taps], first_row[taps], beside[taps];
    real c[2 * taps];
    tap_places(a, p, x_at);
    for (int64_t t = 0; t < taps; t++)
        chosen[t] = t, first_row[t] = row, beside[t] = 0;
    memset(x, 0, 2 * p->x_size * sizeof(real));
    for (int64_t branch = 0; branch < branches; branch++)
        load_spatial(a, p->width, spatial + branch * taps * p->out_size, y, p->out_size, image, branch * a->heads + head,
                     taps, chosen, first_row, beside, rows);
    for (int64_t first = chunk * pass->chunk; first < MIN(channels, (chunk + 1) * pass->chunk); first += 2) {
        int64_t pair[] = {first, MIN(first + 1, channels - 1)};
        for (int plane = 0; plane < 2; plane++)
            load_input(a, p, x + plane * p->x_size, image, head * channels + pair[plane], row);
        for (int64_t branch = 0; branch < branches; branch++) {
            pick(c, filters_of(pass, image, branch, head), channels, taps, pair[0], pair[1]);
            filter_planes(y, p->out_size, x, p->x_size, x_at, spatial + branch * taps * p->out_size, c, taps,
                          rows * p->width, (int)a->add);
            struct tensor output = branch_of(a, branch);
            for (int plane = 0; plane < 1 + (pair[1] > first); plane++)
                store_plane(y + plane * p->out_size, p->width, &output, image, head * channels + pair[plane],
                            a->out_size, row, row + rows, row, rows, 1, 0, 1);
        }
    }
}

// The input's gradient is such a sum too: of the gradient, tap by tap, at a distance of minus the tap's. With a stride, each
// part of the input's panel has taps of its own: `count` of them, at `x_at`, and with the spatial filter `s`.
struct part {
    int64_t count, *chosen, *x_at;
    real *s;
};

// `indices` and `spatial` have room for four numbers and one panel a tap.
static void make_parts(const struct arguments *a, const struct panels *p, struct part *parts, int64_t *indices,
                       real *spatial, real *panel, int64_t image, int64_t head, int64_t row, int64_t rows) {
    int64_t top = p->padding[0] / a->stride[0];
    for (int64_t down = 0; down < a->stride[0]; down++)
        for (int64_t right = 0; right < a->stride[1]; right++, parts++) {
            int64_t taps = a->kernel[0] * a->kernel[1], *first = indices + 2 * taps, *beside = indices + 3 * taps;
            *parts = (struct part){0, indices, indices + taps, spatial};
            for (int64_t t = 0; t < taps; t++) {
                int64_t below = t / a->kernel[1] * a->dilation[0], after = t % a->kernel[1] * a->dilation[1];
                if (below % a->stride[0] != down || after % a->stride[1] != right)
                    continue;
                int64_t n = parts->count++;
                parts->chosen[n] = t;
                parts->x_at[n] = (1 + top + p->halo - below / a->stride[0]) * p->width - after / a->stride[1];
                first[n] = row + top - below / a->stride[0];
                beside[n] = after / a->stride[1];
            }
            load_spatial(a, p->width, spatial, panel, p->out_size, image, head, parts->count, parts->chosen, first, beside,
                         rows + p->halo - top);
            spatial += parts->count * p->out_size;
            indices += 4 * taps;
        }
}

static void input_gradient(const struct arguments *a, const struct panels *p, const struct part *part, const real *g,
                           const real *c, real *y, int64_t image, const int64_t *channels, int planes, int64_t row,
                           int64_t rows) {
    int64_t taps = a->kernel[0] * a->kernel[1], top = p->padding[0] / a->stride[0], result_rows = rows + p->halo - top;
    int64_t low = row * a->stride[0], high = MIN((row + rows) * a->stride[0], a->size[0]);
    real some[2 * taps];
    for (int64_t down = 0; down < a->stride[0]; down++)
        for (int64_t right = 0; right < a->stride[1]; right++, part++) {
            for (int64_t n = 0; n < part->count; n++)
                some[n] = c[part->chosen[n]], some[part->count + n] = c[taps + part->chosen[n]];
            filter_planes(y, p->out_size, g, p->g_size, part->x_at, part->s, some, part->count, result_rows * p->width,
                          (int)a->add);
            for (int plane = 0; plane < planes; plane++)
                store_plane(y + plane * p->out_size, p->width, &a->of_input, image, channels[plane], a->size, low, high,
                            (row + top) * a->stride[0] + down - p->padding[0], result_rows, a->stride[0],
                            right - p->padding[1], a->stride[1]);
        }
}

static void backward_planes(void *context, int64_t item, void *memory) {
    const struct pass *pass = context;
    const struct arguments *a = pass->a;
    const struct panels *p = &pass->panels;
    int64_t chunk = item % pass->chunks, block = item / pass->chunks % p->blocks, rest = item / pass->chunks / p->blocks;
    int64_t head = rest % a->heads, image = rest / a->heads;
    int64_t taps = a->kernel[0] * a->kernel[1], channels = a->channels / a->heads;
    int64_t row = block * p->rows, rows = MIN(p->rows, a->out_size[0] - row), inside = (1 + p->halo) * p->width;
    int64_t g_rows = p->rows + 2 * p->halo + 2;
    real *spatial = memory, *of_s = spatial + taps * p->out_size, *shifted = of_s + taps * p->out_size;
    real *y = shifted + taps * p->out_size, *g = y + 2 * p->out_size, *x = g + 2 * p->g_size;
    int64_t x_at[taps], chosen[taps], first_row[taps], beside[taps], indices[4 * taps * a->stride[0] * a->stride[1]];
    struct part parts[a->stride[0] * a->stride[1]];
    real c[2 * taps], of_c[2 * taps];
    int filters = a->of_channel.data || a->of_spatial.data;
    const real *own = filters_of(pass, image, 0, head);
    real *partial = pass->of_channel + (image * p->blocks + block) * filter_size(a) + head * (filter_size(a) / a->heads);
    memset(g, 0, 2 * (p->g_size + p->x_size) * sizeof(real));
    if (filters) {
        memset(of_s, 0, taps * p->out_size * sizeof(real));
        tap_places(a, p, x_at);
        for (int64_t t = 0; t < taps; t++)
            chosen[t] = t, first_row[t] = row, beside[t] = 0;
        load_spatial(a, p->width, spatial, y, p->out_size, image, head, taps, chosen, first_row, beside, rows);
    }
    if (a->of_input.data)
        make_parts(a, p, parts, indices, shifted, y, image, head, row, rows);
    for (int64_t first = chunk * pass->chunk; first < MIN(channels, (chunk + 1) * pass->chunk); first += 2) {
        int planes = MIN(2, channels - first);
        int64_t pair[] = {first, first + planes - 1}, of_all[] = {head * channels + pair[0], head * channels + pair[1]};
        if (planes == 1)
            memset(g + p->g_size, 0, p->g_size * sizeof(real));
        for (int plane = 0; plane < planes; plane++) {
            load_plane(g + plane * p->g_size, p->width, &a->output, image, of_all[plane], a->out_size, row - p->halo - 1,
                       g_rows, 1, 0, 1);
            if (filters)
                load_input(a, p, x + plane * p->x_size, image, of_all[plane], row);
        }
        pick(c, own, channels, taps, pair[0], pair[1]);
        if (a->of_input.data)
            input_gradient(a, p, parts, g, c, y, image, of_all, planes, row, rows);
        for (int64_t t = 0; t < taps && filters; t++) {
            real both[2];
            gradients_of_planes(of_s + t * p->out_size, both, g + inside, p->g_size, x + x_at[t], p->x_size,
                                spatial + t * PAIR, taps * PAIR, c[t], c[taps + t], rows * p->width, (int)a->add);
            of_c[t] = both[0], of_c[taps + t] = both[1];
        }
        for (int plane = 0; plane < planes && a->of_channel.data; plane++)
            for (int64_t t = 0; t < taps; t++)
                partial[place(pair[plane], channels, taps) + t * LANES] = of_c[plane * taps + t];
    }
    if (a->of_spatial.data) {
        struct tensor to = spatial_target(pass, chunk);
        for (int64_t t = 0; t < taps; t++)
            store_plane(of_s + t * p->out_size, p->width, &to, image, head * taps + t, a->out_size, row, row + rows, row,
                        rows, 1, 0, 1);
    }
}

// The lists of the taps that a pixel has, for it and the run which it begins.
static void list_taps(struct run *run, const struct axis *axis, int64_t row, int64_t column,
                            const int64_t *kernel, struct view x, struct view s, int backward) {
    const int64_t *above = axis[0].source + row * kernel[0], *beside = axis[1].source + column * kernel[1];
    run->pixels = axis[1].run[column];
    run->taps = 0;
    for (int64_t u = 0; u < kernel[0]; u++)
        for (int64_t v = 0; v < kernel[1]; v++) {
            if (above[u] < 0 || beside[v] < 0)
                continue;
            int64_t t = u * kernel[1] + v;
            run->x_at[run->taps] = above[u] * x.row + beside[v] * x.column;
            run->s_at[run->taps] = t * s.tap + (backward ? above[u] * s.row + beside[v] * s.column : row * s.row + column * s.column);
            run->c_at[run->taps++] = t;
        }
}

// Rows of results, or of the input's gradient, of one branch.
static void rows_of_pixels(const struct pass *pass, int backward, int64_t image, int64_t branch, int64_t first,
                                 int64_t last, struct view x, struct view s, const struct tensor *to, real *y) {
    const struct arguments *a = pass->a;
    const struct axis *axis = backward ? pass->back_axis : pass->axis;
    int64_t channels = a->channels / a->heads, taps = a->kernel[0] * a->kernel[1];
    int64_t x_at[taps], s_at[taps], c_at[taps];
    struct run run = {0, 0, taps, x_at, s_at, c_at, channels, axis[1].source_step * x.column, s.column, 0};
    int in_place = to->dtype == REAL;
    run.y_step = in_place ? axis[1].step * to->step[COLUMN] : channels;
    for (int64_t row = first; row < last; row++)
        for (int64_t phase = 0; phase < axis[1].step; phase++)
            for (int64_t column = phase; column < axis[1].count; column += run.pixels * axis[1].step) {
                list_taps(&run, axis, row, column, a->kernel, x, s, backward);
                for (int64_t head = 0; head < a->heads; head++) {
                    real *own = in_place ? (real *)at(to, image, head * channels, row, column) : y;
                    filter_pixels(own, x.data + head * channels,
                                        s.data + (branch * a->heads + head) * taps * s.tap,
                                        filters_of(pass, image, branch, head), &run, (int)a->add);
                    for (int64_t n = 0; n < run.pixels && !in_place; n++)
                        store(at(to, image, head * channels, row, column + n * axis[1].step), to->dtype, 1,
                                    y + n * channels, 1, channels);
                }
            }
}

static void forward_pixels(void *context, int64_t item, void *memory) {
    const struct pass *pass = context;
    const struct arguments *a = pass->a;
    const struct panels *p = &pass->panels;
    int64_t image = item / pass->blocks, row = item % pass->blocks * pass->rows, last = MIN(row + pass->rows, a->out_size[0]);
    real *y = memory, *spatial = y + pass->y_size, *input = spatial + pass->s_size;
    struct view s = view_spatial(a, image, row, last, spatial);
    struct view x = view_rows(&a->input, image, a->channels, a->size, row * a->stride[0] - p->padding[0],
                                          (last - 1) * a->stride[0] + p->padding[0] + 1, input);
    for (int64_t branch = 0; branch < a->scale * a->scale; branch++) {
        struct tensor output = branch_of(a, branch);
        rows_of_pixels(pass, 0, image, branch, row, last, x, s, &output, y);
    }
}

static void backward_pixels(void *context, int64_t item, void *memory) {
    const struct pass *pass = context;
    const struct arguments *a = pass->a;
    const struct panels *p = &pass->panels;
    int64_t image = item / pass->blocks, row = item % pass->blocks * pass->rows, last = MIN(row + pass->rows, a->out_size[0]);
    int64_t channels = a->channels / a->heads, taps = a->kernel[0] * a->kernel[1], width = a->out_size[1];
    real *y = memory, *spatial = y + pass->y_size, *input = spatial + pass->s_size, *gradient = input + pass->x_size;
    real *of_s = gradient + pass->g_size;
    struct view s = view_spatial(a, image, row - p->halo, last + p->halo, spatial);
    struct view g = view_rows(&a->output, image, a->channels, a->out_size, row - p->halo, last + p->halo, gradient);
    if (a->of_input.data)
        rows_of_pixels(pass, 1, image, 0, row * a->stride[0], MIN(last * a->stride[0], a->size[0]), g, s,
                             &a->of_input, y);
    if (!a->of_channel.data && !a->of_spatial.data)
        return;
    struct view x = view_rows(&a->input, image, a->channels, a->size, row * a->stride[0] - p->padding[0],
                                          (last - 1) * a->stride[0] + p->padding[0] + 1, input);
    int64_t x_at[taps], s_at[taps], c_at[taps], size = filter_size(a);
    struct run run = {0, 0, taps, x_at, s_at, c_at, channels, a->stride[1] * x.column, s.column, g.column};
    real *of_c = pass->of_channel + item * size;
    memset(of_c, 0, size * sizeof(real));
    for (; row < last; row++) {
        memset(of_s, 0, a->heads * taps * width * sizeof(real));
        for (int64_t column = 0; column < width; column += run.pixels) {
            list_taps(&run, pass->axis, row, column, a->kernel, x, s, 0);
            for (int64_t head = 0; head < a->heads; head++)
                gradients_of_pixels(of_s + head * taps * width + column, width, of_c + head * (size / a->heads),
                                          g.data + row * g.row + column * g.column + head * channels,
                                          x.data + head * channels, s.data + head * taps * s.tap,
                                          filters_of(pass, image, 0, head), &run, (int)a->add);
        }
        for (int64_t tap = 0; tap < a->heads * taps && a->of_spatial.data; tap++)
            store(at(&a->of_spatial, image, tap, row, 0), a->of_spatial.dtype, a->of_spatial.step[COLUMN],
                        of_s + tap * width, 1, width);
    }
}

// The channel filter's gradient of an image: over its blocks of rows.
static void sum_channel(void *context, int64_t image, void *memory) {
    const struct pass *pass = context;
    const struct arguments *a = pass->a;
    int64_t size = filter_size(a), taps = a->kernel[0] * a->kernel[1], channels = a->channels / a->heads;
    real *total = pass->of_channel + image * pass->blocks * size;
    (void)memory;
    for (int64_t block = 1; block < pass->blocks; block++)
        for (int64_t i = 0; i < size; i++)
            total[i] += total[block * size + i];
    for (int64_t channel = 0; channel < a->channels; channel++)
        for (int64_t u = 0; u < a->kernel[0]; u++)
            store(at(&a->of_channel, image, channel, u, 0), a->of_channel.dtype, a->of_channel.step[COLUMN],
                        total + channel / channels * (size / a->heads) + place(channel % channels, channels, taps)
                            + u * a->kernel[1] * LANES,
                        LANES, a->kernel[1]);
}

// A tap of the spatial filter's gradient of an image: over the chunks of channels.
static void sum_spatial(void *context, int64_t item, void *memory) {
    const struct pass *pass = context;
    const struct arguments *a = pass->a;
    int64_t of_image = a->heads * a->kernel[0] * a->kernel[1], area = a->out_size[0] * a->out_size[1];
    real *total = pass->of_spatial + item * area;
    (void)memory;
    for (int64_t chunk = 1; chunk < pass->chunks; chunk++)
        for (int64_t i = 0; i < area; i++)
            total[i] += total[chunk * a->batch * of_image * area + i];
    for (int64_t row = 0; row < a->out_size[0]; row++)
        store(at(&a->of_spatial, item / of_image, item % of_image, row, 0), a->of_spatial.dtype,
                    a->of_spatial.step[COLUMN], total + row * a->out_size[1], 1, a->out_size[1]);
}

static int run_pass(const struct arguments *a, int backward) {
    struct pass pass = {.a = a, .panels = make_panels(a)};
    struct panels *p = &pass.panels;
    int pixels = by_pixels(a, backward), failed = 1;
    int64_t taps = a->kernel[0] * a->kernel[1], branches = a->scale * a->scale, channels = a->channels / a->heads;
    int64_t enough = backward ? ENOUGH : 4 * a->threads, of_real = sizeof(real), scratch, items;
    int64_t halo = backward ? 2 * p->halo : 0;
    pass.chunk = channels, pass.chunks = 1;
    if (pixels) {
        pass.rows = MIN(a->out_size[0], MAX(UP(256, a->out_size[1]), a->input.dtype == REAL ? 1 : 8));
        while (pass.rows > 1 && a->batch * UP(a->out_size[0], pass.rows) < enough)
            pass.rows = UP(pass.rows, 2);
        pass.blocks = UP(a->out_size[0], pass.rows);
        pass.y_size = a->input.dtype == REAL ? 0 : MAX(a->size[1], a->out_size[1]) * channels;
        pass.s_size = branches * a->heads * taps * (pass.rows + halo) * a->out_size[1];
        pass.x_size = a->input.dtype == REAL ? 0 : (pass.rows * a->stride[0] + 2 * p->padding[0]) * a->size[1] * a->channels;
        pass.g_size = a->input.dtype == REAL ? 0 : (pass.rows + halo) * a->out_size[1] * a->channels;
        scratch = pass.y_size + pass.s_size + pass.x_size;
        scratch += backward ? pass.g_size + a->heads * taps * a->out_size[1] : 0;
        items = a->batch * pass.blocks;
    } else {
        int64_t least = backward ? 32 : 16;
        pass.blocks = p->blocks;
        while (pass.chunk > least && a->batch * a->heads * p->blocks * UP(channels, pass.chunk) < enough)
            pass.chunk = UP(pass.chunk, 4) * 2;
        pass.chunks = UP(channels, pass.chunk);
        scratch = backward ? 3 * taps * p->out_size + 2 * (p->g_size + p->x_size + p->out_size)
                           : branches * taps * p->out_size + 2 * (p->x_size + p->out_size);
        items = a->batch * a->heads * p->blocks * pass.chunks;
    }
    pass.images_of_filter = a->channel.data && a->channel.step[BATCH] ? a->batch : 1;
    int64_t filters = pass.images_of_filter * branches;
    int64_t of_filters = filters * filter_size(a);
    int64_t of_channel = backward ? a->batch * pass.blocks * filter_size(a) : 0;
    int64_t of_spatial = backward && pass.chunks > 1 ? pass.chunks * a->batch * a->heads * taps * a->out_size[0] * a->out_size[1] : 0;
    real *memory = aligned_alloc(64, UP((of_filters + of_channel + of_spatial) * of_real, 64) * 64);
    int64_t *indices = malloc(2 * (axis_size(a, 0) + axis_size(a, 1)) * sizeof(int64_t));
    if (memory && indices) {
        pass.filters = memory, pass.of_channel = memory + of_filters, pass.of_spatial = pass.of_channel + of_channel;
        for (int which = 0; which < 2 && pixels; which++) {
            int64_t *own = indices + which * 2 * axis_size(a, 0);
            pass.axis[which] = make_axis(a, which, 0, own);
            pass.back_axis[which] = make_axis(a, which, 1, own + axis_size(a, which));
        }
        struct filters prepared = {a, pass.filters};
        worker work = pixels ? (backward ? backward_pixels : forward_pixels)
                             : (backward ? backward_planes : forward_planes);
        failed = share(a->launch, of_filters > 16384 ? a->threads : 1, prepare_channel, &prepared, filters, 0)
            || share(a->launch, a->threads, work, &pass, items, scratch * of_real);
        if (!failed && a->of_channel.data)
            failed = share(a->launch, a->threads, sum_channel, &pass, a->batch, 0);
        if (!failed && a->of_spatial.data && pass.chunks > 1)
            failed = share(a->launch, a->threads, sum_spatial, &pass, a->batch * a->heads * taps, 0);
    }
    free(indices);
    free(memory);
    return failed;
}
