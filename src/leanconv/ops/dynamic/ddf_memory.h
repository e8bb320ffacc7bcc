// Values of any dtype into rows of `real` and back; the channel filter in blocks; FilterNorm.
typedef real vec __attribute__((vector_size(VECTOR), aligned(sizeof(real)), may_alias));
enum { LANES = VECTOR / sizeof(real) };

#define GET(values, index) (*(const vec *)((values) + (index)))
#define PUT(values, index) (*(vec *)((values) + (index)))
#define EACH(from, convert)                                   \
    do {                                                      \
        if (to_step == 1 && step == 1)                        \
            for (int64_t i = 0; i < count; i++)               \
                to[i] = convert(from[i]);                     \
        else                                                  \
            for (int64_t i = 0; i < count; i++)               \
                to[i * to_step] = convert(from[i * step]);    \
    } while (0)

// LANES zeros, ones and zeros: read from LANES - n on, the first n lanes are out; from 2 LANES - n on, they alone are in.
static const real some_lanes[3 * LANES] = {
    [LANES ... 2 * LANES - 1] = 1};

// The sum of the lanes. It is taken for each tap of each pixel, and the compiler's own way takes longer than the products.
INLINE real total(vec values) {
#if defined(__AVX512F__) && defined(SUMS_IN_DOUBLE)
    return _mm512_reduce_add_pd((__m512d)values);
#elif defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)values);
#else
    real lanes[LANES], all = 0;
    PUT(lanes, 0) = values;
    for (int lane = 0; lane < LANES; lane++)
        all += lanes[lane];
    return all;
#endif
}

#if defined(__AVX512F__) && !defined(SUMS_IN_DOUBLE)
INLINE __m512 folded(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

// Of four vectors, in each quarter their sums over it.
INLINE __m512 quarters(const vec *values) {
    __m512 even = folded((__m512)values[0], (__m512)values[2]), odd = folded((__m512)values[1], (__m512)values[3]);
    return folded(even, odd);
}
#endif

// The sums of the lanes of up to 16 vectors, one beside the other.
INLINE void totals(real *to, vec *values, int64_t count) {
#if defined(__AVX512F__) && !defined(SUMS_IN_DOUBLE)
    for (int64_t n = count; n < 16; n++)
        values[n] = (vec){0};
    __m512 a = quarters(values), b = quarters(values + 4), c = quarters(values + 8), d = quarters(values + 12);
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), all);
#else
    for (int64_t n = 0; n < count; n++)
        to[n] = total(values[n]);
#endif
}

APART void load(real *restrict to, int64_t to_step, const void *restrict from, int64_t dtype, int64_t step,
                       int64_t count) {
    if (dtype == FLOAT)
        EACH(((const float *)from), (real));
    else if (dtype == DOUBLE)
        EACH(((const double *)from), (real));
    else if (dtype == BFLOAT)
        EACH(((const uint16_t *)from), from_bfloat);
#ifdef __FLT16_MAX__
    else
        EACH(((const _Float16 *)from), (real));
#endif
}

APART void store(void *restrict values, int64_t dtype, int64_t to_step, const real *restrict from, int64_t step,
                        int64_t count) {
    if (dtype == FLOAT) {
        float *to = values;
        EACH(from, (float));
    } else if (dtype == DOUBLE) {
        double *to = values;
        EACH(from, (double));
    } else if (dtype == BFLOAT) {
        uint16_t *to = values;
        EACH(from, to_bfloat);
    }
#ifdef __FLT16_MAX__
    else if (dtype == HALF) {
        _Float16 *to = values;
        EACH(from, (_Float16));
    }
#endif
}

// Rows of the sums' own type, in moves of a fixed size of which the last may overlap the one before.
#define MOVE_ROWS(size)                                                                                  \
    do {                                                                                                 \
        for (int64_t row = 0; row < rows; row++, to += to_row, from += from_row) {                       \
            for (int64_t i = 0; i + size < count; i += size)                                             \
                memcpy(to + i, from + i, (size) * sizeof(real));                                         \
            memcpy(to + count - (size), from + count - (size), (size) * sizeof(real));                   \
        }                                                                                                \
    } while (0)

APART void move_rows(real *restrict to, int64_t to_row, const real *restrict from, int64_t from_row, int64_t rows,
                     int64_t count) {
    if (count >= 16)
        MOVE_ROWS(16);
    else if (count >= 8)
        MOVE_ROWS(8);
    else if (count >= 4)
        MOVE_ROWS(4);
    else if (count >= 2)
        MOVE_ROWS(2);
    else if (count == 1)
        MOVE_ROWS(1);
}

// y = α (x - mean) / (std + 1e-10) + β over the taps of each of `count` filters; a tap's values are dense.
APART void normalise(real *values, int64_t tap_step, int64_t taps, int64_t count, const real *scale,
                            const real *shift, int64_t scale_step, double eps) {
    enum { AT_ONCE = 64 };
    for (int64_t first = 0; first < count; first += AT_ONCE) {
        real mean[AT_ONCE] = {0}, factor[AT_ONCE] = {0};
        real *some = values + first;
        int64_t n = MIN(count - first, AT_ONCE);
        for (int64_t t = 0; t < taps; t++)
            for (int64_t i = 0; i < n; i++)
                mean[i] += some[t * tap_step + i];
        for (int64_t i = 0; i < n; i++)
            mean[i] /= taps;
        for (int64_t t = 0; t < taps; t++)
            for (int64_t i = 0; i < n; i++) {
                real off = some[t * tap_step + i] - mean[i];
                factor[i] += off * off;
            }
        for (int64_t i = 0; i < n; i++) {
            real variance = factor[i] / (taps - 1);
            real spread = sizeof(real) == 4 ? sqrtf(variance + MAX((real)eps, 0)) : sqrt(variance + MAX((real)eps, 0));
            factor[i] = 1 / (eps < 0 ? spread + (real)1e-10 : spread);
        }
        for (int64_t t = 0; t < taps; t++)
            for (int64_t i = 0; i < n; i++) {
                int64_t at = (first + i) * scale_step + t;
                real *value = some + t * tap_step + i;
                *value = (*value - mean[i]) * factor[i] * scale[at] + (shift ? shift[at] : 0);
            }
    }
}

// The blocks of a head: LANES channels each; the last one reaches back over the one before where they don't come out even.
INLINE int64_t blocks_of(int64_t channels) {
    return UP(channels, LANES);
}

INLINE int64_t first_of(int64_t block, int64_t channels) {
    return MAX(MIN(block * LANES, channels - LANES), 0);
}

// Where the first tap of a head's channel lies in the head's blocks; the next tap lies LANES on.
INLINE int64_t place(int64_t channel, int64_t channels, int64_t taps) {
    int64_t block = channel / LANES;
    return block * taps * LANES + channel - first_of(block, channels);
}

INLINE int64_t filter_size(const struct arguments *a) {
    return a->heads * blocks_of(a->channels / a->heads) * a->kernel[0] * a->kernel[1] * LANES;
}

struct filters {
    const struct arguments *a;
    real *blocks;  // (images or 1, branches, heads, blocks, taps, LANES)
};

static void prepare_channel(void *context, int64_t item, void *scratch) {
    struct filters *filters = context;
    const struct arguments *a = filters->a;
    int64_t branches = a->scale * a->scale, image = item / branches, branch = item % branches;
    int64_t channels = a->channels / a->heads, taps = a->kernel[0] * a->kernel[1];
    real *to = filters->blocks + item * filter_size(a);
    (void)scratch;
    for (int64_t head = 0; head < a->heads; head++)
        for (int64_t block = 0; block < blocks_of(channels); block++, to += taps * LANES) {
            int64_t count = MIN(channels, LANES);
            int64_t first = branch * a->channels + head * channels + first_of(block, channels);
            for (int64_t i = 0; i < taps * LANES; i++)
                to[i] = !a->add;
            if (!a->channel.data)
                continue;
            for (int64_t t = 0; t < taps; t++)
                load(to + t * LANES, 1, at(&a->channel, image, first, t / a->kernel[1], t % a->kernel[1]),
                           a->channel.dtype, a->channel.step[CHANNEL], count);
            if (a->channel_scale) {
                const real *shift = a->channel_shift;
                normalise(to, LANES, taps, count, (const real *)a->channel_scale + first * taps,
                                shift ? shift + first * taps : 0, taps, a->eps);
            }
        }
}
