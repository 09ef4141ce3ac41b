/* entmax for alpha in (1, 2) without a closed form, in float32.
 *
 * With s = -tau and u = x / s, p_j = (s (1 + u_j))^q and 1 + u_j in [0, 1]. What 1 + u_j loses by
 * rounding is added to its logarithm, and p is renormalised, which takes out what is common to all
 * entries; relative errors stay below 1e-6 (1 + |ln p|) for every q. What there is once in a row,
 * ln of a sum among it, is in double: near alpha = 1 the norm differs from 1 by alpha - 1. */
#ifndef FAIRSEQ_ENTMAX_GENERAL_H
#define FAIRSEQ_ENTMAX_GENERAL_H

#include "power.h"

/* log2 of a positive normal number; relative error below 3e-7. */
static inline float log2f_of(float x) {
    int32_t u;
    memcpy(&u, &x, sizeof u);
    const int32_t shifted = u - 0x3f3504f3, mantissa = (shifted & 0x7fffff) + 0x3f3504f3;
    float m;
    memcpy(&m, &mantissa, sizeof m);
    const float s = (m - 1) / (m + 1), s2 = s * s;
    float sum = s2 * (1.f / 9) + 1.f / 7;
    sum = sum * s2 + 1.f / 5;
    sum = sum * s2 + 1.f / 3;
    sum = sum * s2 + 1;
    return (float)(shifted >> 23) + 2.885390082f * s * sum;
}

/* (2^f - 1) / f for f in [-1/2, 1/2], to 1e-7. */
static inline float exp2f_slope(float f) {
    float sum = 0.00015475875f * f + 0.0013400249f;
    sum = sum * f + 0.009618006f;
    sum = sum * f + 0.05550328f;
    sum = sum * f + 0.2402265f;
    return sum * f + 0.6931472f;
}

/* 2^n of a whole number n in [-126, 127], from n + 1.5 2^23. */
static inline float whole_power(float shifted) {
    int32_t u;
    memcpy(&u, &shifted, sizeof u);
    u = (int32_t)((uint32_t)u << 23) + 0x3f800000;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* 2^y for y <= 126, 2^-126 below that. */
static inline float exp2f_of(float y) {
    y = y > -126 ? y : -126;
    const float shifted = y + 0x1.8p23f, f = y - (shifted - 0x1.8p23f);
    return whole_power(shifted) * (1 + f * exp2f_slope(f));
}

/* 2^y - 1 for y in [0, 126]. */
static inline float exp2f_minus_1(float y) {
    y = y < 126 ? y : 126;
    const float shifted = y + 0x1.8p23f, f = y - (shifted - 0x1.8p23f), whole = whole_power(shifted);
    return whole * (f * exp2f_slope(f)) + (whole - 1);
}

/* log2(1 + u), u > -1, also where 1 + u loses u. */
static inline float log2_1p(float u) {
    const float w = 1 + u;
    return log2f_of(w) + (u - (w - 1)) / w * 1.44269504f;
}

/* sum (1 + u)^q and sum (1 + u)^(q - 1) over u = x / s > -1. */
static inline void general_powers(const float *x, long n, float inverse, float less, float *r1,
                                  float *r0) {
    float s1 = 0, s0 = 0;
#pragma omp simd reduction(+ : s1, s0)
    for (long i = 0; i < n; i++) {
        const float u = x[i] * inverse;
        const int inside = u > -1;
        const float v = inside ? u : 0, w = exp2f_of(less * log2_1p(v));
        s0 += inside ? w : 0;
        s1 += inside ? w * (1 + v) : 0;
    }
    *r1 = s1;
    *r0 = s0;
}

/* How far s = -tau falls in one Newton step on the q-norm. */
static inline double general_step(double s, double r1, double r0, double gap) {
    const double norm = s * exp2_of(gap * log2_of(r1));
    return (norm - 1) * s * r1 / (norm * r0);
}

/* tau of x = (alpha - 1)(z - max), from a lower bound; the step after a small one is exact. */
static inline double newton_general(const float *x, long n, double tau, double q) {
    double s = -tau;
    for (int k = 0, polish = 0; k < 60; k++) {
        float r1, r0;
        general_powers(x, n, (float)(1 / s), (float)(q - 1), &r1, &r0);
        const double step = general_step(s, r1, r0, 1 / q);
        s -= step;
        if (polish) break;
        polish = !(q * step > 1e-4 * s);
    }
    return -s;
}

/* p = [x - tau]_+^q, renormalised. */
static inline void write_general(const float *x, long n, double tau, double q, float *p) {
    const float inverse = (float)(-1 / tau), power = (float)q;
    double total = 0;
    for (long begin = 0; begin < n; begin += 1024) {
        const long end = begin + 1024 < n ? begin + 1024 : n;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (long i = begin; i < end; i++) {
            const float u = x[i] * inverse;
            const int inside = u > -1;
            const float w = exp2f_of(power * log2_1p(inside ? u : 0));
            p[i] = inside ? w : 0;
            sum += p[i];
        }
        total += sum;
    }
    const float scale = (float)(1 / total);
    for (long i = 0; i < n; i++) p[i] *= scale;
}

#endif
