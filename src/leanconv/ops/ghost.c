// The tail of a Ghost module in single precision: activation, cheap convolution with bias, activation again, from the
// maps of the primary convolution straight into the output. Both are dense, in NCHW or in channels_last.
#include <string.h>

#include "parallel.h"

enum { LANES = 64 };

struct ghost {
    const float *input, *weight, *bias;
    float *output;
    int64_t batch, channels, outputs, height, width, size, each, relu, rows;
};

static inline float activated(float value, int64_t relu) { return relu && value < 0 ? 0 : value; }

// Floats of a map in its frame of zeros, and what reading in lanes reaches beyond it.
static inline int64_t framed(const struct ghost *g) {
    return (g->height + g->size - 1) * (g->width + g->size - 1) + g->size + LANES;
}

// In channels_last, an item is a band of rows of an image. Weights are (ghost of a source, tap, source).
static inline void lanes(const struct ghost *g, int64_t image, int64_t y, int64_t x, int64_t first, int64_t count,
                         int64_t relu) {
    const int64_t m = g->channels, radius = g->size / 2, taps = g->size * g->size;
    const float *picture = g->input + image * g->height * g->width * m + first;
    float *pixel = g->output + ((image * g->height + y) * g->width + x) * g->outputs;
    const float *centre = picture + (y * g->width + x) * m;
    for (int64_t c = 0; c < count; c++)
        pixel[first + c] = activated(centre[c], relu);
    for (int64_t ghost = 0; ghost < g->each; ghost++) {
        float sum[LANES];
        for (int64_t c = 0; c < count; c++)
            sum[c] = g->bias[ghost * m + first + c];
        for (int64_t row = 0; row < g->size; row++)
            for (int64_t column = 0; column < g->size; column++) {
                const int64_t at_y = y + row - radius, at_x = x + column - radius;
                if (at_y < 0 || at_y >= g->height || at_x < 0 || at_x >= g->width)
                    continue;
                const float *from = picture + (at_y * g->width + at_x) * m;
                const float *weight = g->weight + (ghost * taps + row * g->size + column) * m + first;
                for (int64_t c = 0; c < count; c++)
                    sum[c] += weight[c] * activated(from[c], relu);
            }
        float *to = pixel + m + first * g->each + ghost;
        const int64_t kept = (g->outputs - m - first * g->each - ghost + g->each - 1) / g->each;
        const int64_t last = kept < count ? kept : count;
        if (g->each == 1)
            for (int64_t c = 0; c < last; c++)
                to[c] = activated(sum[c], relu);
        else
            for (int64_t c = 0; c < last; c++)
                to[c * g->each] = activated(sum[c], relu);
    }
}

static void band(void *context, int64_t item, void *scratch) {
    const struct ghost *g = context;
    const int64_t bands = (g->height + g->rows - 1) / g->rows, image = item / bands, top = item % bands * g->rows;
    const int64_t bottom = top + g->rows < g->height ? top + g->rows : g->height;
    for (int64_t y = top; y < bottom; y++)
        for (int64_t x = 0; x < g->width; x++) {
            int64_t c = 0;
            for (; c + LANES <= g->channels; c += LANES)
                if (g->relu) lanes(g, image, y, x, c, LANES, 1); else lanes(g, image, y, x, c, LANES, 0);
            if (c < g->channels)
                lanes(g, image, y, x, c, g->channels - c, g->relu);
        }
}

// Copies a row in few moves of fixed sizes, the last of which overlaps the one before.
static inline void copy_row(float *to, const float *from, int64_t count) {
    int64_t done = 0;
    for (; done + 16 <= count; done += 16)
        memcpy(to + done, from + done, 64);
    if (done && done < count)
        memcpy(to + count - 16, from + count - 16, 64);
    else if (count >= 8 && !done) {
        memcpy(to, from, 32);
        memcpy(to + count - 8, from + count - 8, 32);
    } else
        for (; done < count; done++)
            to[done] = from[done];
}

// In NCHW, an item is one intrinsic map and its ghosts. The map is copied into a frame of zeros, whose rows follow one
// another, so that all pixels are one run. Weights are (source, ghost of a source, tap).
static void plane(void *context, int64_t item, void *scratch) {
    const struct ghost *g = context;
    const int64_t image = item / g->channels, c = item % g->channels, pixels = g->height * g->width;
    const int64_t radius = g->size / 2, wide = g->width + 2 * radius, run = g->height * wide;
    const float *input = g->input + item * pixels;
    float *all = g->output + image * g->outputs * pixels, *map = all + c * pixels;
    float *frame = scratch, *sums = frame + framed(g);
    for (int64_t p = 0; p < pixels; p++)
        map[p] = activated(input[p], g->relu);
    memset(frame, 0, framed(g) * sizeof(float));
    for (int64_t y = 0; y < g->height; y++)
        copy_row(frame + (y + radius) * wide + radius, map + y * g->width, g->width);
    for (int64_t index = c * g->each; index < (c + 1) * g->each && index < g->outputs - g->channels; index++) {
        const float *weight = g->weight + index * g->size * g->size;
        for (int64_t p = 0; p < run; p += LANES) {
            float sum[LANES];
            for (int64_t lane = 0; lane < LANES; lane++)
                sum[lane] = g->bias[index];
            for (int64_t row = 0; row < g->size; row++)
                for (int64_t column = 0; column < g->size; column++) {
                    const float *from = frame + p + row * wide + column, tap = weight[row * g->size + column];
                    for (int64_t lane = 0; lane < LANES; lane++)
                        sum[lane] += tap * from[lane];
                }
            for (int64_t lane = 0; lane < LANES; lane++)
                sums[p + lane] = activated(sum[lane], g->relu);
        }
        float *ghost = all + (g->channels + index) * pixels;
        for (int64_t y = 0; y < g->height; y++)
            copy_row(ghost + y * g->width, sums + y * wide, g->width);
    }
}

int ghost_tail(const float *input, const float *weight, const float *bias, float *output, const int64_t *shape,
               int64_t channels_last, launcher launch, int64_t threads) {
    struct ghost g = {input, weight, bias, output, shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6],
                      shape[7], 4};
    const int64_t bands = (g.height + g.rows - 1) / g.rows;
    return share(launch, threads, channels_last ? band : plane, &g, g.batch * (channels_last ? bands : g.channels),
                 channels_last ? 0 : 2 * framed(&g) * (int64_t)sizeof(float));
}
