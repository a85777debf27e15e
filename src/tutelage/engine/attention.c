/* The weights of causal attention and their gradient, between the matrix products, each in one pass over memory. native.py
   compiles it; attention.py calls it. T is the model's type: products are rounded to it, what is computed here is float.

   Scores are [rows, count]: `block` queries, the last of a sequence's first `count` tokens, for each of rows / block heads.
   Query q of a block sees the first count - block + q + 1 keys. */
#ifndef NAME
#include "numbers.h"

#define T float
#define NAME(f) f##_f32
#include "attention.c"
#undef T
#undef NAME
#define T uint16_t
#define NAME(f) f##_bf16
#include "attention.c"
#else

#define WIDE NAME(wide)
#define NARROW NAME(narrow)

/* Where scores s lay: e^(scale s - most), 0 for keys that are not seen; totals: their sums; log_sums: log(totals) + most. */
void NAME(weigh)(T *restrict scores, float *restrict totals, float *restrict log_sums, int64_t rows, int64_t count,
                 int64_t block, float scale) {
#pragma omp parallel for schedule(static) if (rows * count > ENOUGH)
    for (int64_t r = 0; r < rows; r++) {
        T *restrict row = scores + r * count;
        int64_t seen = count - block + r % block + 1;
        float most = -3.0e38f, total = 0;
#pragma omp simd reduction(max : most)
        for (int64_t l = 0; l < seen; l++) most = WIDE(row[l]) * scale > most ? WIDE(row[l]) * scale : most;
#pragma omp simd reduction(+ : total)
        for (int64_t l = 0; l < seen; l++) {
            float one = exponential(WIDE(row[l]) * scale - most);
            total += one;
            row[l] = NARROW(one);
        }
        for (int64_t l = seen; l < count; l++) row[l] = 0;
        totals[r] = total;
        log_sums[r] = __builtin_logf(total) + most;
    }
}

/* P = e^(scale s - log_sum) where scores s lay;  scale P (dP - delta) where dP lay; 0 for keys that are not seen. */
void NAME(weigh_backward)(T *restrict scores, T *restrict slopes, const float *restrict log_sums,
                          const float *restrict deltas, int64_t rows, int64_t count, int64_t block, float scale) {
#pragma omp parallel for schedule(static) if (rows * count > ENOUGH)
    for (int64_t r = 0; r < rows; r++) {
        T *restrict row = scores + r * count, *restrict slope = slopes + r * count;
        int64_t seen = count - block + r % block + 1;
        float log_sum = log_sums[r], delta = deltas[r];
#pragma omp simd
        for (int64_t l = 0; l < seen; l++) {
            float one = exponential(WIDE(row[l]) * scale - log_sum);
            row[l] = NARROW(one);
            slope[l] = NARROW((WIDE(slope[l]) - delta) * one * scale);
        }
        for (int64_t l = seen; l < count; l++) row[l] = slope[l] = 0;
    }
}

#undef WIDE
#undef NARROW
#endif
