/* The next word of a decoder: the most probable columns of entmax(W x + b), with log p.
 *
 * Rows of (W, b) and (x, 1) are rounded to 16-bit integers by one scale each, so that products of
 * integers, added up exactly in 32 bits, are scores with a small known error. They exclude columns;
 * those that are left are computed again in float32. screening.py has the proof. */
#include "candidates.h"

#if defined(__AVX512BW__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

/* A vector of 32-bit sums; pair_sums(a, b): of the products of each two neighbours. */
#if defined(__AVX512BW__)
typedef __m512i sums_t;
#define SPLAT _mm512_set1_epi32
#define ADD_PAIRS(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
#elif defined(__AVX2__)
typedef __m256i sums_t;
#define SPLAT _mm256_set1_epi32
#define ADD_PAIRS(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#elif defined(__SSE2__)
typedef __m128i sums_t;
#define SPLAT _mm_set1_epi32
#define ADD_PAIRS(sum, a, b) _mm_add_epi32(sum, _mm_madd_epi16(a, b))
#else
typedef int32_t sums_t __attribute__((vector_size(16)));
#define LOW(pairs) ((sums_t)((__typeof__(pairs))(pairs) << 16) >> 16)
#define SPLAT(x) ((x) - (sums_t){0})
#define ADD_PAIRS(sum, a, b) ((sum) + LOW(a) * LOW(b) + ((a) >> 16) * ((b) >> 16))
#endif

#define SUMS ((long)(sizeof(sums_t) / sizeof(int32_t)))
#define PANEL (2 * SUMS) /* columns whose weights lie side by side */
#define TILE_ROWS 4       /* by PANEL: sums that stay in registers */
#define UNIT 32000.f      /* norm of the longest rounded row: no sum of products leaves 32 bits */

static inline long panels_of(long columns) { return (columns + PANEL - 1) / PANEL; }

/* Pairs of neighbours in a row of d entries, and one more where there is a bias. */
static inline long pairs_of(long d, int biased) { return (d + biased + 1) / 2; }

/* Bytes of the rounded weight, and columns of a row of its scores. */
int entmax_rounded_size(long columns, long d, long biased, int64_t *bytes, int64_t *scores) {
    *scores = panels_of(columns) * PANEL;
    *bytes = *scores * pairs_of(d, biased != 0) * 4;
    return 0;
}

static inline int16_t rounded(float x, float scale) { return (int16_t)lrintf(x * scale); }

typedef struct {
    work_t work;
    const float *weight, *bias;
    long columns, d;
    float scale;
    int16_t *to;
} pack_t;

static void pack_body(void *data) {
    pack_t *job = data;
    const long d = job->d, pairs = pairs_of(d, job->bias != NULL);
    long begin, end;
    while (take(&job->work, &begin, &end))
        for (long panel = begin; panel < end; panel++) {
            int16_t *to = job->to + panel * PANEL * pairs * 2;
            memset(to, 0, PANEL * pairs * 2 * sizeof(int16_t));
            for (long c = 0; c < PANEL && panel * PANEL + c < job->columns; c++) {
                const long column = panel * PANEL + c;
                const float *from = job->weight + column * d;
                for (long i = 0; i < d; i++)
                    to[(i / 2 * PANEL + c) * 2 + i % 2] = rounded(from[i], job->scale);
                if (job->bias)
                    to[(d / 2 * PANEL + c) * 2 + d % 2] = rounded(job->bias[column], job->scale);
            }
        }
}

/* (W, b) (columns, d) in integers, for a `norm` that no row of it exceeds. */
int entmax_round_weight(const float *weight, const float *bias, long columns, long d, float norm,
                        int16_t *to, long threads) {
    const float scale = norm > 0 ? UNIT / norm : 0;
    pack_t job = {{0, panels_of(columns), 8}, weight, bias, columns, d, scale, to};
    run(pack_body, &job, threads);
    return 0;
}

/* One tile of scores: `rows` rows of x (pairs of neighbours as int32), one panel. */
static inline __attribute__((always_inline)) void tile(const int32_t *x, long pairs, int rows,
                                                       const int16_t *panel, int32_t *out,
                                                       long stride) {
    sums_t sum[TILE_ROWS][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = SPLAT(0);
    for (long i = 0; i < pairs; i++) {
        const sums_t w0 = *(const sums_t *)(panel + i * PANEL * 2);
        const sums_t w1 = *(const sums_t *)(panel + i * PANEL * 2 + PANEL);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const sums_t two = SPLAT(x[r * pairs + i]);
            sum[r][0] = ADD_PAIRS(sum[r][0], two, w0);
            sum[r][1] = ADD_PAIRS(sum[r][1], two, w1);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        ((sums_t *)(out + r * stride))[0] = sum[r][0];
        ((sums_t *)(out + r * stride))[1] = sum[r][1];
    }
}

typedef struct {
    work_t work;
    const float *x, *weight, *bias;
    const int16_t *rounded;
    long rows, columns, d, k, first;
    float norm, scale; /* of the longest row of (W, b); scores are multiplied by `scale` */
    double alpha;
    int32_t *rounded_x, *scores;
    float *margin, *unit; /* per row of the block: error, and value of 1 in its scores */
    int64_t *token;
    float *log_prob;
    int32_t *support;
    atomic_int failed;
} next_t;

/* (x, 1) in integers; its unit is NaN where it is not finite. */
static void round_row(next_t *job, long row, long at) {
    const long d = job->d, pairs = pairs_of(d, job->bias != NULL);
    const float *x = job->x + row * d;
    int16_t *to = (int16_t *)(job->rounded_x + at * pairs);
    float square = job->bias ? 1 : 0;
#pragma omp simd reduction(+ : square)
    for (long i = 0; i < d; i++) square += x[i] * x[i];
    const float norm = sqrtf(square), scale = norm > 1e-30f ? UNIT / norm : 0;
    if (!(scale < INFINITY) || scale == 0) { /* NaN, infinite, or nothing to rank by */
        memset(to, 0, pairs * 4);
        job->unit[at] = NAN;
        return;
    }
    to[2 * pairs - 1] = 0; /* the second of an odd last pair */
    for (long i = 0; i < d; i++) to[i] = rounded(x[i], scale);
    if (job->bias) to[d] = rounded(1, scale);
    const double root = sqrt((double)(d + 1)), both = (double)norm * job->norm;
    /* each rounding is off by 0.51 root units at most; then the float32 sums of both kinds */
    job->margin[at] = (float)(both * job->scale * (1.06 * root / UNIT + (d + 4) * 0x1p-23));
    job->unit[at] = (float)(both / ((double)UNIT * UNIT) * job->scale);
}

static void product_body(void *data) {
    next_t *job = data;
    const long pairs = pairs_of(job->d, job->bias != NULL);
    const long stride = panels_of(job->columns) * PANEL;
    long begin, end;
    while (take(&job->work, &begin, &end))
        for (long p = begin; p < end; p++) {
            const int16_t *panel = job->rounded + p * PANEL * pairs * 2;
            for (long r = 0; r < job->rows; r += TILE_ROWS) {
                const int32_t *x = job->rounded_x + r * pairs;
                int32_t *out = job->scores + r * stride + p * PANEL;
                switch (job->rows - r) {
                case 1: tile(x, pairs, 1, panel, out, stride); break;
                case 2: tile(x, pairs, 2, panel, out, stride); break;
                case 3: tile(x, pairs, 3, panel, out, stride); break;
                default: tile(x, pairs, TILE_ROWS, panel, out, stride);
                }
            }
        }
}

/* Insert into the `kept` best of at most k, by falling log p; returns how many there are. */
static long insert(int64_t *token, float *log_prob, long kept, long k, int64_t t, float value) {
    if (kept == k && !(value > log_prob[k - 1])) return kept;
    long at = kept < k ? kept++ : k - 1;
    for (; at > 0 && log_prob[at - 1] < value; at--) {
        log_prob[at] = log_prob[at - 1];
        token[at] = token[at - 1];
    }
    log_prob[at] = value;
    token[at] = t;
    return kept;
}

/* The candidates' exact scores to log p, and the best of them out. */
static void rank_row(next_t *job, long row, long candidates, scratch_t *s) {
    const long width = job->first + job->k;
    int64_t *token = job->token + row * width;
    float *log_prob = job->log_prob + row * width, largest = -INFINITY;
    for (long i = 0; i < candidates; i++) {
        const long column = s->index[i];
        float z = dot(job->x + row * job->d, job->weight + column * job->d, job->d);
        s->row[i] = (job->bias ? z + job->bias[column] : z) * job->scale;
        largest = s->row[i] > largest ? s->row[i] : largest;
    }
    solve_candidates(s->row, candidates, largest, job->alpha, -1, s);
    for (long i = 0; i < width; i++) {
        token[i] = i < job->first ? i : 0;
        log_prob[i] = -INFINITY;
    }
    long kept = 0, support = 0;
    for (long i = 0; i < candidates; i++) {
        if (!(s->p[i] > 0)) continue;
        support++;
        if (s->index[i] < job->first) log_prob[s->index[i]] = logf(s->p[i]);
        else
            kept = insert(token + job->first, log_prob + job->first, kept, job->k, s->index[i],
                          s->p[i]);
    }
    for (long i = 0; i < kept; i++) log_prob[job->first + i] = logf(log_prob[job->first + i]);
    job->support[row] = (int32_t)support;
}

static void rank_body(void *data) {
    next_t *job = data;
    const long n = job->columns, stride = panels_of(n) * PANEL;
    scratch_t s;
    long begin, end;
    if (!scratch_new(&s, n)) {
        job->failed = 1;
        return;
    }
    while (take(&job->work, &begin, &end))
        for (long row = begin; row < end; row++) {
            const int32_t *scores = job->scores + row * stride;
            for (long i = 0; i < n; i++) s.row[i] = (float)scores[i] * job->unit[row];
            const long found = uncertain_columns(n, job->alpha, job->margin[row], 0x1p-21f,
                                                 n / 8 + GROUP, &s);
            job->support[row] = -1;
            if (found >= 0) rank_row(job, row, found, &s);
        }
    scratch_free(&s);
}

/* Of every row of x (rows, d): log p of the columns below `first`, and the k best of the others,
 * out (rows, first + k) with -inf where the support ends, p = entmax(scale (W x + b)). `block` rows
 * are done at a time, with scratch for so many rounded rows, scores, margins and units. A row whose
 * support is -1 is not done: its scores are not finite, or too many columns are candidates. */
int entmax_next_tokens(const float *x, long rows, long d, const float *weight, const float *bias,
                       const int16_t *rounded, long columns, float norm, float scale, double alpha,
                       long first, long k, long block, int32_t *rounded_x, int32_t *scores,
                       float *margins, float *units, int64_t *token, float *log_prob,
                       int32_t *support, long threads) {
    for (long at = 0; at < rows; at += block) {
        const long n = rows - at < block ? rows - at : block, width = first + k;
        next_t job = {{0, panels_of(columns), 4}, x + at * d, weight, bias, rounded, n, columns, d,
                      k, first, norm, scale, alpha, rounded_x, scores, margins, units,
                      token + at * width, log_prob + at * width, support + at, 0};
        for (long r = 0; r < n; r++) round_row(&job, r, r);
        run(product_body, &job, threads);
        job.work = (work_t){0, n, 1};
        run(rank_body, &job, threads);
        if (job.failed) return NO_MEMORY;
    }
    return 0;
}
