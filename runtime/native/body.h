/* The instructions and the loop over pieces, for one level of the instruction set: BODY(name) is the level's name.

   The loops are written for the compiler to turn into vectors: `each` promises that an output is one of the inputs or
   apart from all of them, never shifted against one, and looks at its bound once: a store of bytes could change what the
   bound is read from, for all that the compiler knows, and such a loop has no vectors. */

#define each(i, n) _Pragma("GCC ivdep") for (int64_t i = 0, end_ = (n); i < end_; i++)
#define INSTRUCTION(name) static inline void BODY(name)(const struct step *s, const struct place *p)

#ifndef HALVES
#define HALVES
/* IEEE binary16 to binary32, in integers. */
static inline float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) /* infinities and NaNs */
        return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13 | ((magnitude & 0x3ff) ? 0x400000 : 0));
    if (magnitude >= 0x400)
        return float_of(sign | ((magnitude << 13) + (112u << 23)));
    float tiny = (float)magnitude * 0x1p-24f;
    return sign ? -tiny : tiny;
}

/* binary32 to binary16, to nearest, ties to even. */
static inline uint16_t float_to_half(float x) {
    uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520 and above round to infinity */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) /* subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the last bits */
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000));
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((magnitude - (112u << 23)) >> 13));
}

/* The steps of a generator are explained in portable/random.py. Its state grows by RANDOM_STEP with every element. */
#define RANDOM_STEP 0x9E3779B97F4A7C15u
static inline uint64_t random_word(uint64_t state) {
    uint64_t z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9u;
    return (z ^ (z >> 27)) * 0x94D049BB133111EBu;
}
#endif

/* --- to and from files: a or out is the block's first element, or with u the tensor's ------------------------------ */

#define SOURCE(type) ((const type *)s->a + (s->u ? p->first : 0) + p->at)
#define TARGET(type) ((type *)s->out + (s->u ? p->first : 0) + p->at)

INSTRUCTION(load_BF16) {
    const uint16_t *a = SOURCE(uint16_t);
    float *out = s->out;
    each(i, p->count) out[i] = float_of((uint32_t)a[i] << 16);
}

INSTRUCTION(load_F16) {
    const uint16_t *a = SOURCE(uint16_t);
    float *out = s->out;
    int64_t i = 0;
#if defined(LEVELS) && defined(__F16C__)
    for (; i + 8 <= p->count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(a + i))));
#endif
    for (; i < p->count; i++)
        out[i] = half_to_float(a[i]);
}

INSTRUCTION(load_F32) { memcpy(s->out, SOURCE(float), (size_t)p->count * sizeof(float)); }

INSTRUCTION(load_F64) {
    const double *a = SOURCE(double);
    float *out = s->out;
    each(i, p->count) out[i] = (float)a[i];
}

/* Masks as bits: eight elements per byte, the first in the lowest. Pieces begin with whole bytes. */
INSTRUCTION(load_bits) {
    const uint8_t *a = (const uint8_t *)s->a + (p->first + p->at) / 8;
    uint8_t *out = s->out;
    int64_t i = 0;
#ifdef __AVX512BW__
    for (; i + 64 <= p->count; i += 64) {
        uint64_t bits;
        memcpy(&bits, a + i / 8, sizeof bits);
        _mm512_storeu_si512(out + i, _mm512_maskz_set1_epi8(bits, 1));
    }
#endif
    for (; i < p->count; i++)
        out[i] = a[i / 8] >> i % 8 & 1;
}

INSTRUCTION(store_bits) {
    const uint8_t *a = s->a;
    uint8_t *out = (uint8_t *)s->out + (p->first + p->at) / 8;
    int64_t i = 0;
#ifdef __AVX512BW__
    for (; i + 64 <= p->count; i += 64) {
        __m512i whole = _mm512_loadu_si512(a + i);
        uint64_t bits = _mm512_test_epi8_mask(whole, whole);
        memcpy(out + i / 8, &bits, sizeof bits);
    }
#endif
    for (; i < p->count; i += 8) {
        uint32_t bits = 0;
        for (int64_t k = 0; k < 8 && i + k < p->count; k++)
            bits |= (uint32_t)a[i + k] << k;
        out[i / 8] = (uint8_t)bits;
    }
}

/* Rows of v numbers at a, columns of as many at b: their products, in rows of u. Terms are added one after the other, as
   in portable/operands.py. Both loops over `TILE` columns have a bound that is known, and keep the sums in registers. */
#define TILE 64
INSTRUCTION(load_product) {
    int64_t width = (int64_t)s->u, inner = (int64_t)s->v, at = p->first + p->at, end = at + p->count;
    float *out = s->out;
    while (at < end) {
        int64_t row = at / width, column = at % width, left = width - column < end - at ? width - column : end - at;
        const float *a = (const float *)s->a + row * inner, *b = (const float *)s->b + column;
        int64_t i = 0;
        for (; i + TILE <= left; i += TILE) {
            float sums[TILE] = {0};
            for (int64_t k = 0; k < inner; k++)
                each(j, TILE) sums[j] += a[k] * b[k * width + i + j];
            memcpy(out + i, sums, sizeof sums);
        }
        each(j, left - i) out[i + j] = 0;
        for (int64_t k = 0; k < inner; k++)
            each(j, left - i) out[i + j] += a[k] * b[k * width + i + j];
        out += left, at += left;
    }
}

/* The transpose of what `load_product` gives: a and b are swapped. */
INSTRUCTION(load_turned) {
    int64_t width = (int64_t)s->u, inner = (int64_t)s->v, rows = (int64_t)s->w;
    float *out = s->out;
    for (int64_t i = 0; i < p->count; i++) {
        int64_t at = p->first + p->at + i;
        const float *a = (const float *)s->a + at % width * inner, *b = (const float *)s->b + at / width;
        float sum = 0;
        for (int64_t k = 0; k < inner; k++)
            sum += b[k * rows] * a[k];
        out[i] = sum;
    }
}

/* c counts what isn't finite, as it is stored. */
#define NOT_FINITE(value) *(int64_t *)s->c += (value)

INSTRUCTION(store_BF16) {
    const float *a = s->a;
    uint16_t *out = TARGET(uint16_t);
    uint32_t found = 0;
    each(i, p->count) {
        uint32_t bits = bits_of(a[i]);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        rounded = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
        out[i] = (uint16_t)rounded;
        found += (rounded & 0x7f80) == 0x7f80;
    }
    NOT_FINITE(found);
}

INSTRUCTION(store_F16) {
    const float *a = s->a;
    uint16_t *out = TARGET(uint16_t);
    uint32_t found = 0;
    int64_t i = 0;
#if defined(LEVELS) && defined(__F16C__)
    for (; i + 8 <= p->count; i += 8)
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(a + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < p->count; i++)
        out[i] = float_to_half(a[i]);
    each(k, p->count) found += (out[k] & 0x7c00) == 0x7c00;
    NOT_FINITE(found);
}

/* types that hold every float as it is */
#define STORE_EXACTLY(name, type)                                                                                      \
    INSTRUCTION(name) {                                                                                                \
        const float *a = s->a;                                                                                         \
        type *out = TARGET(type);                                                                                      \
        uint32_t found = 0;                                                                                            \
        each(i, p->count) {                                                                                            \
            out[i] = a[i];                                                                                             \
            found += (bits_of(a[i]) & 0x7f800000) == 0x7f800000;                                                       \
        }                                                                                                              \
        NOT_FINITE(found);                                                                                             \
    }

STORE_EXACTLY(store_F32, float)
STORE_EXACTLY(store_F64, double)

/* --- element by element: numbers of the first and second argument are x and y; of `SIN` c is the table ----------- */

#define ONE(name, argument, result, expression)                                                                        \
    INSTRUCTION(name) {                                                                                                \
        const argument *a = s->a;                                                                                      \
        result *out = s->out;                                                                                          \
        each(i, p->count) {                                                                                            \
            argument x = a[i];                                                                                         \
            out[i] = (expression);                                                                                     \
        }                                                                                                              \
    }

#define TWO(name, argument, result, expression)                                                                        \
    INSTRUCTION(name) {                                                                                                \
        const argument *a = s->a, *b = s->b;                                                                           \
        result *out = s->out;                                                                                          \
        each(i, p->count) {                                                                                            \
            argument x = a[i], y = b[i];                                                                               \
            out[i] = (expression);                                                                                     \
        }                                                                                                              \
    }

#define FIRST(name, argument, result, expression)                                                                      \
    INSTRUCTION(name) {                                                                                                \
        const argument *a = s->a, y = (argument)s->y;                                                                  \
        result *out = s->out;                                                                                          \
        each(i, p->count) {                                                                                            \
            argument x = a[i];                                                                                         \
            out[i] = (expression);                                                                                     \
        }                                                                                                              \
    }

#define SECOND(name, argument, result, expression)                                                                     \
    INSTRUCTION(name) {                                                                                                \
        const argument *b = s->b, x = (argument)s->x;                                                                  \
        result *out = s->out;                                                                                          \
        each(i, p->count) {                                                                                            \
            argument y = b[i];                                                                                         \
            out[i] = (expression);                                                                                     \
        }                                                                                                              \
    }

#define SIN(x, quarters) (float)sin_of(x, quarters, s->c)

OF_ONE(ONE)
OF_TWO(TWO)
OF_FIRST(FIRST)
OF_SECOND(SECOND)

INSTRUCTION(pow_vv) {
    const float *a = s->a, *b = s->b;
    float *out = s->out;
    each(i, p->count) out[i] = (float)pow_of(a[i], power_of(b[i]));
}

INSTRUCTION(pow_vn) {
    const float *a = s->a;
    float *out = s->out;
    struct power power = power_of((float)s->y);
    each(i, p->count) out[i] = (float)pow_of(a[i], power);
}

INSTRUCTION(pow_nv) {
    const float *b = s->b;
    float x = (float)s->x, *out = s->out;
    each(i, p->count) out[i] = (float)pow_of(x, power_of(b[i]));
}

INSTRUCTION(fill_n) {
    float x = (float)s->x, *out = s->out;
    each(i, p->count) out[i] = x;
}

INSTRUCTION(set_n) { memset(s->out, s->x != 0, (size_t)p->count); }

/* The mask is a, or for all elements u; then and other are b and c, or x and y. */
#define CHOICE(name, mask, then, other)                                                                                      \
    INSTRUCTION(name) {                                                                                                \
        const uint8_t *a = s->a;                                                                                       \
        const float *b = s->b, *c = s->c, x = (float)s->x, y = (float)s->y;                                            \
        float *out = s->out;                                                                                           \
        (void)a, (void)b, (void)c, (void)x, (void)y;                                                                           \
        each(i, p->count) {                                                                                            \
            float yes = (then), no = (other);                                                                          \
            out[i] = (mask) ? yes : no;                                                                                \
        }                                                                                                              \
    }

CHOICE(where_mvv, a[i], b[i], c[i])
CHOICE(where_mvn, a[i], b[i], y)
CHOICE(where_mnv, a[i], x, c[i])
CHOICE(where_mnn, a[i], x, y)
CHOICE(where_nvv, s->u, b[i], c[i])
CHOICE(where_nvn, s->u, b[i], y)
CHOICE(where_nnv, s->u, x, c[i])

/* u is the threshold's pattern, v its cut, w how many that equal it are kept from there on; b counts those. */
INSTRUCTION(above_vt) {
    const float *a = s->a;
    uint8_t *out = s->out;
    int64_t *kept = (int64_t *)s->b, begin = p->first + p->at, cut = (int64_t)s->v, extra = (int64_t)s->w;
    uint32_t pattern = (uint32_t)s->u;
    int64_t before = cut - begin < 0 ? 0 : cut - begin < p->count ? cut - begin : p->count;
    each(i, before) out[i] = (bits_of(a[i]) & 0x7fffffff) >= pattern;
    const float *rest = a + before;
    uint8_t *to = out + before;
    each(i, p->count - before) to[i] = (bits_of(rest[i]) & 0x7fffffff) > pattern;
    if (p->at == 0)
        *kept = 0;
    for (int64_t i = before; i < p->count && *kept < extra && begin + i < cut + CHUNK; i++)
        if ((bits_of(a[i]) & 0x7fffffff) == pattern) {
            out[i] = 1;
            ++*kept;
        }
}

/* u is the key, v the bound of the word, whose lowest 40 bits are 0; w: every element is kept. States are added up: a
   product of 64 bits is three of a vector's instructions. */
INSTRUCTION(bernoulli_n) {
    uint8_t *out = s->out;
    uint64_t state = s->u + (uint64_t)(p->first + p->at) * RANDOM_STEP;
    uint32_t bound = (uint32_t)(s->v >> 32);
    if (s->w)
        memset(out, 1, (size_t)p->count);
    else
        each(i, p->count) {
            state += RANDOM_STEP;
            out[i] = (uint32_t)(random_word(state) >> 32) < bound;
        }
}

INSTRUCTION(bernoulli_v) {
    const float *a = s->a;
    uint8_t *out = s->out;
    uint64_t state = s->u + (uint64_t)(p->first + p->at) * RANDOM_STEP;
    each(i, p->count) {
        state += RANDOM_STEP;
        out[i] = (float)(int32_t)(random_word(state) >> 40) * 0x1p-24f < a[i];
    }
}

/* --- sums in a fixed order ------------------------------------------------------------------------------------------ */

/* Element k of what is summed goes to vector lane k modulo LANES; halves of the lanes are then added to halves. */
static inline double BODY(joined)(double *lanes) {
    for (int64_t half = LANES / 2; half; half /= 2)
        each(i, half) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* The lanes get what is summed of `n` elements, the first of which is number `from`. For the instruction of the name, c is
   LANES numbers of scratch; out receives the sum of every chunk of the block. */
#define SUMMED(name, term)                                                                                             \
    static inline void BODY(add_##name)(const float *a, const float *b, double *lanes, int64_t from, int64_t n) {      \
        int64_t i = 0;                                                                                                 \
        (void)b;                                                                                                       \
        for (; i < n && (from + i) % LANES; i++)                                                                       \
            lanes[(from + i) % LANES] += (term);                                                                       \
        for (int64_t begin = i; begin + LANES <= n; begin = i)                                                         \
            _Pragma("GCC ivdep") for (i = begin; i < begin + LANES; i++)                                               \
                lanes[i - begin] += (term);                                                                            \
        for (; i < n; i++)                                                                                             \
            lanes[(from + i) % LANES] += (term);                                                                       \
    }                                                                                                                  \
    INSTRUCTION(name) {                                                                                                \
        const float *a = s->a, *b = s->b;                                                                              \
        double *lanes = (double *)s->c, *sums = s->out;                                                                \
        for (int64_t done = 0; done < p->count;) {                                                                     \
            int64_t at = p->at + done, inside = at % CHUNK, left = p->count - done;                                    \
            int64_t n = left < CHUNK - inside ? left : CHUNK - inside;                                                 \
            if (!inside)                                                                                               \
                memset(lanes, 0, LANES * sizeof(double));                                                              \
            BODY(add_##name)(a + done, b ? b + done : b, lanes, inside, n);                                            \
            done += n;                                                                                                 \
            if (inside + n == CHUNK || at + n == p->block)                                                             \
                sums[at / CHUNK] = BODY(joined)(lanes);                                                                \
        }                                                                                                              \
    }

SUMS(SUMMED)

/* --- along rows of u elements: pieces hold whole rows ---------------------------------------------------------------- */

#include "ranks.h"

INSTRUCTION(row_sum_v) {
    const float *a = s->a;
    float *out = s->out;
    int64_t row = (int64_t)s->u;
    for (int64_t r = 0; r < p->count; r += row) {
        double lanes[LANES] = {0};
        BODY(add_sum_v)(a + r, NULL, lanes, 0, row);
        float sum = (float)BODY(joined)(lanes);
        each(i, row) out[r + i] = sum;
    }
}

/* The greatest or least of numbers, NaN where one is; lanes as for sums, and NaNs in a loop of their own: what both are
   counted in has no one width, and the loop no vectors. */
#define MOST_OF(name, compare, least)                                                                                  \
    static inline float BODY(name)(const float *a, int64_t n) {                                                        \
        float most[LANES];                                                                                             \
        int64_t whole = n / LANES * LANES;                                                                             \
        uint32_t unordered = 0;                                                                                        \
        each(i, n) unordered |= a[i] != a[i];                                                                          \
        if (unordered)                                                                                                 \
            return float_of(0x7fc00000);                                                                               \
        each(k, LANES) most[k] = (least);                                                                              \
        for (int64_t i = 0; i < whole; i += LANES)                                                                     \
            each(k, LANES) most[k] = a[i + k] compare most[k] ? a[i + k] : most[k];                                    \
        each(k, n - whole) most[k] = a[whole + k] compare most[k] ? a[whole + k] : most[k];                            \
        for (int64_t half = LANES / 2; half; half /= 2)                                                                \
            each(k, half) most[k] = most[half + k] compare most[k] ? most[half + k] : most[k];                         \
        return most[0] + 0.0f; /* of zeros, the one without a sign */                                                  \
    }

MOST_OF(greatest, >, -INFINITY)
MOST_OF(smallest, <, INFINITY)

INSTRUCTION(row_max_v) {
    const float *a = s->a;
    float *out = s->out;
    int64_t row = (int64_t)s->u;
    for (int64_t r = 0; r < p->count; r += row) {
        float largest = BODY(greatest)(a + r, row);
        each(i, row) out[r + i] = largest;
    }
}

/* Ascending, of equals the first lower, NaNs last. c is scratch: four words per element of a row. */
INSTRUCTION(row_rank_v) {
    const float *a = s->a;
    float *out = s->out;
    int64_t row = (int64_t)s->u;
    if (row == 1) {
        each(i, p->count) out[i] = 0.5f;
        return;
    }
    for (int64_t r = 0; r < p->count; r += row)
        BODY(ranks)(a + r, row, out + r, (void *)s->c);
}

/* --- counts and extremes: out receives one number per block ---------------------------------------------------------- */

INSTRUCTION(count_m) {
    const uint8_t *a = s->a;
    double *out = s->out;
    uint32_t found = 0; /* of a piece */
    each(i, p->count) found += a[i];
    *out = (p->at ? *out : 0) + (double)found;
}

#define EXTREME(name, most_of, compare)                                                                                \
    INSTRUCTION(name) {                                                                                                \
        double *out = s->out, found = (double)BODY(most_of)(s->a, p->count);                                           \
        *out = p->at == 0 || found compare *out || found != found ? found : *out;                                      \
    }

EXTREME(maximum_v, greatest, >)
EXTREME(minimum_v, smallest, <)

/* --- selection: counts of bit patterns, see selection.py ------------------------------------------------------------- */

/* The highest 15 bits below the sign, counted into TABLES tables of 32768 words at out. */
INSTRUCTION(histogram_v) {
    const float *a = s->a;
    uint32_t *table = s->out;
    int64_t i = 0;
    for (; i + TABLES <= p->count; i += TABLES)
        for (int64_t k = 0; k < TABLES; k++)
            table[k * 32768 + (bits_of(a[i + k]) >> 16 & 0x7fff)]++;
    for (; i < p->count; i++)
        table[bits_of(a[i]) >> 16 & 0x7fff]++;
}

/* Gathers, of `count` magnitudes, how far those in [first, first + span) lie above `first`; returns how many they are. Adds
   those beyond the window to `above`. Few are in it, as a rule, and which ones can't be foreseen. */
static inline int64_t BODY(gather)(
    const float *a, int64_t count, uint32_t first, uint32_t span, uint32_t *out, int64_t *above
) {
    int64_t found = 0, i = 0;
    uint32_t beyond = 0, end = first + span;
#ifdef __AVX512F__
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), start = _mm512_set1_epi32((int)first);
    for (; i + 16 <= count; i += 16) {
        __m512i bits = _mm512_and_si512(_mm512_loadu_si512(a + i), magnitude), far = _mm512_sub_epi32(bits, start);
        __mmask16 inside = _mm512_cmplt_epu32_mask(far, _mm512_set1_epi32((int)span));
        beyond += (uint32_t)__builtin_popcount(_mm512_cmpge_epu32_mask(bits, _mm512_set1_epi32((int)end)));
        _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(inside, far));
        found += __builtin_popcount(inside);
    }
#endif
    for (; i < count; i += GROUP) {
        int64_t n = count - i < GROUP ? count - i : GROUP;
        uint32_t far[GROUP], any = 0;
        each(k, n) {
            uint32_t bits = bits_of(a[i + k]) & 0x7fffffff;
            far[k] = bits - first;
            any |= far[k] < span;
            beyond += bits >= end;
        }
        for (int64_t k = 0; any && k < n; k++) {
            out[found] = far[k];
            found += far[k] < span;
        }
    }
    *above += beyond;
    return found;
}

/* A window of 65536 bins of 2^v magnitudes, from u on: those in it are counted at out by their bins, those above it at c.
   Where b is, it gets for every chunk of the block the bins that are few (`struct seen`). */
INSTRUCTION(window_v) {
    const float *a = s->a;
    uint32_t *table = s->out, first = (uint32_t)s->u, shift = (uint32_t)s->v, inside[BATCH + GROUP];
    int64_t above = 0, *passed = (int64_t *)s->c;
    for (int64_t i = 0, n; i < p->count; i += n) {
        int64_t at = (p->at + i) % CHUNK, left = p->count - i < CHUNK - at ? p->count - i : CHUNK - at;
        n = left < BATCH ? left : BATCH;
        int64_t found = BODY(gather)(a + i, n, first, (uint32_t)1 << (16 + shift), inside, &above);
        for (int64_t k = 0; k < found; k++)
            table[inside[k] >> shift]++;
        if (!s->b)
            continue;
        struct seen *seen = (struct seen *)s->b + (p->at + i) / CHUNK;
        if (at == 0)
            seen->found = 0;
        for (int64_t k = 0; k < found; k++)
            remember(seen, inside[k] >> shift);
    }
    *passed = (p->at ? *passed : 0) + above;
}

/* The highest 16 bits of the words that `quantile.py` orders, counted into two tables of 65536 words at out. Words are
   made in vectors before they are counted one by one. */
INSTRUCTION(order_v) {
    const float *a = s->a;
    uint32_t *table = s->out, words[ORDERED];
    for (int64_t i = 0; i < p->count; i += ORDERED) {
        int64_t n = p->count - i < ORDERED ? p->count - i : ORDERED, k = 0;
        each(j, n) words[j] = ordered(a[i + j]) >> 16;
        for (; k + 2 <= n; k += 2) {
            table[words[k]]++;
            table[65536 + words[k + 1]]++;
        }
        if (k < n)
            table[words[k]]++;
    }
}

/* Their lowest 16 bits, of those whose bits above them are u, counted at out. */
INSTRUCTION(order_digits_v) {
    const float *a = s->a;
    uint32_t *table = s->out, prefix = (uint32_t)s->u, words[ORDERED];
    for (int64_t i = 0; i < p->count; i += ORDERED) {
        int64_t n = p->count - i < ORDERED ? p->count - i : ORDERED;
        uint32_t any = 0;
        each(j, n) {
            words[j] = ordered(a[i + j]);
            any |= words[j] >> 16 == prefix;
        }
        for (int64_t k = 0; any && k < n; k++)
            if (words[k] >> 16 == prefix)
                table[words[k] & 0xffff]++;
    }
}

/* How many magnitudes of every chunk of the block are the pattern u, to out. */
INSTRUCTION(ties_v) {
    const float *a = s->a;
    int64_t *out = s->out;
    uint32_t pattern = (uint32_t)s->u;
    for (int64_t done = 0; done < p->count;) {
        int64_t at = p->at + done, inside = at % CHUNK, left = p->count - done;
        int64_t n = left < CHUNK - inside ? left : CHUNK - inside;
        uint32_t found = 0;
        each(i, n) found += (bits_of(a[done + i]) & 0x7fffffff) == pattern;
        out[at / CHUNK] = (inside ? out[at / CHUNK] : 0) + found;
        done += n;
    }
}

/* The u-th largest magnitude of a tensor that is one block, and how many that equal it are among the u largest, to out:
   two words. c is scratch, one word per element. With u = 0, nothing. */
INSTRUCTION(kth_v) {
    const float *a = s->a;
    uint32_t *words = (uint32_t *)s->c, *to = words + p->at;
    each(i, p->count) to[i] = bits_of(a[i]) & 0x7fffffff;
    if (p->at + p->count < p->block || !s->u)
        return;
    uint32_t counts[2048], pattern = 0;
    uint64_t rank = s->u, *out = s->out;
    int64_t left = p->block;
    /* 11 bits of the 31, then 10 and 10; what agrees with the digits found is moved to the front */
    for (int shift = 20; shift >= 0 && left > 1; shift -= 10) {
        uint32_t digit = shift == 20 ? 2047 : 1023, mask = digit;
        memset(counts, 0, (mask + 1) * sizeof *counts);
        for (int64_t i = 0; i < left; i++)
            counts[words[i] >> shift & mask]++;
        for (; counts[digit] < rank; digit--)
            rank -= counts[digit];
        int64_t kept = 0;
        for (int64_t i = 0; i < left; i++) {
            uint32_t word = words[i];
            words[kept] = word;
            kept += (word >> shift & mask) == digit;
        }
        left = kept;
        pattern |= digit << shift;
    }
    out[0] = left == 1 ? words[0] : pattern;
    out[1] = rank;
}

/* --- the loop ---------------------------------------------------------------------------------------------------------- */

#define CASE(name, ...)                                                                                                \
    case OP_##name:                                                                                                    \
        BODY(name)(s, &p);                                                                                             \
        break;

static void BODY(run)(const struct step *steps, int64_t number, int64_t first, int64_t count, int64_t piece) {
    for (int64_t at = 0; at < count; at += piece) {
        struct place p = {first, at, count - at < piece ? count - at : piece, count};
        for (const struct step *s = steps; s < steps + number; s++)
            switch (s->op) { INSTRUCTIONS(CASE) }
    }
}

#undef each
#undef INSTRUCTION
#undef SOURCE
#undef TILE
#undef TARGET
#undef NOT_FINITE
#undef STORE_EXACTLY
#undef ONE
#undef TWO
#undef FIRST
#undef SECOND
#undef SIN
#undef CHOICE
#undef SUMMED
#undef MOST_OF
#undef EXTREME
#undef CASE
