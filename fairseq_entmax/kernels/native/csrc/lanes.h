/* Vectors as wide as the processor's, and their parts in memory. */
#ifndef FAIRSEQ_ENTMAX_LANES_H
#define FAIRSEQ_ENTMAX_LANES_H

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "common.h"

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

typedef float lanes_t __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t mask_t __attribute__((vector_size(4 * LANES), aligned(4)));

/* As wide, of numbers twice as long. */
typedef float half_lanes_t __attribute__((vector_size(2 * LANES), aligned(4)));
typedef double doubles_t __attribute__((vector_size(4 * LANES)));
typedef int64_t wide_mask_t __attribute__((vector_size(4 * LANES)));

static inline lanes_t splat(float f) { return f - (lanes_t){0}; }

static inline lanes_t pick(mask_t mask, lanes_t yes, lanes_t no) {
    return (lanes_t)((mask & (mask_t)yes) | (~mask & (mask_t)no));
}

static inline lanes_t one_where_positive(lanes_t d) { return -__builtin_convertvector(d > 0, lanes_t); }

#ifdef __AVX512F__
static inline lanes_t larger(lanes_t a, lanes_t b) { return (lanes_t)_mm512_max_ps((__m512)a, (__m512)b); }
static inline lanes_t roots(lanes_t x) { return (lanes_t)_mm512_sqrt_ps((__m512)x); }
#elif defined(__AVX2__)
static inline lanes_t larger(lanes_t a, lanes_t b) {
    return (lanes_t)_mm256_max_ps((__m256)a, (__m256)b);
}
static inline lanes_t roots(lanes_t x) { return (lanes_t)_mm256_sqrt_ps((__m256)x); }
#else
static inline lanes_t larger(lanes_t a, lanes_t b) { return pick(a > b, a, b); }
static inline lanes_t roots(lanes_t x) {
    lanes_t r;
    for (int i = 0; i < LANES; i++) r[i] = sqrtf(x[i]);
    return r;
}
#endif

/* By halves: adding lane by lane waits for each. */
static inline float sum_lanes(lanes_t v) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)v);
#else
    v += __builtin_shuffle(v, (mask_t){4, 5, 6, 7, 0, 1, 2, 3});
    v += __builtin_shuffle(v, (mask_t){2, 3, 0, 1, 6, 7, 4, 5});
    return v[0] + v[1];
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
static const mask_t counting = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

/* Up to LANES entries of a row, padded, in a register from the start: what is put together in
 * memory is copied from there word by word. */
static inline lanes_t load_lanes(const float *from, long width, float padding) {
    if (width == LANES) return *(const lanes_t *)from;
#ifdef __AVX512F__
    const __mmask16 inside = (__mmask16)((1 << width) - 1);
    return (lanes_t)_mm512_mask_loadu_ps((__m512)splat(padding), inside, from);
#elif defined(__AVX2__)
    const __m256i inside = (__m256i)(counting < (int32_t)width);
    const __m256 v = _mm256_maskload_ps(from, inside);
    return (lanes_t)_mm256_blendv_ps((__m256)splat(padding), v, (__m256)inside);
#else
    lanes_t v = splat(padding);
    memcpy(&v, from, width * sizeof(float));
    return v;
#endif
}

static inline void store_lanes(lanes_t v, float *to, long width) {
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(to, (__mmask16)((1 << width) - 1), (__m512)v);
#elif defined(__AVX2__)
    if (width == LANES) *(lanes_t *)to = v;
    else _mm256_maskstore_ps(to, (__m256i)(counting < (int32_t)width), (__m256)v);
#else
    memcpy(to, &v, width * sizeof(float));
#endif
}

#endif
