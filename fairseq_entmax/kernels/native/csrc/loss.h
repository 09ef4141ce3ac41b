/* One row of the loss: its value, its statistics, its probabilities compressed. */
#ifndef FAIRSEQ_ENTMAX_LOSS_H
#define FAIRSEQ_ENTMAX_LOSS_H

#include "solve.h"

/* Per-row results of the loss. */
typedef struct {
    const int64_t *target; /* -1: the row is ignored */
    long capacity;         /* entries of vals and columns per row */
    int32_t *count;        /* nonzero entries; -1: more than capacity */
    int32_t *index;
    float *value;
    double *loss;
    int32_t *support;
    float *target_prob;
    uint8_t *correct;
    double *tau;
    float *largest;
} loss_t;

/* p.(z - max), the sum in H(p) and that of p; alpha 1.5 (square) or 2. Short float sums, added in
 * double. */
static inline __attribute__((always_inline)) void closed_sums(const float *p, const float *z,
                                                              long n, float largest, int square,
                                                              double *dot, double *power,
                                                              double *sum) {
    for (long begin = 0; begin < n; begin += GROUP) { /* equal entries are all rounded one way */
        long end = n - begin < GROUP ? n : begin + GROUP;
        float a = 0, b = 0, c = 0;
#pragma omp simd reduction(+ : a, b, c)
        for (long i = begin; i < end; i++) {
            float shifted = z[i] - largest;
            shifted = p[i] > 0 ? shifted : 0; /* 0 (-inf) is no number */
            a += p[i] * shifted;
            b += p[i] * (1 - (square ? sqrtf(p[i]) : p[i]));
            c += p[i];
        }
        *dot += a;
        *power += b;
        *sum += c;
    }
}

static inline void general_sums(const float *p, const float *z, long n, float largest,
                                double alpha, double *dot, double *power) {
    double a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
    for (long i = 0; i < n; i++) {
        int inside = p[i] > 0;
        float shifted = z[i] - largest;
        shifted = inside ? shifted : 0;
        double v = p[i], base = inside ? v : 1;
        a += v * (double)shifted;
        b += v * (1 - power_of(base, alpha - 1));
    }
    *dot = a;
    *power = b;
}

/* p.(z - max) + H(p) over n entries. In a closed form one ulp of tau is in every p, so that their
 * sum is not 1: the value's slope along it, the same on all the support, takes that out. */
static inline double value_of(const float *p, const float *z, long n, float largest, double alpha,
                              double tau) {
    double dot = 0, power = 0, sum = 0;
    if (alpha == 1.5) closed_sums(p, z, n, largest, 1, &dot, &power, &sum);
    else if (alpha == 2) closed_sums(p, z, n, largest, 0, &dot, &power, &sum);
    else general_sums(p, z, n, largest, alpha, &dot, &power), sum = 1;
    return dot + power / (alpha * (alpha - 1)) - (sum - 1) * (1 / alpha + tau) / (alpha - 1);
}

/* Keep the nonzero ones of p's first `total` entries, which fit. */
static inline void compress(const solved_t *r, long total, const scratch_t *s, int32_t *index,
                            float *value) {
    long kept = 0;
    for (long i = 0; i < total; i++) {
        if (!(s->p[i] > 0)) continue;
        index[kept] = r->count < 0 ? (int32_t)i : s->index[i];
        value[kept++] = s->p[i];
    }
}

static inline void emit(loss_t *o, long row, const solved_t *r, long n, const scratch_t *s) {
    const long total = r->count < 0 ? n : r->count;
    const int64_t y = o->target[row];
    int32_t support = 0;
#pragma omp simd reduction(+ : support)
    for (long i = 0; i < total; i++) support += s->p[i] > 0;
    if (r->count < 0) o->target_prob[row] = s->p[y];
    else
        for (long i = 0; i < total; i++)
            if (s->index[i] == y) o->target_prob[row] = s->p[i];
    o->support[row] = support;
    o->count[row] = support <= o->capacity ? support : -1;
    if (support <= o->capacity)
        compress(r, total, s, o->index + row * o->capacity, o->value + row * o->capacity);
}

static inline void clear(loss_t *o, long row) {
    o->loss[row] = 0;
    o->count[row] = o->support[row] = 0;
    o->target_prob[row] = 0;
    o->correct[row] = 0;
    o->tau[row] = INFINITY; /* no entry lies above it: a zero gradient */
    o->largest[row] = 0;
}

/* Everything about a solved row; `z` are the scores of its candidates, `gold` the target's. */
static inline void record(loss_t *o, long row, const solved_t *r, long n, const float *z,
                          float gold, double alpha, const scratch_t *s) {
    if (r->dead) return;
    o->largest[row] = r->largest;
    if (r->broken) {
        o->loss[row] = o->tau[row] = NAN;
        o->target_prob[row] = NAN;
        o->count[row] = -1;
        return;
    }
    o->tau[row] = r->tau;
    o->correct[row] = gold >= r->largest;
    double loss = value_of(s->p, z, r->count < 0 ? n : r->count, r->largest, alpha,
                           r->tau) +
                  (double)r->largest - (double)gold;
    o->loss[row] = loss > 0 ? loss : 0; /* below zero only by rounding */
    emit(o, row, r, n, s);
}

#endif
