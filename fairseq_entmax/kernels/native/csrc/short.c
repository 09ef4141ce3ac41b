/* Short rows (attention): LANES rows at once, one in each lane of a vector.
 *
 * Newton then needs no reduction across lanes, and one square root and one division serve all of
 * them. Rows are transposed, LANES x LANES, on the way in and out. Wider vectors than the
 * processor's would be shuffled number by number. */
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

static inline lanes_t above_zero(lanes_t d) { return larger(d, splat(0)); }

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

static inline lanes_t one_where_positive(lanes_t d) { return -__builtin_convertvector(d > 0, lanes_t); }

/* Newton from below on rows x (n, LANES), n a multiple of GROUPS, alpha 1.5 (square) or 2,
 * for at most `steps`; the step after a small one is exact. NaN lanes do not keep the others. */
static inline __attribute__((always_inline)) lanes_t lanes_newton(const lanes_t *x, long n, lanes_t tau,
                                                              int steps, int square) {
    for (int k = 0, polish = 0; k < steps; k++) {
        lanes_t a1 = splat(0), a2 = splat(0), step;
        /* by eights: long chains of float additions are slow and lose the last digits */
        for (long i = 0; i < n; i += GROUPS) {
            lanes_t d[GROUPS], e[GROUPS];
#pragma GCC unroll 8
            for (int g = 0; g < GROUPS; g++) {
                d[g] = above_zero(x[i + g] - tau);
                e[g] = square ? d[g] * d[g] : one_where_positive(d[g]);
            }
            a1 += ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
            a2 += ((e[0] + e[1]) + (e[2] + e[3])) + ((e[4] + e[5]) + (e[6] + e[7]));
        }
        if (square) {
            lanes_t norm = roots(a2);
            step = (norm - 1) * norm / a1;
        } else {
            step = (a1 - 1) / a2;
        }
        tau += step;
        if (polish) break;
        polish = !any_lane(step > -1e-4f * tau);
    }
    return tau;
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

/* Rows in lanes, in place: scores -> probabilities; n is a multiple of GROUPS. */
static inline __attribute__((always_inline)) void lanes_entmax(lanes_t *x, long n, int square) {
    const lane_rows_t rows = lanes_shift(x, n, splat(square ? 0.5f : 1.f));
    lanes_t tau = splat(-1);
    if (n >= 4 * GROUPS) /* the maxima are a subset: their tau is a lower bound */
        tau = lanes_newton(rows.maxima, GROUPS, tau, 4, square) - 4e-7f;
    tau = lanes_newton(x, n, larger(tau, splat(-1)), 40, square);
    for (long i = 0; i < n; i++) {
        lanes_t d = above_zero(x[i] - tau);
        if (square) d *= d;
        x[i] = lanes_valid(&rows, d);
    }
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

typedef struct {
    work_t work; /* in units of LANES rows */
    const float *z;
    float *p;
    long rows, columns, stride;
    const double *alpha;
    long alpha_step; /* 0: one alpha for all rows, 1: one each */
} short_t;

/* A block of up to LANES rows and columns to lanes and back; lanes without a row get the last. */
static inline void load_block(const float *from, long stride, long rows, long width, lanes_t *x) {
    lanes_t m[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) m[r] = load_lanes(from + (r < rows ? r : rows - 1) * stride, width);
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

static void short_body(void *data) {
    short_t *job = data;
    const long n = job->columns, padded = (n + LANES - 1) / LANES * LANES;
    lanes_t x[LONGEST] __attribute__((aligned(64)));
    long begin, end;
    while (take(&job->work, &begin, &end))
        for (long block = begin; block < end; block++) {
            const long first = block * LANES;
            const long rows = at_most(job->rows - first, LANES);
            const float *z = job->z + first * job->stride;
            float *p = job->p + first * n;
            for (long b = 0; b < n; b += LANES)
                load_block(z + b, job->stride, rows, at_most(n - b, LANES), x + b);
            const double alpha = job->alpha[first * job->alpha_step];
            if (job->alpha_step == 0 && alpha == 1.5) lanes_entmax(x, padded, 1);
            else if (job->alpha_step == 0 && alpha == 2) lanes_entmax(x, padded, 0);
            else {
                lanes_t gap;
                for (long l = 0; l < LANES; l++)
                    gap[l] = (float)(job->alpha[at_most(first + l, job->rows - 1) *
                                                job->alpha_step] - 1);
                lanes_general(x, padded, gap);
            }
            for (long b = 0; b < n; b += LANES)
                store_block(x + b, n, rows, at_most(n - b, LANES), p + b);
        }
}

/* p (rows, columns) = entmax of float32 z, alpha in [1.05, 2]; columns <= 512. */
int entmax_short_forward(const float *z, long rows, long columns, long stride, const double *alpha,
                         long alpha_step, float *p, long threads) {
    short_t job = {{0, (rows + LANES - 1) / LANES, 16}, z, p, rows, columns, stride, alpha,
                   alpha_step};
    run(short_body, &job, threads);
    return 0;
}
