/* Short rows (attention): sixteen rows at once, one in each lane of a vector.
 *
 * Newton then needs no reduction across lanes, and one square root and one division serve sixteen
 * rows. Rows are transposed 16 x 16 on the way in and out. */
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "solve.h"

#define LANES 16
#define LONGEST 512

#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (v16i){__VA_ARGS__})

/* Interleave blocks of `size` lanes of a and b: the low or the high halves. */
static inline void exchange(v16 *a, v16 *b, int size) {
    v16 low, high;
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
    *a = low;
    *b = high;
}

static inline __attribute__((always_inline)) void transpose(v16 m[LANES]) {
#define STAGE(SIZE)                             \
    _Pragma("GCC unroll 16")                    \
    for (int i = 0; i < LANES; i++)             \
        if (!(i & SIZE)) exchange(&m[i], &m[i + SIZE], SIZE);
    STAGE(1) STAGE(2) STAGE(4) STAGE(8)
#undef STAGE
}

static inline v16 splat(float f) { return f - (v16){0}; }

static inline v16 pick(v16i mask, v16 yes, v16 no) {
    return (v16)((mask & (v16i)yes) | (~mask & (v16i)no));
}

#ifdef __AVX512F__
static inline v16 larger(v16 a, v16 b) { return (v16)_mm512_max_ps((__m512)a, (__m512)b); }
static inline v16 roots(v16 x) { return (v16)_mm512_sqrt_ps((__m512)x); }
#else
static inline v16 larger(v16 a, v16 b) { return pick(a > b, a, b); }
static inline v16 roots(v16 x) {
    v16 r;
    for (int i = 0; i < LANES; i++) r[i] = sqrtf(x[i]);
    return r;
}
#endif

static inline v16 above_zero(v16 d) { return larger(d, splat(0)); }

static inline int any_lane(v16i mask) {
#ifdef __AVX512F__
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#endif
    int any = 0;
    for (int i = 0; i < LANES; i++) any |= mask[i];
    return any;
}

#define GROUPS 8 /* of which the maxima give a first bound */

static inline v16 one_where_positive(v16 d) { return -__builtin_convertvector(d > 0, v16); }

/* Newton from below on sixteen rows x (n, LANES), n a multiple of GROUPS, alpha 1.5 (square) or 2,
 * for at most `steps`; the step after a small one is exact. NaN lanes do not keep the others. */
static inline __attribute__((always_inline)) v16 lanes_newton(const v16 *x, long n, v16 tau,
                                                              int steps, int square) {
    for (int k = 0, polish = 0; k < steps; k++) {
        v16 a1 = splat(0), a2 = splat(0), step;
        /* by eights: long chains of float additions are slow and lose the last digits */
        for (long i = 0; i < n; i += GROUPS) {
            v16 d[GROUPS], e[GROUPS];
#pragma GCC unroll 8
            for (int g = 0; g < GROUPS; g++) {
                d[g] = above_zero(x[i + g] - tau);
                e[g] = square ? d[g] * d[g] : one_where_positive(d[g]);
            }
            a1 += ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
            a2 += ((e[0] + e[1]) + (e[2] + e[3])) + ((e[4] + e[5]) + (e[6] + e[7]));
        }
        if (square) {
            v16 norm = roots(a2);
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

/* Sixteen rows in lanes, in place: scores -> probabilities; n is a multiple of GROUPS. */
static inline __attribute__((always_inline)) void lanes_entmax(v16 *x, long n, int square) {
    const float scale = square ? 0.5f : 1.f;
    v16 maxima[GROUPS], largest = splat(-INFINITY), tau = splat(-1);
    v16i bad = (v16i){0};
    for (int g = 0; g < GROUPS; g++) maxima[g] = largest;
    for (long i = 0; i < n; i += GROUPS) {
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; g++) {
            maxima[g] = larger(x[i + g], maxima[g]);
            bad |= x[i + g] != x[i + g];
        }
    }
    for (int g = 0; g < GROUPS; g++) largest = larger(maxima[g], largest);
    v16i dead = largest == -INFINITY;
    bad |= largest == INFINITY;
    largest = pick(dead, splat(0), largest);
    for (long i = 0; i < n; i++) x[i] = (x[i] - largest) * scale;
    if (n >= 4 * GROUPS) { /* the maxima are a subset: their tau is a lower bound */
        for (int g = 0; g < GROUPS; g++) maxima[g] = (maxima[g] - largest) * scale;
        tau = lanes_newton(maxima, GROUPS, tau, 4, square) - 4e-7f;
    }
    tau = lanes_newton(x, n, larger(tau, splat(-1)), 40, square);
    for (long i = 0; i < n; i++) {
        v16 d = above_zero(x[i] - tau);
        if (square) d *= d;
        x[i] = pick(bad, splat(NAN), (v16)((v16i)d & ~(dead & ~bad)));
    }
}

typedef struct {
    work_t work; /* in units of sixteen rows */
    const float *z;
    float *p;
    long rows, columns, stride;
    int square;
} short_t;

/* Up to sixteen entries of a row, padded with -inf, in a register from the start: what is put
 * together in memory is copied from there word by word. */
static inline v16 load16(const float *from, long width) {
    if (width == LANES) return *(const v16 *)from;
#ifdef __AVX512F__
    return (v16)_mm512_mask_loadu_ps((__m512)splat(-INFINITY), (__mmask16)((1 << width) - 1), from);
#else
    v16 v = splat(-INFINITY);
    memcpy(&v, from, width * sizeof(float));
    return v;
#endif
}

static inline void store16(v16 v, float *to, long width) {
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(to, (__mmask16)((1 << width) - 1), (__m512)v);
#else
    memcpy(to, &v, width * sizeof(float));
#endif
}

/* A block of up to sixteen rows and columns to lanes and back; lanes without a row get the last. */
static inline void load_block(const float *from, long stride, long rows, long width, v16 *x) {
    v16 m[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) m[r] = load16(from + (r < rows ? r : rows - 1) * stride, width);
    transpose(m);
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) x[r] = m[r];
}

static inline void store_block(const v16 *x, long stride, long rows, long width, float *to) {
    v16 m[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) m[r] = x[r];
    transpose(m);
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++)
        if (r < rows) store16(m[r], to + r * stride, width);
}

static inline long at_most(long n, long limit) { return n < limit ? n : limit; }

static void short_body(void *data) {
    short_t *job = data;
    const long n = job->columns, padded = (n + LANES - 1) / LANES * LANES;
    v16 x[LONGEST] __attribute__((aligned(64)));
    long begin, end;
    while (take(&job->work, &begin, &end))
        for (long block = begin; block < end; block++) {
            const long first = block * LANES;
            const long rows = at_most(job->rows - first, LANES);
            const float *z = job->z + first * job->stride;
            float *p = job->p + first * n;
            for (long b = 0; b < n; b += LANES)
                load_block(z + b, job->stride, rows, at_most(n - b, LANES), x + b);
            if (job->square) lanes_entmax(x, padded, 1);
            else lanes_entmax(x, padded, 0);
            for (long b = 0; b < n; b += LANES)
                store_block(x + b, n, rows, at_most(n - b, LANES), p + b);
        }
}

/* p (rows, columns) = entmax of float32 z for alpha 1.5 (square) or 2; columns <= 512. */
int entmax_short_forward(const float *z, long rows, long columns, long stride, long square,
                         float *p, long threads) {
    short_t job = {{0, (rows + LANES - 1) / LANES, 16}, z, p, rows, columns, stride, (int)square};
    run(short_body, &job, threads);
    return 0;
}
