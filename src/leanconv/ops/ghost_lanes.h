// One pixel of a Ghost module's tail in channels_last, for a run of WIDTH channels from `first` on: the activated
// map and its ghosts. Included once for each WIDTH.
#define JOINED(name, width) name##_##width
#define NAMED(name, width) JOINED(name, width)
#define VEC NAMED(vec, WIDTH)
#define MASK NAMED(mask, WIDTH)
#define RELU NAMED(relu, WIDTH)

typedef float VEC __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t MASK __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static inline VEC RELU(VEC value, int64_t relu) { return relu ? (VEC)((MASK)value & ~(value < (VEC){0})) : value; }

static inline __attribute__((always_inline)) void NAMED(lanes, WIDTH)(
    const struct ghost *g, const float *centre, float *pixel, struct window near, int64_t first, int64_t size,
    int64_t relu) {
    const int64_t m = g->channels, radius = size / 2;
    *(VEC *)(pixel + first) = RELU(*(const VEC *)(centre + first), relu);
    for (int64_t ghost = 0; ghost < g->each; ghost++) {
        VEC sum = *(const VEC *)(g->bias + ghost * m + first);
        for (int64_t row = near.top; row < near.bottom; row++)
            for (int64_t column = near.left; column < near.right; column++) {
                const float *from = centre + ((row - radius) * g->width + column - radius) * m + first;
                const float *weight = g->weight + ((ghost * size + row) * size + column) * m + first;
                sum += *(const VEC *)weight * RELU(*(const VEC *)from, relu);
            }
        sum = RELU(sum, relu);
        const int64_t at = first * g->each + ghost, room = g->outputs - m - at;
        float *to = pixel + m + at;
        if (g->each == 1 && room >= WIDTH)
            *(VEC *)to = sum;
        else
            for (int64_t c = 0; c < WIDTH && c * g->each < room; c++)
                to[c * g->each] = sum[c];
    }
}
#undef JOINED
#undef NAMED
#undef VEC
#undef MASK
#undef RELU
#undef WIDTH
