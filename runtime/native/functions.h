/* Functions whose results aren't rationals: one algorithm each, of IEEE operations in a fixed order. So they give
   the same bits on every machine, where libraries of functions differ in the last one.

   Numbers are float32, all inside is float64. What is lost there is some 2^-49 of a result, so that a result is the
   nearest float32 but for fewer than one in a million, and then the next. There is no branch and no call, so loops
   become vectors.

   Reductions of arguments are those of W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980);
   that of sin and cos is M. Payne and R. Hanek's, Radian reduction for trigonometric functions (1983), with a table in
   place of long products. Polynomials go through the function at the Chebyshev nodes of their interval, where they are
   next to the best of their degree; they were computed with 60 digits. */

#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t word_of(double x) {
    uint64_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

INLINE double double_of(uint64_t word) {
    double x;
    memcpy(&x, &word, sizeof x);
    return x;
}

/* Added to a number below 2^51 it rounds that to an integer, whose lowest bits are the lowest of the sum. */
#define SHIFT 0x1.8p52
#define LN2 0.6931471805599453
#define LN2_HIGH 0.6931471805592082 /* 40 bits: exact times any exponent */
#define LN2_LOW 7.371002565167799e-13
#define LOG2_E 1.4426950408889634
#define HALF_PI 1.5707963267948966

/* Polynomials are summed in halves, of even powers and of odd ones, so that fewer operations wait for one another. */
INLINE double of_six(double z, double c0, double c1, double c2, double c3, double c4, double c5) {
    double z2 = z * z, even = (c4 * z2 + c2) * z2 + c0, odd = (c5 * z2 + c3) * z2 + c1;
    return odd * z + even;
}

/* x = n·ln 2 + r, |r| <= ln 2 / 2; e^r - 1 and 2^n. */
#define SPLIT_EXP(x, q, power)                                                                                         \
    double shifted = x * LOG2_E + SHIFT, n = shifted - SHIFT;                                                          \
    double r = (x - n * LN2_HIGH) - n * LN2_LOW;                                                                       \
    double r2 = r * r, even = 2.763265575933203e-06, odd = 2.7620088445409746e-07;                                     \
    even = even * r2 + 0.0001984119061583585;                                                                          \
    even = even * r2 + 0.008333333367332009;                                                                           \
    even = even * r2 + 0.16666666666615607;                                                                            \
    even = even * r2 + 1.0000000000000013;                                                                             \
    odd = odd * r2 + 2.4801521295954376e-05;                                                                           \
    odd = odd * r2 + 0.0013888888917213717;                                                                            \
    odd = odd * r2 + 0.04166666666662413;                                                                              \
    odd = odd * r2 + 0.5000000000000001;                                                                               \
    double q = odd * r + even;                                                                                         \
    q = q * r;                                                                                                         \
    double power = double_of((word_of(shifted) + 1023) << 52)

/* Beyond the bounds a float32 is 0 or infinite. */
INLINE double exp_of(double x) {
    x = x < -110.0 ? -110.0 : x > 90.0 ? 90.0 : x;
    SPLIT_EXP(x, q, power);
    return power * q + power;
}

/* e^2|x| - 1 over itself plus 2; beyond 20 it is 1. */
INLINE double tanh_of(double x) {
    double twice = fabs(x) * 2.0;
    twice = twice > 40.0 ? 40.0 : twice;
    SPLIT_EXP(twice, q, power);
    double grown = power * q + (power - 1.0);
    return copysign(grown / (grown + 2.0), x);
}

/* Of a number above 0, or 0, or infinity: x = m·2^n with m from √½ to √2, and log m = 2·atanh((m - 1) / (m + 1)). */
INLINE double log_of(double x) {
    uint64_t word = word_of(x), biased = (word + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd)) >> 52;
    double m = double_of(word - ((biased - 1023) << 52));
    double n = double_of(biased | 0x4330000000000000) - (0x1p52 + 1023.0);
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = of_six(z, 0.6666666666666208, 0.400000000112122, 0.2857142413651635, 0.22222862476849542,
                      0.18140185202493248, 0.166219470901774);
    double result = n * LN2 + (s * 2.0 + s * (z * p));
    result = x < (double)INFINITY ? result : x;
    return x == 0.0 ? -(double)INFINITY : result;
}

INLINE double log_of_any(double x) {
    double result = log_of(x);
    return x < 0.0 ? (double)NAN : result;
}

/* arccos by the series of arcsin up to ½, and beyond by arccos x = 2·arcsin √((1 - x) / 2). */
INLINE double acos_of(double x) {
    double a = fabs(x), half = (1.0 - a) * 0.5;
    double z = a > 0.5 ? half : a * a, s = a > 0.5 ? sqrt(half) : a;
    double z2 = z * z, even = 0.027871289137110143, odd = -0.006822043980671263;
    even = even * z2 + 0.015445133336819308;
    even = even * z2 + 0.014140941807431192;
    even = even * z2 + 0.022373010066676288;
    even = even * z2 + 0.044642857578717755;
    even = even * z2 + 0.1666666666666695;
    odd = odd * z2 + 0.0102896411236249;
    odd = odd * z2 + 0.017337192543712077;
    odd = odd * z2 + 0.030381917485400308;
    odd = odd * z2 + 0.07499999999726302;
    double p = odd * z + even;
    double arcsine = s + s * (z * p);
    double far = x < 0.0 ? HALF_PI * 2.0 - arcsine * 2.0 : arcsine * 2.0;
    double near = HALF_PI - copysign(arcsine, x);
    return a > 0.5 ? far : near;
}

/* sin, and with a quarter of a turn cos. `parts` has three rows of 256 numbers, by the exponent of x: what one unit in its
   last place is in quarters of a turn, less whole turns, in parts of which the first two are exact times any mantissa.
   So every x is reduced to its last bit, however large. */
INLINE double sin_of(float x, uint64_t quarter, const double *parts) {
    uint32_t bits = bits_of(x), exponent = bits >> 23 & 255;
    double m = (double)(int32_t)((bits & 0x7fffff) | (exponent ? 0x800000 : 0));
    double a = m * parts[exponent], b = m * parts[256 + exponent], c = m * parts[512 + exponent];
    double shifted = (a + b) + SHIFT, n = shifted - SHIFT;
    double r = (((a - n) + b) + c) * HALF_PI, z = r * r;
    double p = of_six(z, -0.16666666666666666, 0.008333333333330948, -0.00019841269836756774, 2.7557316101617874e-06,
                      -2.505113165023518e-08, 1.5918115263265974e-10);
    double q = of_six(z, 0.041666666666666664, -0.0013888888888887398, 2.480158729876456e-05, -2.7557317271145144e-07,
                      2.087614614655861e-09, -1.1382623647474604e-11);
    double sine = r + r * (z * p), cosine = (1.0 - z * 0.5) + (z * z) * q;
    uint64_t quadrant = word_of(shifted) + quarter;
    double result = quadrant & 1 ? cosine : sine;
    uint64_t sign = (quadrant & 2) << 62 ^ (quarter ? 0 : (uint64_t)(bits >> 31) << 63);
    return double_of(word_of(result) ^ sign);
}

/* Choices by masks: where the compiler sees that the work of one branch may be skipped, or that a
   condition is the same for a whole loop, it makes branches of others, and no vectors. */
INLINE double chosen_of(uint64_t mask, double a, double b) {
    return double_of((word_of(a) & mask) | (word_of(b) & ~mask));
}

/* All that `pow_of` wants to know of y: itself, finite lest infinity times log 1 be asked for, and masks. */
struct power {
    double y;
    uint64_t zero, odd, whole;
};

INLINE struct power power_of(double y) {
    double bounded = y < -1e300 ? -1e300 : y > 1e300 ? 1e300 : y, half = trunc(y * 0.5);
    return (struct power){
        bounded, -(uint64_t)(y == 0.0), -(uint64_t)(fabs(y - half * 2.0) == 1.0), -(uint64_t)(y == trunc(y))
    };
}

/* e^(y·log|x|), as exact as needs be: where y·log|x| is below 110, 2^-52 of it is little beside a
   float32. The rest is what the C standard says of zeros, ones, infinities and integers. */
INLINE double pow_of(double x, struct power power) {
    double exponent = power.y * log_of(fabs(x));
    exponent = chosen_of(power.zero | -(uint64_t)(x == 1.0), 0.0, exponent);
    double result = exp_of(exponent);
    result = chosen_of(power.odd, copysign(result, x), result);
    double real = chosen_of(power.whole | -(uint64_t)(x == -(double)INFINITY), result, (double)NAN);
    return chosen_of(-(uint64_t)(x < 0.0), real, result);
}

#undef INLINE
#undef SPLIT_EXP
