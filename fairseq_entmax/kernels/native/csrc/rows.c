/* Row kernels: the mapping and its gradient, the loss on scores and its gradient. */
#include "loss.h"

static parallel_fn parallel;

void entmax_set_parallel(void *function) { parallel = (parallel_fn)function; }

void run(void (*body)(void *), void *data, long threads) {
    if (parallel && threads > 1) parallel(body, data, (unsigned)threads, 0);
    else body(data);
}

/* The part of a call that all row kernels share. */
typedef struct {
    work_t work;
    long columns, stride;
    long type;
    const double *alpha;
    long alpha_step; /* 0: one alpha for all rows, 1: one each */
} rows_t;

static rows_t rows_new(long rows, long columns, long stride, long type, const double *alpha,
                       long alpha_step) {
    long block = 65536 / (columns + 1) + 1;
    rows_t r = {{0, rows, block}, columns, stride, type, alpha, alpha_step};
    return r;
}

typedef struct {
    rows_t rows;
    const void *z;
    void *p;
    long logarithm;
    atomic_int failed;
} forward_t;

static void write_probs(const solved_t *r, float *out, long n, const scratch_t *s) {
    if (r->broken)
        for (long i = 0; i < n; i++) out[i] = NAN;
    else if (r->dead) memset(out, 0, n * sizeof(float));
    else if (r->count < 0) memcpy(out, s->p, n * sizeof(float));
    else {
        memset(out, 0, n * sizeof(float));
        for (long i = 0; i < r->count; i++) out[s->index[i]] = s->p[i];
    }
}

/* log p in its place: the logarithm of the many zeros is slow, so they are never asked for. */
static void write_log_probs(const solved_t *r, float *out, long n, const scratch_t *s) {
    if (r->broken || r->dead || r->count < 0) {
        write_probs(r, out, n, s);
        for (long i = 0; i < n; i++) out[i] = out[i] == 0 ? -INFINITY : logf(out[i]);
        return;
    }
    for (long i = 0; i < n; i++) out[i] = -INFINITY;
    for (long i = 0; i < r->count; i++)
        if (s->p[i] > 0) out[s->index[i]] = logf(s->p[i]);
}

static void forward_body(void *data) {
    forward_t *job = data;
    const long n = job->rows.columns;
    scratch_t s;
    long begin, end;
    if (!scratch_new(&s, n)) {
        job->failed = 1;
        return;
    }
    while (take(&job->rows.work, &begin, &end))
        for (long row = begin; row < end; row++) {
            const float *z = load_row(job->z, row * job->rows.stride, n, job->rows.type, s.row);
            solved_t r = solve_row(z, n, job->rows.alpha[row * job->rows.alpha_step], &s);
            float *out = job->rows.type == F32 ? (float *)job->p + row * n : s.out;
            if (job->logarithm) write_log_probs(&r, out, n, &s);
            else write_probs(&r, out, n, &s);
            store_row(job->p, row * n, n, job->rows.type, out);
        }
    scratch_free(&s);
}

/* p (rows, columns) = entmax of z, or its logarithm. */
int entmax_forward(const void *z, long rows, long columns, long stride, long type,
                   const double *alpha, long alpha_step, void *p, long logarithm, long threads) {
    forward_t job = {rows_new(rows, columns, stride, type, alpha, alpha_step), z, p, logarithm, 0};
    run(forward_body, &job, threads);
    return job.failed ? NO_MEMORY : 0;
}

typedef struct {
    rows_t rows;
    const void *p, *grad;
    void *out;
    double *by_alpha;
    atomic_int failed;
} backward_t;

/* s = p^(2 - alpha), alpha 1.5 (square) or 2; a NaN stays. */
static inline __attribute__((always_inline)) lanes_t closed_slopes(lanes_t p, int square) {
    return square ? roots(p) : pick(p > 0, splat(1), p);
}

/* dz = s (grad - <s, grad> / sum s) on n entries. */
static inline __attribute__((always_inline)) void jacobian_closed(const float *p, const float *grad,
                                                                  long n, int square,
                                                                  float *slopes, float *out) {
    double total = 0, dot = 0;
    const long whole = n - n % LANES;
    for (long b = 0; b < whole; b += 1024) {
        const long e = b + 1024 < whole ? b + 1024 : whole;
        lanes_t t = splat(0), d = splat(0);
        for (long i = b; i < e; i += LANES) {
            const lanes_t s = closed_slopes(*(const lanes_t *)(p + i), square);
            *(lanes_t *)(slopes + i) = s;
            t += s;
            d += s * *(const lanes_t *)(grad + i);
        }
        total += sum_lanes(t);
        dot += sum_lanes(d);
    }
    lanes_t last = splat(0), g = splat(0);
    if (whole < n) {
        last = closed_slopes(load_lanes(p + whole, n - whole, 0), square);
        g = load_lanes(grad + whole, n - whole, 0);
        total += sum_lanes(last);
        dot += sum_lanes(last * g);
    }
    const lanes_t mean = splat(total > 0 || total != total ? (float)(dot / total) : 0);
    for (long i = 0; i < whole; i += LANES)
        *(lanes_t *)(out + i) = *(const lanes_t *)(slopes + i) * (*(const lanes_t *)(grad + i) - mean);
    if (whole < n) store_lanes(last * (g - mean), out + whole, n - whole);
}

/* What the gradient of alpha in (1, 2] sums over the support: p, p G, p ln p, and each times grad,
 * with s = p (1 + G). */
typedef struct {
    double p, growth, log, p_grad, growth_grad, log_grad;
} general_sums_t;

/* One vector of it; entries with p = 0 add nothing, NaN stays. */
static inline lanes_t add_slopes(lanes_t p, lanes_t g, float gap, lanes_t sums[6]) {
    const mask_t inside = p != 0;
    const lanes_t log = log2_lanes(pick(inside, p, splat(1)));
    const lanes_t growth = p * exp2_minus_1(-gap * log), information = p * log;
    sums[0] += p, sums[1] += growth, sums[2] += information;
    sums[3] += p * g, sums[4] += growth * g, sums[5] += information * g;
    return p + growth;
}

static general_sums_t general_slopes(const float *p, const float *grad, long n, float gap,
                                     float *slopes) {
    double t[6] = {0};
    for (long b = 0; b < n; b += 1024) {
        lanes_t sums[6];
        for (int k = 0; k < 6; k++) sums[k] = splat(0);
        const long e = b + 1024 < n ? b + 1024 : n, whole = e - (e - b) % LANES;
        for (long i = b; i < whole; i += LANES)
            *(lanes_t *)(slopes + i) = add_slopes(*(const lanes_t *)(p + i),
                                                  *(const lanes_t *)(grad + i), gap, sums);
        if (whole < e) {
            lanes_t v = splat(0), g = splat(0);
            memcpy(&v, p + whole, (e - whole) * sizeof(float));
            memcpy(&g, grad + whole, (e - whole) * sizeof(float));
            *(lanes_t *)(slopes + whole) = add_slopes(v, g, gap, sums);
        }
        for (int k = 0; k < 6; k++) t[k] += sum_of(sums[k]);
    }
    return (general_sums_t){t[0], t[1], t[2] * M_LN2, t[3], t[4], t[5] * M_LN2};
}

/* dz as above for alpha in (1, 2], and the gradient of alpha (Correia et al. 2019, eq. 10). */
static double jacobian_float(const float *p, const float *grad, long n, double alpha, float *slopes,
                             float *out) {
    const double gap = alpha - 1;
    const general_sums_t t = general_slopes(p, grad, n, (float)gap, slopes);
    const double slope = t.p + t.growth;
    const float mean = slope == 0 ? 0 : (float)((t.p_grad + t.growth_grad) / slope);
    for (long i = 0; i < n; i++) out[i] = slopes[i] * (grad[i] - mean);
    const double m = t.p == 0 ? 0 : t.growth / t.p;
    const double p_minus_s = (m * t.p_grad - t.growth_grad) / (1 + m);
    return p_minus_s / (gap * gap) - (t.log_grad - (t.p_grad - p_minus_s) * t.log) / gap;
}

/* The same for any alpha, in double: above 2, s spans many magnitudes. Gradients are taken relative
 * to that of the largest slope, which would cancel against the mean. */
static void jacobian_general(const float *p, const float *grad, long n, double alpha,
                             double *slopes, float *out) {
    double total = 0, dot = 0, largest = 0, shift = 0;
#pragma omp simd reduction(+ : total)
    for (long i = 0; i < n; i++) {
        double v = p[i], inside = v > 0 ? v : 1, zero = v == v ? 0 : v;
        double s = power_of(inside, 2 - alpha);
        s = s < 1e30 ? s : 1e30;
        s = v > 0 ? s : zero;
        slopes[i] = s;
        total += s;
    }
    for (long i = 0; i < n; i++)
        if (slopes[i] > largest) largest = slopes[i], shift = grad[i];
#pragma omp simd reduction(+ : dot)
    for (long i = 0; i < n; i++) dot += slopes[i] * (grad[i] - shift);
    double mean = total > 0 || total != total ? dot / total : 0;
    for (long i = 0; i < n; i++) out[i] = (float)(slopes[i] * (grad[i] - shift - mean));
}

static void jacobian_product(const float *p, const float *grad, long n, double alpha,
                             scratch_t *s, float *out, double *by_alpha) {
    if (by_alpha) *by_alpha = jacobian_float(p, grad, n, alpha, s->maxima, out);
    else if (alpha < 2 && alpha > 1.02 && alpha != 1.5)
        jacobian_float(p, grad, n, alpha, s->maxima, out);
    else if (alpha == 1.5) jacobian_closed(p, grad, n, 1, s->maxima, out);
    else if (alpha == 2) jacobian_closed(p, grad, n, 0, s->maxima, out);
    else jacobian_general(p, grad, n, alpha, s->wide, out);
}

/* The columns with p != 0 (NaN counts), or -1 when there are more than `limit`. */
static long support_of(const float *p, long n, long limit, int32_t *index) {
    long kept = 0;
    for (long begin = 0; begin < n; begin += GROUP) {
        long end = begin + GROUP < n ? begin + GROUP : n;
        int any = 0;
#pragma omp simd reduction(| : any)
        for (long i = begin; i < end; i++) any |= p[i] != 0;
        if (!any) continue;
        for (long i = begin; i < end; i++) {
            index[kept] = (int32_t)i;
            kept += p[i] != 0;
        }
        if (kept > limit) return -1;
    }
    return kept;
}

#define LONG_ROW 1024 /* from which on it pays to look for the support first */

static void backward_row(const float *p, const float *grad, long n, double alpha, scratch_t *s,
                         float *out, double *by_alpha) {
    long kept = n > LONG_ROW ? support_of(p, n, n / 8, s->index) : -1;
    if (kept < 0) {
        jacobian_product(p, grad, n, alpha, s, out, by_alpha);
        return;
    }
    for (long i = 0; i < kept; i++) {
        s->x[i] = p[s->index[i]];
        s->p[i] = grad[s->index[i]];
    }
    jacobian_product(s->x, s->p, kept, alpha, s, s->x, by_alpha);
    memset(out, 0, n * sizeof(float));
    for (long i = 0; i < kept; i++) out[s->index[i]] = s->x[i];
}

static void backward_body(void *data) {
    backward_t *job = data;
    const long n = job->rows.columns;
    scratch_t s, second;
    long begin, end;
    if (!scratch_new(&s, n)) {
        job->failed = 1;
        return;
    }
    if (!scratch_new(&second, job->rows.type == F32 ? 0 : n)) {
        scratch_free(&s);
        job->failed = 1;
        return;
    }
    while (take(&job->rows.work, &begin, &end))
        for (long row = begin; row < end; row++) {
            const float *p = load_row(job->p, row * n, n, job->rows.type, s.row);
            const float *grad = load_row(job->grad, row * n, n, job->rows.type, second.row);
            float *out = job->rows.type == F32 ? (float *)job->out + row * n : s.out;
            backward_row(p, grad, n, job->rows.alpha[row * job->rows.alpha_step], &s, out,
                         job->by_alpha ? job->by_alpha + row : NULL);
            store_row(job->out, row * n, n, job->rows.type, out);
        }
    scratch_free(&s);
    scratch_free(&second);
}

/* dz (rows, columns) from the probabilities and their gradient, and unless NULL that of each row's
 * alpha, where all of them lie in (1.02, 2]. */
int entmax_backward(const void *p, const void *grad, long rows, long columns, long type,
                    const double *alpha, long alpha_step, void *out, double *by_alpha,
                    long threads) {
    backward_t job = {rows_new(rows, columns, columns, type, alpha, alpha_step), p, grad, out,
                      by_alpha, 0};
    run(backward_body, &job, threads);
    return job.failed ? NO_MEMORY : 0;
}

typedef struct {
    rows_t rows;
    const void *z;
    loss_t out;
    atomic_int failed;
} loss_job_t;

static void loss_row(loss_t *o, long row, const float *z, long n, double alpha, scratch_t *s) {
    clear(o, row);
    if (o->target[row] < 0) return;
    solved_t r = solve_row(z, n, alpha, s);
    const float *candidates = r.count < 0 ? z : s->out;
    for (long i = 0; i < r.count; i++) s->out[i] = z[s->index[i]];
    record(o, row, &r, n, candidates, z[o->target[row]], alpha, s);
}

static void loss_body(void *data) {
    loss_job_t *job = data;
    const long n = job->rows.columns;
    scratch_t s;
    long begin, end;
    if (!scratch_new(&s, n)) {
        job->failed = 1;
        return;
    }
    while (take(&job->rows.work, &begin, &end))
        for (long row = begin; row < end; row++) {
            const float *z = load_row(job->z, row * job->rows.stride, n, job->rows.type, s.row);
            loss_row(&job->out, row, z, n, job->rows.alpha[row * job->rows.alpha_step], &s);
        }
    scratch_free(&s);
}

/* The unsmoothed loss of every row and its probabilities, compressed. */
int entmax_loss_forward(const void *z, long rows, long columns, long stride, long type,
                        const double *alpha, long alpha_step, const loss_t *out, long threads) {
    loss_job_t job = {rows_new(rows, columns, stride, type, alpha, alpha_step), z, *out, 0};
    job.rows.work.block = 8;
    run(loss_body, &job, threads);
    return job.failed ? NO_MEMORY : 0;
}

typedef struct {
    rows_t rows;
    const void *z;
    loss_t in;
    const float *grad;
    void *out;
    atomic_int failed;
} dense_job_t;

/* p of one row again, up to alpha = 2 from its threshold. */
static void probs_again(const float *z, long n, double alpha, float largest, double tau,
                        scratch_t *s, float *out) {
    if (tau != tau) { /* broken */
        for (long i = 0; i < n; i++) out[i] = NAN;
        return;
    }
    if (alpha == 1.5 || alpha == 2) {
        float scale = (float)(alpha - 1), t = (float)tau;
        for (long i = 0; i < n; i++) {
            float d = (z[i] - largest) * scale - t;
            d = d > 0 ? d : 0;
            out[i] = alpha == 1.5 ? d * d : d;
        }
        return;
    }
    write_probs_of(z, n, largest, tau, alpha, s);
    memcpy(out, s->p, n * sizeof(float));
}

static void dense_body(void *data) {
    dense_job_t *job = data;
    const long n = job->rows.columns;
    scratch_t s;
    long begin, end;
    if (!scratch_new(&s, n)) {
        job->failed = 1;
        return;
    }
    while (take(&job->rows.work, &begin, &end))
        for (long row = begin; row < end; row++) {
            const int64_t y = job->in.target[row];
            const long count = job->in.count[row];
            const float grad = job->grad[row];
            float *out = job->rows.type == F32 ? (float *)job->out + row * n : s.out;
            if (count >= 0) {
                const int32_t *index = job->in.index + row * job->in.capacity;
                const float *value = job->in.value + row * job->in.capacity;
                memset(out, 0, n * sizeof(float));
                for (long i = 0; i < count; i++) out[index[i]] = value[i] * grad;
            } else {
                const float *z = load_row(job->z, row * job->rows.stride, n, job->rows.type, s.row);
                probs_again(z, n, job->rows.alpha[row * job->rows.alpha_step],
                            job->in.largest[row], job->in.tau[row], &s, out);
                for (long i = 0; i < n; i++) out[i] *= grad;
            }
            if (y >= 0 && job->in.tau[row] < INFINITY) out[y] -= grad;
            store_row(job->out, row * n, n, job->rows.type, out);
        }
    scratch_free(&s);
}

/* The dense gradient grad (p - e_y) of every row. */
int entmax_loss_backward(const void *z, long rows, long columns, long stride, long type,
                         const double *alpha, long alpha_step, const loss_t *in,
                         const float *grad, void *out, long threads) {
    dense_job_t job = {rows_new(rows, columns, stride, type, alpha, alpha_step), z, *in, grad, out,
                       0};
    run(dense_body, &job, threads);
    return job.failed ? NO_MEMORY : 0;
}

/* What a library must be built from to be called by this package's Python. */
int entmax_abi(void) { return ENTMAX_ABI; }

int entmax_loss_size(void) { return (int)sizeof(loss_t); }

/* The best of the builds that this processor runs: 2 AVX-512, 1 AVX2, 0 any. */
int entmax_best_build(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

/* Whether the processor multiplies bfloat16 natively. */
int entmax_has_bf16(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return 0;
#endif
}
