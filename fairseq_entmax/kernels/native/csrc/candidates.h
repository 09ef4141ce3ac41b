/* Supports from inexact scores: which columns a margin cannot exclude, and their exact scores. */
#ifndef FAIRSEQ_ENTMAX_CANDIDATES_H
#define FAIRSEQ_ENTMAX_CANDIDATES_H

#include "solve.h"

/* The columns of s->row (n scores) that may be in the support when each is off by at most
 * margin + relative |score|; -1 if they are more than `limit`, or the scores are not finite. */
static inline long uncertain_columns(long n, double alpha, float margin, float relative, long limit,
                                     scratch_t *s) {
    const float largest = group_maxima(s->row, n, s->maxima);
    if (!isfinite(largest) || !isfinite(margin)) return -1;
    const double bound = certified_bound(s->maxima, (n + GROUP - 1) / GROUP, largest, alpha, s);
    const float threshold = largest + (float)(bound / (alpha - 1));
    /* of the entries between the threshold and the maximum */
    const float magnitude = fmaxf(fabsf(largest), fabsf(threshold));
    return collect(s->row, n, threshold - 2 * (margin + magnitude * relative), limit, s);
}

static inline float dot(const float *a, const float *b, long d) {
    v16 s0 = {0}, s1 = {0};
    long i = 0;
    for (; i + 32 <= d; i += 32) {
        s0 += *(const v16 *)(a + i) * *(const v16 *)(b + i);
        s1 += *(const v16 *)(a + i + 16) * *(const v16 *)(b + i + 16);
    }
    s0 += s1;
    float sum = 0;
    for (int t = 0; t < 16; t++) sum += s0[t];
    for (; i < d; i++) sum += a[i] * b[i];
    return sum;
}

#endif
