/* The ranks of a row's elements, for one level of the instruction set (see `body.h`).

   A row of up to FEW_IN_ROW elements is compared all with all. Longer ones are sorted by a network: which words it
   compares does not depend on what they are, so it works on vectors, where a sort by digits waits for counters that are
   hit again and again (the change of a tensor in bfloat16 has some hundred distinct magnitudes in thousands). What is
   sorted are words of 32 bits, a number's code above its place in the row:

   - Codes are in the order of the numbers. They are the keys less the row's lowest, with as many low bits dropped as
     need be; the lowest bit of a code says whether bits that were dropped are set. So of equal codes only odd ones can
     stand for different numbers. Those are rare and settled afterwards.
   - 0 is the code of zeros that are the lowest of their row, as they are among magnitudes: the next key is far off.

   Sorts by digits remain for rows that would leave too much to settle, and for machines without such vectors. */

#ifndef SORT_KEY
#define SORT_KEY
#define ZERO_KEY 0x80000000u
#define FEW_IN_ROW 64
#define CROWDED 8192 /* elements of a row whose codes are inexact: of more, many codes would be equal */

/* Unsigned, in the order of the numbers: zeros are equal, NaNs are too, and last. */
static inline uint32_t sort_key(float x) {
    uint32_t bits = bits_of(x + 0.0f); /* which is 0 for -0 */
    uint32_t key = bits ^ ((uint32_t)-(int32_t)(bits >> 31) | ZERO_KEY);
    return x != x ? UINT32_MAX : key;
}
#endif

static void BODY(ranks_of_few)(const float *a, int64_t row, float *out) {
    uint64_t words[FEW_IN_ROW], below[FEW_IN_ROW] = {0};
    each(i, row) words[i] = (uint64_t)sort_key(a[i]) << 32 | (uint64_t)i;
    for (int64_t j = 0; j < row; j++) {
        uint64_t word = words[j];
        each(i, row) below[i] += word < words[i];
    }
    float step = (float)(row - 1);
    each(i, row) out[i] = (float)(int64_t)below[i] / step;
}

/* By the keys' bytes, the lowest first; what is sorted is a key with its element's number below it. */
static void BODY(ranks_by_digits)(const float *a, int64_t row, float *out, uint64_t *from) {
    uint64_t *to = from + row;
    uint32_t counts[4][256] = {{0}};
    for (int64_t i = 0; i < row; i++) {
        uint32_t key = sort_key(a[i]);
        from[i] = (uint64_t)key << 32 | (uint64_t)i;
        for (int digit = 0; digit < 4; digit++)
            counts[digit][key >> 8 * digit & 255]++;
    }
    for (int digit = 0; digit < 4; digit++) {
        uint32_t *count = counts[digit], start = 0;
        int shift = 32 + 8 * digit;
        if (count[from[0] >> shift & 255] == row) /* all equal in this byte, as they often are in the lowest */
            continue;
        for (int64_t k = 0; k < 256; k++) {
            uint32_t n = count[k];
            count[k] = start;
            start += n;
        }
        for (int64_t i = 0; i < row; i++)
            to[count[from[i] >> shift & 255]++] = from[i];
        uint64_t *swap = from;
        from = to, to = swap;
    }
    float step = (float)(row - 1);
    for (int64_t i = 0; i < row; i++)
        out[(int64_t)(uint32_t)from[i]] = (float)i / step;
}

#if defined(LEVELS) && defined(__AVX2__)

#ifdef __AVX512F__
#define WIDTH 16 /* words of a vector */
#define FAN 16   /* vectors that are in registers together */
#define VECTOR __m512i
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, x) _mm512_storeu_si512(p, x)
#define LEAST(x, y) _mm512_min_epu32(x, y)
/* the one of both that is not the least; the processor's unit for extremes is busy with that */
#define MOST(x, y, least) _mm512_ternarylogic_epi32(x, y, least, 0x96)
#define LANES_OF(x, from) _mm512_permutexvar_epi32(from, x)
#define CHOSEN(x, y, lanes) _mm512_mask_blend_epi32((__mmask16)_mm512_test_epi32_mask(lanes, lanes), x, y)
#define AND(x, y) _mm512_and_si512(x, y)
#define XOR(x, y) _mm512_xor_si512(x, y)
#define ALL(n) _mm512_set1_epi32(n)
#define NUMBERED _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#else
#define WIDTH 8
#define FAN 8
#define VECTOR __m256i
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(p), x)
#define LEAST(x, y) _mm256_min_epu32(x, y)
#define MOST(x, y, least) _mm256_max_epu32(x, y)
#define LANES_OF(x, from) _mm256_permutevar8x32_epi32(x, from)
#define CHOSEN(x, y, lanes) _mm256_blendv_epi8(x, y, _mm256_cmpgt_epi32(lanes, _mm256_setzero_si256()))
#define AND(x, y) _mm256_and_si256(x, y)
#define XOR(x, y) _mm256_xor_si256(x, y)
#define ALL(n) _mm256_set1_epi32(n)
#define NUMBERED _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)
#endif

static inline __attribute__((always_inline)) void BODY(exchange)(VECTOR *x, VECTOR *y) {
    VECTOR least = LEAST(*x, *y);
    *y = MOST(*x, *y, least);
    *x = least;
}

/* Among FAN vectors x: each with the one that lies `half` behind it, or as far behind the middle of 2 * half vectors as
   it lies before that. */
#define EXCHANGE(half, other)                                                                                          \
    _Pragma("GCC unroll 16") for (int k = 0; k < FAN; k++) if (!(k & (half))) BODY(exchange)(&x[k], &x[(other) % FAN])
#define APART(half) EXCHANGE(half, k + (half))
#define MIRRORED(half) EXCHANGE(half, k ^ (2 * (half) - 1))

/* Takes FAN vectors in hand, half of them from `low` and half from `high` on, one in every `step`. Exchanges halves,
   mirrored, if it is said so; then at distances of `first` vectors in hand and less. */
static inline __attribute__((always_inline)) void BODY(fan)(
    uint32_t *low, uint32_t *high, int64_t step, int mirrored, int first
) {
    VECTOR x[FAN];
#pragma GCC unroll 16
    for (int k = 0; k < FAN / 2; k++) {
        x[k] = LOAD(low + k * step * WIDTH);
        x[FAN / 2 + k] = LOAD(high + k * step * WIDTH);
    }
    if (mirrored)
        MIRRORED(FAN / 2);
    if (FAN > 8 && first >= 8)
        APART(8);
    if (first >= 4)
        APART(4);
    if (first >= 2)
        APART(2);
    APART(1);
#pragma GCC unroll 16
    for (int k = 0; k < FAN / 2; k++) {
        STORE(low + k * step * WIDTH, x[k]);
        STORE(high + k * step * WIDTH, x[FAN / 2 + k]);
    }
}

/* Sorts each vector lane of FAN vectors. */
static inline __attribute__((always_inline)) void BODY(sort_fan)(uint32_t *words) {
    VECTOR x[FAN];
#pragma GCC unroll 16
    for (int k = 0; k < FAN; k++)
        x[k] = LOAD(words + k * WIDTH);
    MIRRORED(1);
    MIRRORED(2);
    APART(1);
    MIRRORED(4);
    APART(2);
    APART(1);
    if (FAN > 8) {
        MIRRORED(8);
        APART(4);
        APART(2);
        APART(1);
    }
#pragma GCC unroll 16
    for (int k = 0; k < FAN; k++)
        STORE(words + k * WIDTH, x[k]);
}

/* The exchanges at distances of half of `length` and less, down to neighbours. */
static void BODY(descend)(uint32_t *words, int64_t vectors, int64_t length) {
    while (length > 1) {
        int64_t step = length >= FAN ? length / FAN : 1;
        int first = length >= FAN ? FAN / 2 : (int)(length / 2);
        for (int64_t block = 0; block < vectors; block += FAN * step)
            for (int64_t v = block; v < block + step; v++)
                BODY(fan)(words + v * WIDTH, words + (v + FAN / 2 * step) * WIDTH, step, 0, first);
        length = step;
    }
}

/* Merges each lane with another one of its `lanes`, both in order: exchanges of the first half of these lanes with the
   second, mirrored, then at smaller distances. */
static void BODY(merge_lanes)(uint32_t *words, int64_t vectors, int lanes) {
    VECTOR numbered = NUMBERED, mirror = XOR(numbered, ALL(lanes - 1)), second = AND(numbered, ALL(lanes / 2));
    for (int64_t v = 0; v < vectors / 2; v++) {
        uint32_t *low = words + v * WIDTH, *high = words + (vectors - 1 - v) * WIDTH;
        VECTOR x = LOAD(low), y = LANES_OF(LOAD(high), mirror);
        BODY(exchange)(&x, &y);
        VECTOR p = CHOSEN(x, y, second), q = LANES_OF(CHOSEN(y, x, second), mirror);
        for (int apart = lanes / 4; apart; apart /= 2) {
            VECTOR other = XOR(numbered, ALL(apart)), later = AND(numbered, ALL(apart));
            x = LANES_OF(p, other), y = LANES_OF(q, other);
            BODY(exchange)(&p, &x);
            BODY(exchange)(&q, &y);
            p = CHOSEN(p, x, later), q = CHOSEN(q, y, later);
        }
        STORE(low, p);
        STORE(high, q);
    }
    BODY(descend)(words, vectors, vectors);
}

/* Sorts by a bitonic network. Its wire i is lane i / vectors of vector i % vectors, so that most exchanges are between
   whole vectors: first every lane is sorted for itself, then lanes are merged. `vectors` is a power of two; those from
   `used` on hold nothing but the largest words. */
static void BODY(sort_words)(uint32_t *words, int64_t vectors, int64_t used) {
    for (int64_t v = 0; v < used; v += FAN)
        BODY(sort_fan)(words + v * WIDTH);
    for (int64_t length = 2 * FAN; length <= vectors; length *= 2) {
        int64_t step = length / FAN;
        for (int64_t block = 0; block + length / 2 < used; block += length) {
            uint32_t *low = words + block * WIDTH, *high = low + (length / 2 + step - 1) * WIDTH;
            for (int64_t v = 0; v < step; v++)
                BODY(fan)(low + v * WIDTH, high - v * WIDTH, step, 1, FAN / 4);
            BODY(descend)(low, length, step);
        }
    }
    for (int lanes = 2; lanes <= WIDTH; lanes *= 2)
        BODY(merge_lanes)(words, vectors, lanes);
}

/* What word i of the sorted row is, and its number's key. */
#define WIRE(i) words[((i) & (vectors - 1)) * WIDTH + ((i) >> shift)]
#define KEY(word) sort_key(a[(word) & place])
#define SAME_CODE(x, y) (((x) ^ (y)) <= place ? (x) & odd : 0)

/* Puts words of equal odd codes in the order of their numbers. False: that takes too long. */
static int BODY(settle)(const float *a, int64_t row, uint32_t *words, int64_t vectors, uint32_t place) {
    uint32_t any = 0, odd = place + 1;
    int64_t last = (vectors - 1) * WIDTH, left = 4 * row;
    each(i, last) any |= SAME_CODE(words[i], words[i + WIDTH]);
    each(i, WIDTH - 1) any |= SAME_CODE(words[last + i], words[i + 1]);
    int shift = __builtin_ctzll((uint64_t)vectors);
    if (!any)
        return 1;
    for (int64_t i = 1; i < row; i++) {
        uint32_t word = WIRE(i);
        if (!SAME_CODE(word, WIRE(i - 1)))
            continue;
        uint32_t key = KEY(word);
        int64_t k = i;
        for (; k > 0 && SAME_CODE(word, WIRE(k - 1)) && KEY(WIRE(k - 1)) > key; k--) {
            if (!left--)
                return 0;
            WIRE(k) = WIRE(k - 1);
        }
        WIRE(k) = word;
    }
    return 1;
}

/* False: too much is to be put right. */
static int BODY(ranks_by_network)(const float *a, int64_t row, float *out, uint32_t *words) {
    int64_t vectors = FAN, used = (row + WIDTH - 1) / WIDTH;
    while (vectors < used)
        vectors *= 2;
    uint32_t place = 1; /* the bits of a word that hold its place in the row */
    while (place < row - 1)
        place = 2 * place + 1;
    uint32_t odd = place + 1, most = UINT32_MAX / odd / 2;

    uint32_t lowest = UINT32_MAX, above_zero = UINT32_MAX, highest = 0;
    each(i, row) words[i] = sort_key(a[i]);
    each(i, row) {
        uint32_t key = words[i], over = key - ZERO_KEY - 1;
        lowest = key < lowest ? key : lowest;
        above_zero = over < above_zero ? over : above_zero;
        highest = key > highest ? key : highest;
    }
    /* where there is nothing but zeros, this wraps around to their key */
    uint32_t bottom = lowest < ZERO_KEY ? lowest : above_zero + ZERO_KEY + 1;
    int dropped = 0;
    while (((highest - bottom) >> dropped) + 2 > most)
        dropped++;
    uint32_t low_bits = ((uint32_t)1 << dropped) - 1, inexact = 0;
    each(i, row) {
        uint32_t over = words[i] - bottom, rest = words[i] < bottom ? 0 : over & low_bits;
        uint32_t code = words[i] < bottom ? 0 : ((over >> dropped) + 1) << 1 | (rest != 0);
        words[i] = code * odd | (uint32_t)i;
        inexact += rest != 0;
    }
    if (inexact > CROWDED)
        return 0;
    each(i, vectors * WIDTH - row) words[row + i] = ~odd; /* above all codes, and even */
    BODY(sort_words)(words, vectors, used);
    if (inexact && !BODY(settle)(a, row, words, vectors, place))
        return 0;

    float last = (float)(row - 1);
#ifdef __AVX512F__
    VECTOR ranks = _mm512_mullo_epi32(NUMBERED, ALL((int)vectors));
    for (int64_t v = 0; v < vectors; v++) {
        __mmask16 real = _mm512_cmplt_epi32_mask(ranks, ALL((int)row));
        __m512 values = _mm512_div_ps(_mm512_cvtepi32_ps(ranks), _mm512_set1_ps(last));
        _mm512_mask_i32scatter_ps(out, real, AND(LOAD(words + v * WIDTH), ALL((int)place)), values, sizeof *out);
        ranks = _mm512_add_epi32(ranks, ALL(1));
    }
#else
    for (int v = 0; v < vectors; v++) {
        float values[WIDTH];
        for (int k = 0; k < WIDTH; k++)
            values[k] = (float)(k * (int)vectors + v) / last;
        for (int64_t k = 0; k < WIDTH && k * vectors + v < row; k++)
            out[words[v * WIDTH + k] & place] = values[k];
    }
#endif
    return 1;
}

#undef WIDTH
#undef FAN
#undef VECTOR
#undef LOAD
#undef STORE
#undef LEAST
#undef MOST
#undef LANES_OF
#undef CHOSEN
#undef AND
#undef XOR
#undef ALL
#undef NUMBERED
#undef EXCHANGE
#undef APART
#undef MIRRORED
#undef WIRE
#undef KEY
#undef SAME_CODE
#endif

/* `scratch` has four words per element. */
static inline void BODY(ranks)(const float *a, int64_t row, float *out, void *scratch) {
    if (row <= FEW_IN_ROW) {
        BODY(ranks_of_few)(a, row, out);
        return;
    }
#if defined(LEVELS) && defined(__AVX2__)
    if (row <= 1 << 16 && BODY(ranks_by_network)(a, row, out, scratch))
        return;
#endif
    BODY(ranks_by_digits)(a, row, out, scratch);
}
