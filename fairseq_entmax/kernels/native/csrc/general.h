/* entmax for alpha in (1, 2) without a closed form, in float32.
 *
 * With s = -tau and u = x / s, p_j = (s (1 + u_j))^q and 1 + u_j in [0, 1]. What 1 + u_j loses by
 * rounding is added to its logarithm, and p is renormalised, which takes out what is common to all
 * entries; relative errors stay below 1e-6 (1 + |ln p|) for every q. What there is once in a row,
 * ln of a sum among it, is in double: near alpha = 1 the norm differs from 1 by alpha - 1. */
#ifndef FAIRSEQ_ENTMAX_GENERAL_H
#define FAIRSEQ_ENTMAX_GENERAL_H

#include "lanes.h"
#include "power.h"

/* log2 of positive normal numbers; relative error below 3e-7. */
static inline lanes_t log2_lanes(lanes_t x) {
    const mask_t u = (mask_t)x - 0x3f3504f3;
    const lanes_t m = (lanes_t)((u & 0x7fffff) + 0x3f3504f3);
    const lanes_t s = (m - 1) / (m + 1), s2 = s * s;
    lanes_t sum = s2 * (1.f / 9) + 1.f / 7;
    sum = sum * s2 + 1.f / 5;
    sum = sum * s2 + 1.f / 3;
    sum = sum * s2 + 1;
    return __builtin_convertvector(u >> 23, lanes_t) + 2.885390082f * s * sum;
}

/* 2^y = whole (1 + rest) for y in [-126, 126]; outside, of the nearest end. */
static inline lanes_t exp2_parts(lanes_t y, lanes_t *whole) {
    y = larger(y, splat(-126));
    y = -larger(-y, splat(-126));
    const lanes_t shifted = y + 0x1.8p23f, f = y - (shifted - 0x1.8p23f);
    *whole = (lanes_t)(((mask_t)shifted << 23) + 0x3f800000);
    lanes_t sum = 0.00015475875f * f + 0.0013400249f;
    sum = sum * f + 0.009618006f;
    sum = sum * f + 0.05550328f;
    sum = sum * f + 0.2402265f;
    return f * (sum * f + 0.6931472f);
}

static inline lanes_t exp2_lanes(lanes_t y) {
    lanes_t whole, rest = exp2_parts(y, &whole);
    return whole + whole * rest;
}

static inline lanes_t exp2_minus_1(lanes_t y) {
    lanes_t whole, rest = exp2_parts(y, &whole);
    return whole * rest + (whole - 1);
}

/* log2(1 + u), u > -1, also where 1 + u loses u. */
static inline lanes_t log2_1p(lanes_t u) {
    const lanes_t w = 1 + u;
    return log2_lanes(w) + (u - (w - 1)) / w * 1.44269504f;
}

/* Sums of (1 + u)^q and (1 + u)^(q - 1). */
typedef struct {
    lanes_t whole, less;
} powers_t;

/* Add those of u = x inverse > -1; `less` is q - 1. */
static inline void add_powers(powers_t *sums, lanes_t x, lanes_t inverse, lanes_t less) {
    const lanes_t u = x * inverse;
    const mask_t inside = u > -1;
    const lanes_t v = (lanes_t)((mask_t)u & inside);
    const lanes_t w = (lanes_t)((mask_t)exp2_lanes(less * log2_1p(v)) & inside);
    sums->less += w;
    sums->whole += w * (1 + v);
}

/* (1 + u)^q of u = x inverse, 0 where u <= -1. */
static inline lanes_t power_above(lanes_t x, lanes_t inverse, lanes_t q) {
    const lanes_t u = x * inverse;
    const mask_t inside = u > -1;
    const lanes_t v = (lanes_t)((mask_t)u & inside);
    return (lanes_t)((mask_t)exp2_lanes(q * log2_1p(v)) & inside);
}

static inline double sum_of(lanes_t v) {
    double sum = 0;
    for (int l = 0; l < LANES; l++) sum += v[l];
    return sum;
}

/* How far s = -tau falls in one Newton step on the q-norm. */
static inline double general_step(double s, double whole, double less, double gap) {
    const double norm = s * exp2_of(gap * log2_of(whole));
    return (norm - 1) * s * whole / (norm * less);
}

/* The last vector of n numbers, filled up with -inf; there is room for it. */
static inline void fill_up(float *x, long n) {
    for (long i = n; i % LANES; i++) x[i] = -INFINITY;
}

/* tau of x = (alpha - 1)(z - max), from a lower bound; the step after a small one is exact. */
static inline double newton_general(float *x, long n, double tau, double q) {
    double s = -tau;
    fill_up(x, n);
    for (int k = 0, polish = 0; k < 60; k++) {
        powers_t sums = {splat(0), splat(0)};
        const lanes_t inverse = splat((float)(1 / s)), less = splat((float)(q - 1));
        for (long i = 0; i < n; i += LANES)
            add_powers(&sums, *(const lanes_t *)(x + i), inverse, less);
        const double step = general_step(s, sum_of(sums.whole), sum_of(sums.less), 1 / q);
        s -= step;
        if (polish) break;
        polish = !(q * step > 1e-4 * s);
    }
    return -s;
}

/* p = [x - tau]_+^q, renormalised; there is room in x and p for whole vectors. */
static inline void write_general(float *x, long n, double tau, double q, float *p) {
    const lanes_t inverse = splat((float)(-1 / tau)), power = splat((float)q);
    double total = 0;
    fill_up(x, n);
    for (long begin = 0; begin < n; begin += 1024) {
        const long end = begin + 1024 < n ? begin + 1024 : n;
        lanes_t sum = splat(0);
        for (long i = begin; i < end; i += LANES) {
            const lanes_t w = power_above(*(const lanes_t *)(x + i), inverse, power);
            *(lanes_t *)(p + i) = w;
            sum += w;
        }
        total += sum_of(sum);
    }
    const float scale = (float)(1 / total);
    for (long i = 0; i < n; i++) p[i] *= scale;
}

#endif
