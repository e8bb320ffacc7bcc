// The tail of a Ghost module in single precision: activation, cheap convolution with bias, activation again, from the
// maps of the primary convolution straight into the output. Both are dense, in NCHW or in channels_last.
#include <string.h>

#include "parallel.h"

enum { LANES = 64, FEW = 16 };

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

// The taps of a kernel that lie within the image, for one pixel.
struct window { int64_t top, bottom, left, right; };

#define WIDTH 16
#include "ghost_lanes.h"
#define WIDTH 4
#include "ghost_lanes.h"
#define WIDTH 1
#include "ghost_lanes.h"

static inline __attribute__((always_inline)) void pixel(const struct ghost *g, const float *centre, float *to,
                                                        struct window near, int64_t size, int64_t relu) {
    int64_t c = 0;
    for (; c + 16 <= g->channels; c += 16)
        lanes_16(g, centre, to, near, c, size, relu);
    for (; c + 4 <= g->channels; c += 4)
        lanes_4(g, centre, to, near, c, size, relu);
    for (; c < g->channels; c++)
        lanes_1(g, centre, to, near, c, size, relu);
}

static inline int64_t least(int64_t one, int64_t other) { return one < other ? one : other; }
static inline int64_t most(int64_t one, int64_t other) { return one > other ? one : other; }

// In channels_last, an item is a band of rows of an image. Weights are (ghost of a source, tap, source), biases (ghost of
// a source, source): channel by channel, as the maps are.
static void band(void *context, int64_t item, void *scratch) {
    const struct ghost *g = context;
    const int64_t bands = (g->height + g->rows - 1) / g->rows, image = item / bands, top = item % bands * g->rows;
    const int64_t bottom = least(top + g->rows, g->height), size = g->size, radius = size / 2;
    for (int64_t y = top; y < bottom; y++)
        for (int64_t x = 0; x < g->width; x++) {
            const int64_t at = (image * g->height + y) * g->width + x;
            const float *centre = g->input + at * g->channels;
            float *to = g->output + at * g->outputs;
            const struct window near = {most(0, radius - y), least(size, g->height + radius - y), most(0, radius - x),
                                        least(size, g->width + radius - x)};
            const struct window whole = {0, 3, 0, 3};
            const int inside = near.bottom - near.top == size && near.right - near.left == size;
            if (size == 3 && inside && g->relu)
                pixel(g, centre, to, whole, 3, 1);
            else if (size == 3 && inside)
                pixel(g, centre, to, whole, 3, 0);
            else
                pixel(g, centre, to, near, size, g->relu);
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
    if (!channels_last)
        return share(launch, threads, plane, &g, g.batch * g.channels, 2 * framed(&g) * (int64_t)sizeof(float));
    const int64_t bands = (g.height + g.rows - 1) / g.rows, taps = g.size * g.size, filters = g.channels * g.each;
    float *turned = malloc(filters * (taps + 1) * sizeof(float));
    if (!turned)
        return 1;
    g.weight = turned;
    g.bias = turned + filters * taps;
    for (int64_t c = 0; c < g.channels; c++)
        for (int64_t ghost = 0; ghost < g.each; ghost++, weight += taps, bias++) {
            for (int64_t tap = 0; tap < taps; tap++)
                turned[(ghost * taps + tap) * g.channels + c] = weight[tap];
            turned[filters * taps + ghost * g.channels + c] = *bias;
        }
    const int failed = share(launch, threads, band, &g, g.batch * bands, 0);
    free(turned);
    return failed;
}
