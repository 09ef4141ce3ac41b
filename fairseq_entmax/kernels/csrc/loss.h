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

/* p.(z - max) + H(p) over n entries, in double. */
static inline double value_of(const float *p, const float *z, long n, float largest,
                              double alpha) {
    double dot = 0, power = 0;
    for (long i = 0; i < n; i++) {
        if (!(p[i] > 0)) continue;
        double v = p[i], shifted = (double)z[i] - (double)largest;
        dot += v * shifted;
        if (alpha == 1.5) power += v * (1 - sqrt(v));
        else if (alpha == 2) power += v * (1 - v);
        else power -= v * expm1((alpha - 1) * log(v));
    }
    return dot + power / (alpha * (alpha - 1));
}

static inline void emit(loss_t *o, long row, const solved_t *r, long n, const scratch_t *s) {
    const long total = r->count < 0 ? n : r->count;
    const int64_t y = o->target[row];
    int32_t *index = o->index + row * o->capacity;
    float *value = o->value + row * o->capacity;
    long kept = 0, support = 0;
    for (long i = 0; i < total; i++) {
        if (!(s->p[i] > 0)) continue;
        int32_t column = r->count < 0 ? (int32_t)i : s->index[i];
        if (column == y) o->target_prob[row] = s->p[i];
        if (kept < o->capacity) {
            index[kept] = column;
            value[kept++] = s->p[i];
        }
        support++;
    }
    o->support[row] = (int32_t)support;
    o->count[row] = support <= o->capacity ? (int32_t)support : -1;
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
    double loss = value_of(s->p, z, r->count < 0 ? n : r->count, r->largest, alpha) +
                  (double)r->largest - (double)gold;
    o->loss[row] = loss > 0 ? loss : 0; /* below zero only by rounding */
    emit(o, row, r, n, s);
}

#endif
