/* The compiled kernels: a pass's code, run over a block in pieces that stay in cache.

   A block is cut into pieces of some thousand elements, and every instruction of the code runs over
   a piece before the next piece begins, so that registers never leave the first levels of cache and
   no memory as large as a block is written in between (the way of numexpr and of vectorised query
   engines). Results are those of the portable kernels, bit for bit: float32 throughout, no
   contraction, sums in the order that `summation.py` defines. Only functions are this backend's own
   (`functions.h`).

   `body.h` holds the instructions. It is compiled once for each level of the instruction set, and the best one that
   the processor has is chosen when the library is loaded. */

#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((int64_t)1 << 16) /* compiler/plan/plan.py's */
#define LANES 64                 /* summation.py's */
#define FEW 32                   /* selection.py's: distinct bins of a chunk that are remembered */
#define GROUP 16                 /* elements that are looked at together for a rare one */
#define BATCH 512                /* elements of which the rare ones are gathered together */
#define ORDERED 64               /* elements whose words are made before any is counted */
#define TABLES 2                 /* histograms, filled in turn: increments of one counter wait for each other */

/* One instruction, its arguments in place. What x to w mean is said at each instruction. */
struct step {
    int64_t op;
    void *out;
    const void *a, *b, *c;
    double x, y;
    uint64_t u, v, w;
};

/* Where a piece lies: `first` is the block's first element in the tensor, `at` the piece's first in the block. */
struct place {
    int64_t first, at, count, block;
};

/* Bins of a window that a chunk has, with their counts; more than FEW: `found` is -1. */
struct seen {
    int64_t found;
    uint32_t bin[FEW], count[FEW];
};

static void remember(struct seen *seen, uint32_t bin) {
    int64_t k = 0;
    while (k < seen->found && seen->bin[k] != bin)
        k++;
    if (k < seen->found)
        seen->count[k]++;
    else if (k == FEW)
        seen->found = -1;
    else if (seen->found >= 0) {
        seen->bin[k] = bin;
        seen->count[k] = 1;
        seen->found++;
    }
}

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Unsigned words that order as numbers do, see quantile.py; NaNs are the largest. */
static inline uint32_t ordered(float x) {
    uint32_t bits = bits_of(x), nan = -(uint32_t)((bits & 0x7fffffff) > 0x7f800000);
    return (bits ^ (0x80000000 | -(bits >> 31))) | nan;
}

#include "functions.h"
#include "instructions.h"

enum { INSTRUCTIONS(ENUMERATED) NUMBER_OF_INSTRUCTIONS };
static const char *const names[] = {INSTRUCTIONS(NAMED)};

#define BODY(name) name##_baseline
#include "body.h"
#undef BODY

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LEVELS 1
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt")
#define BODY(name) name##_avx2
#include "body.h"
#undef BODY
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define BODY(name) name##_avx512
#include "body.h"
#undef BODY
#pragma GCC pop_options
#endif

#define EXPORTED __attribute__((visibility("default")))

typedef void runner(const struct step *, int64_t, int64_t, int64_t, int64_t);

static runner *chosen(void) {
#ifdef LEVELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return run_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return run_avx2;
#endif
    return run_baseline;
}

/* Any alignment will do. */
#ifdef LEVELS
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
static uint64_t checksum(const char *data, int64_t words, uint64_t first) {
    uint64_t total = 0;
    for (int64_t i = 0; i < words; i++) {
        uint64_t x;
        memcpy(&x, data + 8 * i, 8);
        x += (first + (uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
        x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
        total += x ^ x >> 29;
    }
    return total;
}

/* Runs `steps` over elements [first, first + count) of a tensor, `piece` elements at a time. */
EXPORTED void mergec_run(const struct step *steps, int64_t number, int64_t first, int64_t count, int64_t piece) {
    static runner *run;
    if (!run)
        run = chosen();
    run(steps, number, first, count, piece);
}

/* Bytes of an open file that are to be read to `to`. */
struct range {
    int64_t file, start, size;
    char *to;
};

/* Reads the ranges, then runs `steps` as `mergec_run` does: one call, which releases the GIL once. Returns the
   first range that could not be read, and then has run nothing; `ranges` if all were. */
EXPORTED int64_t mergec_read_and_run(
    const struct range *range, int64_t ranges, const struct step *steps, int64_t number, int64_t first, int64_t count,
    int64_t piece
) {
    for (int64_t k = 0; k < ranges; k++)
        for (int64_t done = 0; done < range[k].size;) {
            ssize_t n = pread((int)range[k].file, range[k].to + done, (size_t)(range[k].size - done), range[k].start + done);
            if (n <= 0 && !(n < 0 && errno == EINTR))
                return k;
            done += n > 0 ? n : 0;
        }
    mergec_run(steps, number, first, count, piece);
    return ranges;
}

/* The same over `tensors` of `count` elements each, whose steps follow one another, `number` for each. */
EXPORTED void mergec_run_each(
    const struct step *steps, int64_t number, int64_t tensors, int64_t count, int64_t piece
) {
    for (int64_t k = 0; k < tensors; k++)
        mergec_run(steps + k * number, number, 0, count, piece);
}

/* The name of instruction `op`, NULL behind the last. */
EXPORTED const char *mergec_name(int64_t op) {
    return op >= 0 && op < NUMBER_OF_INSTRUCTIONS ? names[op] : NULL;
}

/* Bytes of one `struct step`, then of one `struct seen`, so that callers can check that they agree. */
EXPORTED int64_t mergec_size(int64_t which) { return which ? (int64_t)sizeof(struct seen) : (int64_t)sizeof(struct step); }

/* `checksum` of runtime/resume/checksums.py: words from number `first` of their tensor on. */
EXPORTED uint64_t mergec_checksum(const char *data, int64_t words, uint64_t first) { return checksum(data, words, first); }

/* `checksum` of `tensors` whole tensors, each in bytes [starts[k], starts[k] + sizes[k]) of `data`, to `sums`. */
EXPORTED void mergec_checksums(
    const char *data, int64_t tensors, const int64_t *starts, const int64_t *sizes, uint64_t *sums
) {
    for (int64_t k = 0; k < tensors; k++) {
        int64_t words = sizes[k] / 8, rest = sizes[k] % 8;
        char last[8] = {0};
        memcpy(last, data + starts[k] + 8 * words, (size_t)rest);
        sums[k] = checksum(data + starts[k], words, 0) + (rest ? checksum(last, 1, (uint64_t)words) : 0);
    }
}
