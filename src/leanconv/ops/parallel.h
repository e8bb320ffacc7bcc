// Work shared among the threads of the OpenMP runtime that PyTorch has loaded, reached by the address of GOMP_parallel.
#pragma once
#include <stdint.h>
#include <stdlib.h>

typedef void (*launcher)(void (*)(void *), void *, unsigned threads, unsigned flags);
typedef void (*worker)(void *context, int64_t item, void *scratch);

struct crew {
    worker work;
    void *context;
    int64_t items, next, scratch;
    int64_t out_of_memory;
};

static void take_turns(void *of_crew) {
    struct crew *crew = of_crew;
    int64_t item = __atomic_fetch_add(&crew->next, 1, __ATOMIC_RELAXED);
    if (item >= crew->items)
        return;
    void *scratch = crew->scratch ? aligned_alloc(64, (crew->scratch + 63) / 64 * 64) : 0;
    if (crew->scratch && !scratch) {
        __atomic_store_n(&crew->out_of_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    for (; item < crew->items; item = __atomic_fetch_add(&crew->next, 1, __ATOMIC_RELAXED))
        crew->work(crew->context, item, scratch);
    free(scratch);
}

// Does all items, each by one thread that has `scratch` bytes for itself. Which thread does which is left to chance, so
// an item must not depend on what others write. Returns 0, or 1 where memory ran out.
static int share(launcher launch, int64_t threads, worker work, void *context, int64_t items, int64_t scratch) {
    struct crew crew = {work, context, items, 0, scratch, 0};
    if (threads > items)
        threads = items;
    if (launch && threads > 1)
        launch(take_turns, &crew, (unsigned)threads, 0);
    else if (items > 0)
        take_turns(&crew);
    return (int)crew.out_of_memory;
}
