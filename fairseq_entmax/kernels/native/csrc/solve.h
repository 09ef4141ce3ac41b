/* The threshold tau of one row; the same algorithms as plain/solver.py. */
#ifndef FAIRSEQ_ENTMAX_SOLVE_H
#define FAIRSEQ_ENTMAX_SOLVE_H

#include "common.h"
#include "general.h"

/* Scratch memory of one thread, for rows of up to `capacity` entries. */
typedef struct {
    float *x;       /* candidates, (alpha - 1)(z - max) */
    float *p;       /* their probabilities */
    float *maxima;  /* of groups */
    float *row;     /* a 16-bit row in float */
    float *out;     /* a result before it is narrowed */
    int32_t *index; /* columns of the candidates */
    double *wide;   /* candidates of the general alpha */
} scratch_t;

static inline int scratch_new(scratch_t *s, long capacity) {
    size_t n = (size_t)(capacity + 4 * GROUP) / GROUP * GROUP; /* keeps all parts aligned */
    s->wide = aligned_alloc(64, n * (sizeof(double) + 6 * sizeof(float)));
    if (s->wide == NULL) return 0;
    s->x = (float *)(s->wide + n);
    s->p = s->x + n;
    s->maxima = s->p + n;
    s->row = s->maxima + n;
    s->out = s->row + n;
    s->index = (int32_t *)(s->out + n);
    return 1;
}

static inline void scratch_free(scratch_t *s) { free(s->wide); }

/* A solved row. Probabilities stand in scratch->p; count = -1: for every column, in order;
 * else for the `count` columns in scratch->index. */
typedef struct {
    long count;
    float largest;
    double tau;
    int dead, broken;
} solved_t;

/* Sums over the n entries of d = x - tau above zero: of d, and of d^2 (square) or their number. They
 * are written in vectors, since compilers make a branch of it. x is filled up. */
static inline __attribute__((always_inline)) void sums_above(const float *x, long n, float tau,
                                                             int square, double *s1, double *s2) {
    lanes_t a1 = splat(0), a2 = splat(0), b1 = splat(0), b2 = splat(0);
    long i = 0;
    for (; i + LANES < n; i += 2 * LANES) { /* two chains of sums: one would wait for itself */
        const lanes_t d = larger(*(const lanes_t *)(x + i) - tau, splat(0));
        const lanes_t e = larger(*(const lanes_t *)(x + i + LANES) - tau, splat(0));
        a1 += d;
        b1 += e;
        a2 += square ? d * d : one_where_positive(d);
        b2 += square ? e * e : one_where_positive(e);
    }
    if (i < n) {
        const lanes_t d = larger(*(const lanes_t *)(x + i) - tau, splat(0));
        a1 += d;
        a2 += square ? d * d : one_where_positive(d);
    }
    *s1 = sum_lanes(a1 + b1);
    *s2 = sum_lanes(a2 + b2);
}

/* The same in double. */
static inline __attribute__((always_inline)) void exact_sums_above(const float *x, long n, double tau,
                                                                   int square, double *s1,
                                                                   double *s2) {
    doubles_t a1 = {0}, a2 = {0};
    for (long i = 0; i < n; i += LANES / 2) {
        const doubles_t v = __builtin_convertvector(*(const half_lanes_t *)(x + i), doubles_t) - tau;
        const doubles_t d = (doubles_t)((wide_mask_t)v & (v > 0));
        a1 += d;
        a2 += square ? d * d : -__builtin_convertvector(v > 0, doubles_t);
    }
    *s1 = *s2 = 0;
    for (int l = 0; l < LANES / 2; l++) *s1 += a1[l], *s2 += a2[l];
}

static inline double newton_step_of(double s1, double s2, int square) {
    if (!square) return (s1 - 1) / s2;
    const double norm = sqrt(s2);
    return (norm - 1) * norm / s1;
}

/* tau of x = (alpha - 1)(z - max), from a lower bound, alpha 1.5 (square) or 2; x has room for
 * whole vectors. */
static inline __attribute__((always_inline)) double newton_closed(float *x, long n, double tau,
                                                                  int square) {
    double s1, s2;
    fill_up(x, n);
    for (int k = 0; k < 60; k++) {
        const float t = (float)tau;
        sums_above(x, n, t, square, &s1, &s2);
        const double step = newton_step_of(s1, s2, square);
        tau = (double)t + step;
        if (!(step > (square ? -1e-4 : -1e-6) * tau)) break;
    }
    /* quadratic convergence: the last step in double is exact */
    exact_sums_above(x, n, tau, square, &s1, &s2);
    return tau + newton_step_of(s1, s2, square);
}

static inline double newton15(float *x, long n, double tau) { return newton_closed(x, n, tau, 1); }

static inline double newton2(float *x, long n, double tau) { return newton_closed(x, n, tau, 0); }

static int descending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* How many of the n sorted scores are in the support: at the last of them less than 1 lies above. */
static inline long support_by_sorting(const double *z, long n, double gap) {
    long inside = 0, outside = n;
    while (outside - inside > 1) {
        const long middle = (inside + outside) / 2;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (long i = 0; i < middle; i++) {
            double d = (z[i] - z[middle]) * gap, w = power_of(d > 0 ? d : 1, 1 / gap);
            sum += d > 0 ? w : 0;
        }
        if (sum < 1) inside = middle;
        else outside = middle;
    }
    return inside + 1;
}

/* (u^gap + r^gap)^(1/gap) without overflow or underflow; r > 0. */
static inline double norm_of(double u, double r, double gap) {
    double larger = u > r ? u : r, smaller = u > r ? r : u;
    double share = power_of(smaller > 0 ? smaller / larger : 1, gap);
    return larger * power_of(1 + (smaller > 0 ? share : 0), 1 / gap);
}

/* (gap (z - edge))^(1/gap), 0 at the edge. */
static inline double root_above(double z, double edge, double gap) {
    double d = (z - edge) * gap, u = power_of(d > 0 ? d : 1, 1 / gap);
    return d > 0 ? u : 0;
}

/* The n scores z of alpha > 2 to probabilities, in place; returns their sum. The same as
 * probs_from_edge of plain/solver.py; `sorted` is scratch. */
static inline double write_from_edge(double *z, long n, double alpha, double *sorted) {
    const double gap = alpha - 1;
    memcpy(sorted, z, n * sizeof(double));
    qsort(sorted, n, sizeof(double), descending);
    const long support = support_by_sorting(sorted, n, gap);
    const double edge = sorted[support - 1];
    long ties = 0;
    for (long i = 0; i < support; i++) {
        ties += sorted[i] == edge;
        sorted[i] = root_above(sorted[i], edge, gap);
    }
    double r = 1. / (double)ties, sum = 0;
    for (int k = 0; k < 100; k++) { /* convex: from the right it never overshoots */
        double total = 0, slope = 0;
#pragma omp simd reduction(+ : total, slope)
        for (long i = 0; i < support; i++) {
            double p = norm_of(sorted[i], r, gap);
            total += p;
            slope += power_of(r / p, gap - 1);
        }
        const double step = (total - 1) / slope;
        r = r - step > 1e-300 ? r - step : 1e-300;
        if (!(step > 1e-15 * r)) break;
    }
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < n; i++) {
        double p = norm_of(root_above(z[i], edge, gap), r, gap);
        z[i] = z[i] >= edge ? p : 0;
        sum += z[i];
    }
    return sum;
}

/* p of x; both have room for whole vectors. */
static inline __attribute__((always_inline)) void write_closed(const float *x, long n, float tau,
                                                               int square, float *p) {
    for (long i = 0; i < n; i += LANES) {
        const lanes_t d = larger(*(const lanes_t *)(x + i) - tau, splat(0));
        *(lanes_t *)(p + i) = square ? d * d : d;
    }
}

/* The scores z to s->p where there is no closed form; tau is read up to alpha = 2. z may be s->x. */
static inline void write_probs_of(const float *z, long n, float largest, double tau, double alpha,
                                  scratch_t *s) {
    if (alpha <= 2) {
        const float gap = (float)(alpha - 1);
        for (long i = 0; i < n; i++) s->x[i] = (z[i] - largest) * gap;
        write_general(s->x, n, tau, 1 / (alpha - 1), s->p);
        return;
    }
    for (long i = 0; i < n; i++) s->wide[i] = z[i];
    const double sum = write_from_edge(s->wide, n, alpha, (double *)s->x); /* x, p in one */
    for (long i = 0; i < n; i++) s->p[i] = (float)(s->wide[i] / sum);
}

/* Solve the n candidates z (scores) into s->p. `bound` lies below tau; z may be s->x. Returns tau,
 * which is nothing to compute with above alpha = 2. */
static inline double solve_candidates(const float *z, long n, float largest, double alpha,
                                      double bound, scratch_t *s) {
    if (alpha == 1.5 || alpha == 2.0) {
        float scale = (float)(alpha - 1);
        for (long i = 0; i < n; i++) s->x[i] = (z[i] - largest) * scale;
        double tau = alpha == 1.5 ? newton15(s->x, n, bound) : newton2(s->x, n, bound);
        if (alpha == 1.5) write_closed(s->x, n, (float)tau, 1, s->p);
        else write_closed(s->x, n, (float)tau, 0, s->p);
        return tau;
    }
    double tau = -1;
    if (alpha > 2) {
        write_probs_of(z, n, largest, tau, alpha, s);
        return tau;
    }
    const float gap = (float)(alpha - 1);
    for (long i = 0; i < n; i++) s->x[i] = (z[i] - largest) * gap;
    tau = newton_general(s->x, n, bound, 1 / (alpha - 1));
    write_general(s->x, n, tau, 1 / (alpha - 1), s->p);
    return tau;
}

/* The maximum of each group and of the row; a NaN anywhere gives NaN. */
static inline float group_maxima(const float *z, long n, float *maxima) {
    float largest = -INFINITY;
    int nan = 0;
    for (long g = 0, begin = 0; begin < n; g++, begin += GROUP) {
        long size = n - begin < GROUP ? n - begin : GROUP;
        float m = -INFINITY;
        int bad = 0;
        if (size == GROUP) {
#pragma omp simd reduction(max : m) reduction(| : bad)
            for (long i = 0; i < GROUP; i++) {
                float v = z[begin + i];
                m = v > m ? v : m;
                bad |= v != v;
            }
        } else {
            for (long i = 0; i < size; i++) {
                float v = z[begin + i];
                m = v > m ? v : m;
                bad |= v != v;
            }
        }
        maxima[g] = m;
        largest = m > largest ? m : largest;
        nan |= bad;
    }
    return nan ? NAN : largest;
}

/* A lower bound of the row's tau: the tau of a subset, the maxima, minus rounding. */
static inline double certified_bound(const float *maxima, long n, float largest, double alpha,
                                     scratch_t *s) {
    float scale = (float)(alpha - 1), reach = largest - 1 / scale;
    long kept = 0;
    for (long g = 0; g < n; g++) {
        s->x[kept] = (maxima[g] - largest) * scale;
        kept += maxima[g] > reach;
    }
    double tau;
    if (alpha == 1.5) tau = newton15(s->x, kept, -1);
    else if (alpha >= 2) tau = newton2(s->x, kept, -1); /* d^q >= d on [0, 1] for q <= 1 */
    else tau = newton_general(s->x, kept, -1, 1 / (alpha - 1));
    tau -= 1e-6 * (alpha - 1) + 4e-7;
    return tau > -1 ? tau : -1;
}

/* Columns above `threshold` in groups whose maximum is; their scores go to s->x. At most `limit`,
 * or -1. */
static inline long collect(const float *z, long n, float threshold, long limit, scratch_t *s) {
    long kept = 0;
    for (long g = 0, begin = 0; begin < n; g++, begin += GROUP) {
        if (!(s->maxima[g] > threshold)) continue;
        long end = begin + GROUP < n ? begin + GROUP : n;
        for (long i = begin; i < end; i++) {
            s->x[kept] = z[i];
            s->index[kept] = (int32_t)i;
            kept += z[i] > threshold;
        }
        if (kept > limit) return -1;
    }
    return kept;
}

static inline solved_t solve_row(const float *z, long n, double alpha, scratch_t *s) {
    solved_t r = {-1, group_maxima(z, n, s->maxima), 0, 0, 0};
    r.dead = r.largest == -INFINITY;
    r.broken = !r.dead && !(r.largest < INFINITY);
    if (r.dead || r.broken) return r;
    double bound = -1;
    if (n > 4 * GROUP) {
        bound = certified_bound(s->maxima, (n + GROUP - 1) / GROUP, r.largest, alpha, s);
        float threshold = r.largest + (float)(bound / (alpha - 1));
        threshold -= fabsf(threshold) * 1e-6f;
        r.count = collect(z, n, threshold, n / 8, s);
    }
    if (r.count < 0) r.tau = solve_candidates(z, n, r.largest, alpha, bound, s);
    else r.tau = solve_candidates(s->x, r.count, r.largest, alpha, bound, s);
    return r;
}

#endif
