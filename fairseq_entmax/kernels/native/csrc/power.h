/* d^q in double, in a form that compilers turn into vector code; relative error below 1e-14 (1 + |log2 of it|). */
#ifndef FAIRSEQ_ENTMAX_POWER_H
#define FAIRSEQ_ENTMAX_POWER_H

#include <stdint.h>
#include <string.h>

static inline uint64_t bits_of(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline double from_bits(uint64_t u) {
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* log2 of a positive normal number: exponent plus 2/ln 2 artanh((m - 1)/(m + 1)). */
static inline double log2_of(double x) {
    /* mantissas from 1/sqrt 2 to sqrt 2 */
    uint64_t u = bits_of(x) - 0x3fe6a09e667f3bcdull;
    /* an exponent below 2^52 is a number's mantissa; int64 to double is no AVX2 instruction */
    uint64_t biased = ((uint64_t)((int64_t)u >> 52) & 0xfff) ^ 0x800;
    double exponent = from_bits(biased | 0x4330000000000000ull) - 0x1.00000000008p52;
    double m = from_bits((u & 0xfffffffffffffull) + 0x3fe6a09e667f3bcdull);
    double s = (m - 1) / (m + 1), s2 = s * s;
    double sum = 1. / 17;
    sum = sum * s2 + 1. / 15;
    sum = sum * s2 + 1. / 13;
    sum = sum * s2 + 1. / 11;
    sum = sum * s2 + 1. / 9;
    sum = sum * s2 + 1. / 7;
    sum = sum * s2 + 1. / 5;
    sum = sum * s2 + 1. / 3;
    sum = sum * s2 + 1;
    return exponent + 2.8853900817779268 * s * sum;
}

/* 2^y for y in [-1000, 1000]. */
static inline double exp2_of(double y) {
    double shifted = y + 0x1.8p52; /* its last bits are y rounded */
    double f = (y - (shifted - 0x1.8p52)) * 0.69314718055994531;
    double sum = 1. / 39916800;
    sum = sum * f + 1. / 3628800;
    sum = sum * f + 1. / 362880;
    sum = sum * f + 1. / 40320;
    sum = sum * f + 1. / 5040;
    sum = sum * f + 1. / 720;
    sum = sum * f + 1. / 120;
    sum = sum * f + 1. / 24;
    sum = sum * f + 1. / 6;
    sum = sum * f + 0.5;
    sum = sum * f + 1;
    sum = sum * f + 1;
    return from_bits(bits_of(sum) + (bits_of(shifted) << 52));
}

/* d^q for d > 0, held within [2^-1000, 2^1000]. */
static inline double power_of(double d, double q) {
    double y = q * log2_of(d);
    y = y > -1000 ? y : -1000;
    return exp2_of(y < 1000 ? y : 1000);
}

#endif
