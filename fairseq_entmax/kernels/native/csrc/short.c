/* Short rows (attention): LANES rows at once, so that one square root and one division serve all
 * of them.
 *
 * In the closed forms rows stay as they lie; only their partial maxima and sums are turned, so that
 * each lane of a vector has a row. Where powers cost more than turning, the rows themselves are
 * turned, LANES x LANES, on the way in and out. Wider vectors than the processor's would be
 * shuffled number by number. */
#include "solve.h"

#define LONGEST 512

#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask_t){__VA_ARGS__})

/* Interleave blocks of `size` lanes of a and b: the low or the high halves. */
static inline __attribute__((always_inline)) void exchange(lanes_t *a, lanes_t *b, int size) {
    lanes_t low, high;
#ifdef __AVX512F__
    switch (size) {
    case 1:
        low = SHUFFLE(*a, *b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
        high = SHUFFLE(*a, *b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
        break;
    case 2:
        low = SHUFFLE(*a, *b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        high = SHUFFLE(*a, *b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        break;
    case 4:
        low = SHUFFLE(*a, *b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        high = SHUFFLE(*a, *b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
        break;
    default:
        low = SHUFFLE(*a, *b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
        high = SHUFFLE(*a, *b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
#else
    switch (size) {
    case 1:
        low = SHUFFLE(*a, *b, 0, 8, 2, 10, 4, 12, 6, 14);
        high = SHUFFLE(*a, *b, 1, 9, 3, 11, 5, 13, 7, 15);
        break;
    case 2:
        low = SHUFFLE(*a, *b, 0, 1, 8, 9, 4, 5, 12, 13);
        high = SHUFFLE(*a, *b, 2, 3, 10, 11, 6, 7, 14, 15);
        break;
    default:
        low = SHUFFLE(*a, *b, 0, 1, 2, 3, 8, 9, 10, 11);
        high = SHUFFLE(*a, *b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
#endif
    *a = low;
    *b = high;
}

static inline __attribute__((always_inline)) void transpose(lanes_t m[LANES]) {
#define STAGE(SIZE)                             \
    _Pragma("GCC unroll 16")                    \
    for (int i = 0; i < LANES; i++)             \
        if (!(i & SIZE)) exchange(&m[i], &m[i + SIZE], SIZE);
    STAGE(1) STAGE(2) STAGE(4)
#ifdef __AVX512F__
    STAGE(8)
#endif
#undef STAGE
}

/* The sums of LANES vectors, one in each lane; a is scratch. */
static inline __attribute__((always_inline)) lanes_t sums_of_each(lanes_t a[LANES]) {
#define STAGE(SIZE)                                                       \
    _Pragma("GCC unroll 16")                                              \
    for (int i = 0; i < LANES / (2 * SIZE); i++) {                        \
        exchange(&a[2 * i], &a[2 * i + 1], SIZE);                         \
        a[i] = a[2 * i] + a[2 * i + 1];                                   \
    }
    STAGE(1) STAGE(2) STAGE(4)
#ifdef __AVX512F__
    STAGE(8)
#endif
#undef STAGE
    return a[0];
}

/* A NaN stays. */
static inline lanes_t above_zero(lanes_t d) { return larger(splat(0), d); }

static inline int any_lane(mask_t mask) {
#ifdef __AVX512F__
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#endif
    int any = 0;
    for (int i = 0; i < LANES; i++) any |= mask[i];
    return any;
}

#define GROUPS 8 /* of which the maxima give a first bound */

/* The Newton step of sum d and sum d^2 (square: alpha 1.5), or sum d and their number (2). */
static inline __attribute__((always_inline)) lanes_t newton_step(lanes_t a1, lanes_t a2, int square) {
    if (!square) return (a1 - 1) / a2;
    const lanes_t norm = roots(a2);
    return (norm - 1) * norm / a1;
}

/* After a step so small, relative to tau, the next one is exact: it errs by the square of that. */
#define SMALL_STEP 0.01f

/* Newton from below on the group maxima of a row in each lane; NaN lanes do not keep the others. */
static inline __attribute__((always_inline)) lanes_t maxima_newton(const lanes_t x[LANES], int steps,
                                                               int square) {
    lanes_t tau = splat(-1);
    for (int k = 0, polish = 0; k < steps; k++) {
        lanes_t a1 = splat(0), a2 = splat(0);
#pragma GCC unroll 16
        for (int g = 0; g < LANES; g++) {
            const lanes_t d = above_zero(x[g] - tau);
            a1 += d;
            a2 += square ? d * d : one_where_positive(d);
        }
        const lanes_t step = newton_step(a1, a2, square);
        tau += step;
        if (polish) break;
        polish = !any_lane(step > -SMALL_STEP * tau);
    }
    return tau;
}

/* LANES rows, of which `rows` exist (the last one stands in for the others). */
typedef struct {
    const float *z;
    long rows, columns, stride;
    float largest[LANES], tau[LANES];
} batch_t;

static inline const float *batch_row(const batch_t *b, long r) {
    return b->z + (r < b->rows ? r : b->rows - 1) * b->stride;
}

/* Where the last vector of a row begins, which may reach beyond it. */
static inline long last_lanes(long n) { return (n - 1) / LANES * LANES; }

/* Sums over (alpha - 1)(z - largest) - tau above zero of each row, one in each lane. */
static inline __attribute__((always_inline)) void batch_sums(const batch_t *b, float scale,
                                                           int square, lanes_t *s1, lanes_t *s2) {
    const long last = last_lanes(b->columns), width = b->columns - last;
    lanes_t a1[LANES], a2[LANES];
    for (int r = 0; r < LANES; r++) {
        const float *z = batch_row(b, r);
        const lanes_t largest = splat(b->largest[r]), tau = splat(b->tau[r]);
        lanes_t d = above_zero((load_lanes(z + last, width, -INFINITY) - largest) * scale - tau);
        lanes_t t1 = d, t2 = square ? d * d : one_where_positive(d);
        for (long i = 0; i < last; i += LANES) {
            d = above_zero((*(const lanes_t *)(z + i) - largest) * scale - tau);
            t1 += d;
            t2 += square ? d * d : one_where_positive(d);
        }
        a1[r] = t1;
        a2[r] = t2;
    }
    *s1 = sums_of_each(a1);
    *s2 = sums_of_each(a2);
}

static inline __attribute__((always_inline)) void batch_write(const batch_t *b, float scale,
                                                            int square, float *p) {
    const long last = last_lanes(b->columns), width = b->columns - last;
    for (long r = 0; r < b->rows; r++, p += b->columns) {
        const float *z = batch_row(b, r);
        const lanes_t largest = splat(b->largest[r]), tau = splat(b->tau[r]);
        for (long i = 0; i < last; i += LANES) {
            const lanes_t d = above_zero((*(const lanes_t *)(z + i) - largest) * scale - tau);
            *(lanes_t *)(p + i) = square ? d * d : d;
        }
        const lanes_t d = above_zero((load_lanes(z + last, width, -INFINITY) - largest) * scale - tau);
        store_lanes(square ? d * d : d, p + last, width);
    }
}

/* Rows z to probabilities p (rows, columns), alpha 1.5 (square) or 2; p may be z. A row with NaN
 * or +inf has a NaN in its sums, so that its tau and all of its p are NaN. */
static inline __attribute__((always_inline)) void batch_entmax(batch_t *b, int square, float *p) {
    const long last = last_lanes(b->columns), width = b->columns - last;
    const float scale = square ? 0.5f : 1.f;
    lanes_t maxima[LANES], largest = splat(-INFINITY);
    for (int r = 0; r < LANES; r++) {
        const float *z = batch_row(b, r);
        lanes_t m = load_lanes(z + last, width, -INFINITY);
        for (long i = 0; i < last; i += LANES) m = larger(*(const lanes_t *)(z + i), m);
        maxima[r] = m;
    }
    transpose(maxima);
    for (int g = 0; g < LANES; g++) largest = larger(maxima[g], largest);
    largest = pick(largest == -INFINITY, splat(0), largest);
    for (int g = 0; g < LANES; g++) maxima[g] = (maxima[g] - largest) * scale;
    /* the maxima are a subset, so that their tau is a lower bound */
    lanes_t tau = maxima_newton(maxima, 4, square) - 4e-7f, s1, s2;
    tau = larger(tau, splat(-1));
    *(lanes_t *)b->largest = largest;
    for (int k = 0, polish = 0; k < 40; k++) {
        *(lanes_t *)b->tau = tau;
        batch_sums(b, scale, square, &s1, &s2);
        /* nothing lies above any threshold where all scores are -inf */
        const lanes_t step = pick(s1 == 0, splat(0), newton_step(s1, s2, square));
        tau += step;
        if (polish) break;
        polish = !any_lane(step > -SMALL_STEP * tau);
    }
    *(lanes_t *)b->tau = tau;
    batch_write(b, scale, square, p);
}

/* What a row of each lane is besides its numbers. */
typedef struct {
    lanes_t maxima[GROUPS]; /* (alpha - 1)(z - max) of groups */
    mask_t bad, dead;
} lane_rows_t;

/* Scores x in place to (alpha - 1)(z - max), with scale = alpha - 1. */
static inline __attribute__((always_inline)) lane_rows_t lanes_shift(lanes_t *x, long n,
                                                                     lanes_t scale) {
    lane_rows_t rows;
    lanes_t *maxima = rows.maxima, largest = splat(-INFINITY);
    mask_t bad = (mask_t){0};
    for (int g = 0; g < GROUPS; g++) maxima[g] = largest;
    for (long i = 0; i < n; i += GROUPS) {
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; g++) {
            maxima[g] = larger(x[i + g], maxima[g]);
            bad |= x[i + g] != x[i + g];
        }
    }
    for (int g = 0; g < GROUPS; g++) largest = larger(maxima[g], largest);
    rows.dead = largest == -INFINITY;
    rows.bad = bad | (largest == INFINITY);
    largest = pick(rows.dead, splat(0), largest);
    for (long i = 0; i < n; i++) x[i] = (x[i] - largest) * scale;
    for (int g = 0; g < GROUPS; g++) maxima[g] = (maxima[g] - largest) * scale;
    return rows;
}

static inline lanes_t lanes_valid(const lane_rows_t *rows, lanes_t p) {
    return pick(rows->bad, splat(NAN), (lanes_t)((mask_t)p & ~(rows->dead & ~rows->bad)));
}

/* s = -tau of each lane on its way from above, by general.h's Newton; gap = alpha - 1. */
static lanes_t lanes_descend(const lanes_t *x, long n, lanes_t gap, lanes_t s, int steps) {
    for (int k = 0, polish = 0; k < steps; k++) {
        powers_t sums = {splat(0), splat(0)};
        for (long i = 0; i < n; i++) add_powers(&sums, x[i], 1 / s, 1 / gap - 1);
        const lanes_t above = exp2_minus_1(log2_lanes(s) + gap * log2_lanes(sums.whole));
        const lanes_t step = above * s * sums.whole / ((1 + above) * sums.less);
        s -= step;
        if (polish) break;
        polish = !any_lane(step > 1e-4f * gap * s);
    }
    return s;
}

/* The same for alpha - 1 = gap in (0, 1], one for each lane. */
static void lanes_general(lanes_t *x, long n, lanes_t gap) {
    const lane_rows_t rows = lanes_shift(x, n, gap);
    lanes_t s = splat(1), sum = splat(0);
    if (n >= 4 * GROUPS) s = lanes_descend(rows.maxima, GROUPS, gap, s, 4);
    s = lanes_descend(x, n, gap, s, 40);
    for (long i = 0; i < n; i++) {
        x[i] = power_above(x[i], 1 / s, 1 / gap);
        sum += x[i];
    }
    for (long i = 0; i < n; i++) x[i] = lanes_valid(&rows, x[i] / sum);
}

/* A block of up to LANES rows and columns to lanes and back; lanes without a row get the last. */
static inline void load_block(const float *from, long stride, long rows, long width, lanes_t *x) {
    lanes_t m[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++)
        m[r] = load_lanes(from + (r < rows ? r : rows - 1) * stride, width, -INFINITY);
    transpose(m);
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) x[r] = m[r];
}

static inline void store_block(const lanes_t *x, long stride, long rows, long width, float *to) {
    lanes_t m[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) m[r] = x[r];
    transpose(m);
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++)
        if (r < rows) store_lanes(m[r], to + r * stride, width);
}

static inline long at_most(long n, long limit) { return n < limit ? n : limit; }

/* The same as batch_entmax for alpha in [1.05, 2], one for each lane. */
static void turned_entmax(const batch_t *b, lanes_t gap, float *p) {
    const long n = b->columns;
    lanes_t x[LONGEST] __attribute__((aligned(64)));
    for (long i = 0; i < n; i += LANES)
        load_block(b->z + i, b->stride, b->rows, at_most(n - i, LANES), x + i);
    lanes_general(x, (n + LANES - 1) / LANES * LANES, gap);
    for (long i = 0; i < n; i += LANES) store_block(x + i, n, b->rows, at_most(n - i, LANES), p + i);
}

typedef struct {
    work_t work; /* in units of LANES rows */
    const void *z;
    void *p;
    long rows, columns, stride, type;
    const double *alpha;
    long alpha_step; /* 0: one alpha for all rows, 1: one each */
} short_t;

static void short_batch(const short_t *job, long first, batch_t *b, float *p) {
    const double alpha = job->alpha[first * job->alpha_step];
    if (job->alpha_step == 0 && alpha == 1.5) batch_entmax(b, 1, p);
    else if (job->alpha_step == 0 && alpha == 2) batch_entmax(b, 0, p);
    else {
        lanes_t gap;
        for (long l = 0; l < LANES; l++)
            gap[l] = (float)(job->alpha[at_most(first + l, job->rows - 1) * job->alpha_step] - 1);
        turned_entmax(b, gap, p);
    }
}

static void short_body(void *data) {
    short_t *job = data;
    const long n = job->columns;
    float wide[LANES * LONGEST] __attribute__((aligned(64))); /* of 16-bit rows */
    long begin, end;
    while (take(&job->work, &begin, &end))
        for (long first = begin * LANES; first < at_most(end * LANES, job->rows); first += LANES) {
            batch_t b = {wide, at_most(job->rows - first, LANES), n, n, {0}, {0}};
            if (job->type == F32) {
                b.z = (const float *)job->z + first * job->stride;
                b.stride = job->stride;
                short_batch(job, first, &b, (float *)job->p + first * n);
                continue;
            }
            for (long r = 0; r < b.rows; r++)
                load_row(job->z, (first + r) * job->stride, n, job->type, wide + r * n);
            short_batch(job, first, &b, wide);
            store_row(job->p, first * n, b.rows * n, job->type, wide);
        }
}

/* p (rows, columns) = entmax of z, alpha in [1.05, 2]; columns <= 512. */
int entmax_short_forward(const void *z, long rows, long columns, long stride, long type,
                         const double *alpha, long alpha_step, void *p, long threads) {
    short_t job = {{0, (rows + LANES - 1) / LANES, 16}, z, p, rows, columns, stride, type, alpha,
                   alpha_step};
    run(short_body, &job, threads);
    return 0;
}
