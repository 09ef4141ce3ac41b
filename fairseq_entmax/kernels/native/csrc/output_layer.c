/* The fused output layer: sparse gradients of features and weight, and certified screening. */
#include "candidates.h"
#include "loss.h"

#ifdef __AVX512F__
#define TILE 16 /* accumulators of 16 floats that stay in registers */
#else
#define TILE 4
#endif

/* out[j..] = scale * sum_i value[i] * matrix[row[i]][j..] for COUNT vectors of 16 columns. */
#define ACCUMULATE(COUNT)                                                      \
    {                                                                          \
        v16 sum[COUNT];                                                        \
        for (int t = 0; t < COUNT; t++) sum[t] = (v16){0};                     \
        for (long i = 0; i < n; i++) {                                         \
            const float *m = matrix + (long)row[i] * d + j;                    \
            v16 v = value[i] - (v16){0};                                       \
            for (int t = 0; t < COUNT; t++) sum[t] += v * *(const v16 *)(m + 16 * t); \
        }                                                                      \
        for (int t = 0; t < COUNT; t++) *(v16 *)(out + j + 16 * t) = sum[t] * scale; \
    }

static void sparse_times_dense(const int32_t *row, const float *value, long n,
                               const float *matrix, long d, float scale, float *out) {
    long j = 0;
    for (; j + 16 * TILE <= d; j += 16 * TILE) ACCUMULATE(TILE)
    for (; j + 64 <= d; j += 64) ACCUMULATE(4)
    for (; j + 16 <= d; j += 16) ACCUMULATE(1)
    for (; j < d; j++) {
        float sum = 0;
        for (long i = 0; i < n; i++) sum += value[i] * matrix[(long)row[i] * d + j];
        out[j] = sum * scale;
    }
}

/* A sparse matrix by rows (or, turned, by columns). */
typedef struct {
    const int64_t *start;
    const int32_t *index;
    const float *value;
} sparse_t;

typedef struct {
    work_t work;
    sparse_t g;
    const float *scale, *matrix;
    long d;
    float *out;
} product_t;

static void features_body(void *data) {
    product_t *job = data;
    long begin, end;
    while (take(&job->work, &begin, &end))
        for (long r = begin; r < end; r++) {
            const int64_t at = job->g.start[r], n = job->g.start[r + 1] - at;
            sparse_times_dense(job->g.index + at, job->g.value + at, n, job->matrix, job->d,
                               job->scale[r], job->out + r * job->d);
        }
}

/* out (rows, d) = diag(scale) G W, with G (rows, V) sparse. */
int entmax_grad_features(const int64_t *start, const int32_t *index, const float *value,
                         const float *scale, long rows, const float *weight, long d, float *out,
                         long threads) {
    product_t job = {{0, rows, 16}, {start, index, value}, scale, weight, d, out};
    run(features_body, &job, threads);
    return 0;
}

typedef struct {
    work_t work;
    sparse_t g; /* by columns */
    const float *features;
    long d;
    float *weight, *bias;
    float *sums; /* to accumulate: d numbers for each thread, else NULL */
    atomic_long running;
} columns_t;

static void weight_row(const columns_t *job, long column, float *sums) {
    const int64_t at = job->g.start[column], n = job->g.start[column + 1] - at;
    const long d = job->d;
    float *out = job->weight + column * d, sum = 0;
    for (long i = 0; i < n; i++) sum += job->g.value[at + i];
    if (job->bias) job->bias[column] = sums ? job->bias[column] + sum : sum;
    if (n == 0) {
        if (!sums) memset(out, 0, d * sizeof(float));
        return;
    }
    sparse_times_dense(job->g.index + at, job->g.value + at, n, job->features, d, 1,
                       sums ? sums : out);
    if (sums)
        for (long t = 0; t < d; t++) out[t] += sums[t];
}

static void weight_body(void *data) {
    columns_t *job = data;
    long begin, end;
    float *sums = job->sums ? job->sums + job->d * atomic_fetch_add(&job->running, 1) : NULL;
    while (take(&job->work, &begin, &end))
        for (long column = begin; column < end; column++) weight_row(job, column, sums);
}

/* weight (V, d) = G^T diag(scale) X and bias (V,) = G^T scale, or added with `accumulate`. Sorting
 * by column first makes the sums deterministic and the threads independent. All memory is asked
 * for here, since a thread could not report that its own is missing. */
int entmax_grad_weight(const int64_t *start, const int32_t *index, const float *value,
                       const float *scale, long rows, long columns, const float *features, long d,
                       long accumulate, float *weight, float *bias, long threads) {
    const int64_t total = start[rows];
    int64_t *first = calloc(columns + 2, sizeof(int64_t));
    int32_t *row = malloc((total + 1) * sizeof(int32_t));
    float *scaled = malloc((total + 1) * sizeof(float));
    float *sums = accumulate ? malloc((d * threads + 1) * sizeof(float)) : NULL;
    const int failed = !first || !row || !scaled || (accumulate && !sums);
    if (!failed) {
        int64_t *place = first + 1;
        for (int64_t i = 0; i < total; i++) place[index[i] + 1]++;
        for (long c = 0; c < columns; c++) place[c + 1] += place[c];
        for (long r = 0; r < rows; r++)
            for (int64_t i = start[r]; i < start[r + 1]; i++) {
                const int64_t at = place[index[i]]++;
                row[at] = (int32_t)r;
                scaled[at] = value[i] * scale[r];
            }
        /* every place has moved to the start of the next column */
        columns_t job = {{0, columns, 64}, {first, row, scaled}, features, d, weight, bias, sums, 0};
        run(weight_body, &job, threads);
    }
    free(first);
    free(row);
    free(scaled);
    free(sums);
    return failed ? NO_MEMORY : 0;
}

/* Pack p - e_y of the fixed-capacity rows of the loss into `index`, `value` from start[row] on. */
int entmax_pack(const loss_t *in, long rows, const int64_t *start, int32_t *index, float *value) {
    for (long r = 0; r < rows; r++) {
        int64_t at = start[r];
        const int64_t y = in->target[r];
        if (at == start[r + 1]) continue;
        int found = 0;
        for (long i = 0; i < in->count[r]; i++, at++) {
            index[at] = in->index[r * in->capacity + i];
            value[at] = in->value[r * in->capacity + i];
            if (index[at] == y) {
                value[at] -= 1;
                found = 1;
            }
        }
        if (!found) {
            index[at] = (int32_t)y;
            value[at] = -1;
        }
    }
    return 0;
}

/* bfloat16 copy of a matrix, and per row the norms of what was rounded and of the rounding. */
typedef struct {
    work_t work;
    const float *from;
    long d;
    uint16_t *to;
    float *norm, *error;
} round_t;

static void round_body(void *data) {
    round_t *job = data;
    const long d = job->d;
    long begin, end;
    while (take(&job->work, &begin, &end))
        for (long r = begin; r < end; r++) {
            const float *from = job->from + r * d;
            uint16_t *to = job->to + r * d;
            float norm = 0, error = 0;
#pragma omp simd reduction(+ : norm, error)
            for (long i = 0; i < d; i++) {
                uint16_t h = float_to_bf16(from[i]);
                float e = from[i] - bf16_to_float(h);
                to[i] = h;
                norm += from[i] * from[i];
                error += e * e;
            }
            job->norm[r] = sqrtf(norm);
            job->error[r] = sqrtf(error);
        }
}

int entmax_round_bf16(const float *from, long rows, long d, uint16_t *to, float *norm,
                      float *error, long threads) {
    round_t job = {{0, rows, 64}, from, d, to, norm, error};
    run(round_body, &job, threads);
    return 0;
}

typedef struct {
    work_t work;
    const uint16_t *z;
    const float *margin, *features, *weight, *bias;
    long columns, d;
    double alpha;
    loss_t out;
    atomic_int failed;
    atomic_long overflowed;
} screen_t;

static float exact_score(const screen_t *job, long row, long column) {
    float z = dot(job->features + row * job->d, job->weight + column * job->d, job->d);
    return job->bias ? z + job->bias[column] : z;
}

/* The columns that may be in the support, with margin; -1 if they are too many. */
static long screen_row(const screen_t *job, long row, scratch_t *s) {
    const long n = job->columns;
    for (long i = 0; i < n; i++) s->row[i] = bf16_to_float(job->z[row * n + i]);
    if (job->bias)
        for (long i = 0; i < n; i++) s->row[i] += job->bias[i];
    return uncertain_columns(n, job->alpha, job->margin[row], 0x1.05p-8f, job->out.capacity, s);
}

static void screen_body(void *data) {
    screen_t *job = data;
    scratch_t s;
    long begin, end;
    if (!scratch_new(&s, job->columns)) {
        job->failed = 1;
        return;
    }
    while (take(&job->work, &begin, &end))
        for (long row = begin; row < end; row++) {
            clear(&job->out, row);
            if (job->out.target[row] < 0) continue;
            long kept = screen_row(job, row, &s);
            if (kept < 0) {
                job->overflowed++;
                continue;
            }
            float largest = -INFINITY;
            for (long i = 0; i < kept; i++) {
                s.row[i] = exact_score(job, row, s.index[i]);
                largest = s.row[i] > largest ? s.row[i] : largest;
            }
            solved_t r = {kept, largest, 0, 0, 0};
            r.tau = solve_candidates(s.row, kept, largest, job->alpha, -1, &s);
            record(&job->out, row, &r, job->columns, s.row,
                   exact_score(job, row, job->out.target[row]), job->alpha, &s);
        }
    scratch_free(&s);
}

/* The loss of rows whose scores are known in bfloat16 only: every column that the margin cannot
 * exclude is computed again in float32. Returns how many rows had too many (they are not done). */
int entmax_screen(const uint16_t *z, long rows, long columns, const float *margin,
                  const float *features, const float *weight, const float *bias, long d,
                  double alpha, const loss_t *out, long threads) {
    screen_t job = {{0, rows, 8}, z, margin, features, weight, bias, columns, d, alpha, *out, 0, 0};
    run(screen_body, &job, threads);
    return job.failed ? NO_MEMORY : (int)job.overflowed;
}
