/* Shared by the kernels: types, threads, scratch memory, 16-bit conversion. */
#ifndef FAIRSEQ_ENTMAX_COMMON_H
#define FAIRSEQ_ENTMAX_COMMON_H

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ENTMAX_ABI 6 /* raised with every change of arguments; ABI of library.py */
#define NO_MEMORY (-1) /* what a kernel returns then; else 0, or what it counts */
#define GROUP 64 /* entries whose maximum certifies that none of them is in the support */

typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t v16i __attribute__((vector_size(64), aligned(4)));

/* The signature of GOMP_parallel, which every OpenMP runtime exports. */
typedef void (*parallel_fn)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

/* A range of items handed out in blocks to whichever thread is free. */
typedef struct {
    atomic_long next;
    long total, block;
} work_t;

static inline int take(work_t *work, long *begin, long *end) {
    long start = atomic_fetch_add(&work->next, work->block);
    if (start >= work->total) return 0;
    *begin = start;
    *end = start + work->block < work->total ? start + work->block : work->total;
    return 1;
}

void run(void (*body)(void *), void *data, long threads);

enum { F32 = 0, BF16 = 1, F16 = 2 };

static inline float bf16_to_float(uint16_t h) {
    union { uint32_t u; float f; } x = {(uint32_t)h << 16};
    return x.f;
}

static inline float f16_to_float(uint16_t h) {
    union { uint32_t u; float f; } x = {(uint32_t)(h & 0x7fff) << 13};
    x.f *= 0x1p112f; /* also right for subnormals */
    if ((h & 0x7c00) == 0x7c00) x.u |= 0x7f800000;
    x.u |= (uint32_t)(h & 0x8000) << 16;
    return x.f;
}

static inline uint16_t float_to_bf16(float f) {
    union { float f; uint32_t u; } x = {f};
    if (f != f) return 0x7fc0;
    return (uint16_t)((x.u + 0x7fff + ((x.u >> 16) & 1)) >> 16);
}

static inline uint16_t float_to_f16(float f) {
    union { float f; uint32_t u; } x = {fabsf(f) * 0x1p-112f}, small = {fabsf(f) + 0.5f};
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    if (f != f) return 0x7e00;
    if (fabsf(f) >= 65520.f) return sign | 0x7c00;
    /* subnormal: the last bit of 0.5 is that of their fixed point */
    if (fabsf(f) < 0x1p-14f) return sign | (uint16_t)(small.u - 0x3f000000);
    return sign | (uint16_t)((x.u + 0xfff + ((x.u >> 13) & 1)) >> 13);
}

static inline const float *load_row(const void *base, long offset, long n, long type, float *buffer) {
    if (type == F32) return (const float *)base + offset;
    const uint16_t *row = (const uint16_t *)base + offset;
    if (type == BF16)
        for (long i = 0; i < n; i++) buffer[i] = bf16_to_float(row[i]);
    else
        for (long i = 0; i < n; i++) buffer[i] = f16_to_float(row[i]);
    return buffer;
}

static inline void store_row(void *base, long offset, long n, long type, const float *row) {
    if (type == F32) {
        if ((float *)base + offset != row) memcpy((float *)base + offset, row, n * sizeof(float));
        return;
    }
    uint16_t *out = (uint16_t *)base + offset;
    if (type == BF16)
        for (long i = 0; i < n; i++) out[i] = float_to_bf16(row[i]);
    else
        for (long i = 0; i < n; i++) out[i] = float_to_f16(row[i]);
}

#endif
