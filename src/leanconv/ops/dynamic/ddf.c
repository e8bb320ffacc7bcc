// The decoupled dynamic filter on a CPU: y[c,i,j] = Σ_t K_t · x[c, ...] with K_t = S_t[i,j] · C_t[c], or their sum.
//
// There are two ways through the same sums: ddf_planes.h has pixels in the lanes of its vectors, and takes any strides;
// ddf_pixels.h has channels in them, for inputs whose channels are dense. The channel filter is first brought into the
// blocks which both read: lanes of channels, one block for each tap. An item of work is some rows of one image. What is summed over several items is first kept apart for each, and
// then summed in their order; how the work is cut for that depends on the shapes alone, so threads change no result.
#include "parallel.h"
#include <math.h>
#include <string.h>

enum dtype { FLOAT, DOUBLE, BFLOAT, HALF };
enum axis_name { BATCH, CHANNEL, ROW, COLUMN };

struct tensor {
    char *data;  // null: there is none, or it isn't wanted
    int64_t dtype, step[4];
};

// In the order in which cpu.py packs it.
struct arguments {
    launcher launch;
    int64_t threads, batch, channels, heads, scale, add;
    int64_t size[2], out_size[2], kernel[2], stride[2], dilation[2];
    struct tensor input, channel, spatial, output;            // output: the gradient, in the backward
    struct tensor of_input, of_channel, of_spatial;           // gradients
    const void *channel_scale, *channel_shift, *spatial_scale, *spatial_shift;
    double eps;                                               // negative: the published formula
};

#ifdef SUMS_IN_DOUBLE
typedef double real;
static const int64_t REAL = DOUBLE;
#else
typedef float real;
static const int64_t REAL = FLOAT;
#endif

#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define UP(a, b) (((a) + (b) - 1) / (b))
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))
#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR 64
#elif defined(__AVX__)
#define VECTOR 32
#else
#define VECTOR 16
#endif

static const int64_t SIZES[] = {4, 8, 2, 2};
static const int64_t ENOUGH = 16;  // items of work, so that threads are busy

INLINE char *at(const struct tensor *tensor, int64_t image, int64_t channel, int64_t row, int64_t column) {
    const int64_t *step = tensor->step;
    return tensor->data + SIZES[tensor->dtype]
        * (image * step[BATCH] + channel * step[CHANNEL] + row * step[ROW] + column * step[COLUMN]);
}

INLINE float from_bfloat(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

INLINE uint16_t to_bfloat(float value) {
    uint32_t wide;
    memcpy(&wide, &value, 4);
    uint32_t rounded = (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
    return (wide & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

// One axis: which source index each tap of each result reads (-1: none), and for how many results on, a step apart, the
// same taps are there.
struct axis {
    int64_t count, step, source_step, *source, *run;
};

static int64_t tap_index(int backward, int64_t result, int64_t tap, int64_t sources, int64_t stride, int64_t dilation,
                         int64_t padding) {
    int64_t source = backward ? result + padding - tap * dilation : result * stride + tap * dilation - padding;
    if (backward)
        source = source % stride ? -1 : source / stride;
    return source < 0 || source >= sources ? -1 : source;
}

static struct axis make_axis(const struct arguments *a, int which, int backward, int64_t *memory) {
    int64_t taps = a->kernel[which], stride = a->stride[which], padding = a->dilation[which] * (taps - 1) / 2;
    int64_t results = backward ? a->size[which] : a->out_size[which];
    int64_t sources = backward ? a->out_size[which] : a->size[which];
    struct axis axis = {results, backward ? stride : 1, backward ? 1 : stride, memory, memory + results * taps};
    for (int64_t result = results - 1; result >= 0; result--) {
        int64_t *source = axis.source + result * taps, next = result + axis.step;
        int same = next < results;
        for (int64_t tap = 0; tap < taps; tap++) {
            source[tap] = tap_index(backward, result, tap, sources, stride, a->dilation[which], padding);
            same = same && (source[tap] < 0) == (axis.source[next * taps + tap] < 0);
        }
        axis.run[result] = same ? axis.run[next] + 1 : 1;
    }
    return axis;
}

static int64_t axis_size(const struct arguments *a, int which) {
    return MAX(a->size[which], a->out_size[which]) * (a->kernel[which] + 1);
}

#include "ddf_memory.h"
#include "ddf_planes.h"
#include "ddf_pixels.h"
#include "ddf_passes.h"

// Both return 0, or 1 where memory ran out.
int ddf_forward(const struct arguments *a) {
    return run_pass(a, 0);
}

int ddf_backward(const struct arguments *a) {
    return run_pass(a, 1);
}

// Whether the compiler knows 16-bit floats.
int ddf_takes_half(void) {
#ifdef __FLT16_MAX__
    return 1;
#else
    return 0;
#endif
}
