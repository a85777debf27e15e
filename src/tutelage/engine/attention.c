/* The weights of causal attention and their gradient, between the matrix products, each in one pass over memory. native.py
   compiles it; attention.py calls it. T is the model's type: products are rounded to it, what is computed here is float.

   Scores are [rows, count]: `block` queries, the last of a sequence's first `count` tokens, for each of rows / block heads.
   Query q of a block sees the first count - block + q + 1 keys. */
#ifndef NAME
#include "numbers.h"

#define SOME 32 /* rows are copied to a multiple of it, as the rest of a loop that does not fill a vector is slow */
#define LEAST -3.0e38f

#define SELF "attention.c"
#include "both_types.h"
#else

/* Where scores s lay: e^(scale s - most), 0 for keys that are not seen; mosts: the largest scale s; totals: the sums. */
void NAME(weigh)(T *restrict scores, float *restrict totals, float *restrict mosts, int64_t rows, int64_t count,
                 int64_t block, float scale) {
#pragma omp parallel for schedule(static) if (rows * count > ENOUGH)
    for (int64_t r = 0; r < rows; r++) {
        T *row = scores + r * count;
        int64_t seen = count - block + r % block + 1, whole = (seen + SOME - 1) / SOME * SOME;
        T own[whole];
        float most = LEAST, total = 0;
        __builtin_memcpy(own, row, seen * sizeof *row);
        for (int64_t l = seen; l < whole; l++) own[l] = NARROW(LEAST);
#pragma omp simd reduction(max : most)
        for (int64_t l = 0; l < whole; l++) most = WIDE(own[l]) * scale > most ? WIDE(own[l]) * scale : most;
#pragma omp simd reduction(+ : total)
        for (int64_t l = 0; l < whole; l++) {
            float one = exponential(WIDE(own[l]) * scale - most); /* next to nothing, 1e-38, beyond what is seen */
            total += one;
            own[l] = NARROW(one);
        }
        __builtin_memcpy(row, own, seen * sizeof *row);
        __builtin_memset(row + seen, 0, (count - seen) * sizeof *row);
        totals[r] = total, mosts[r] = most;
    }
}

/* out[n][h][q] = mixed / total; mixed: [sequences, heads, block, size], out with strides, in elements, of those but the last. */
void NAME(settle)(const T *restrict mixed, const float *restrict totals, T *restrict out, int64_t sequences, int64_t heads,
                  int64_t block, int64_t size, int64_t by_sequence, int64_t by_head, int64_t by_query) {
#pragma omp parallel for collapse(2) if (sequences * heads * block * size > ENOUGH)
    for (int64_t n = 0; n < sequences; n++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t q = 0; q < block; q++) {
                int64_t r = (n * heads + h) * block + q;
                const T *restrict from = mixed + r * size;
                T *restrict to = out + n * by_sequence + h * by_head + q * by_query;
                float total = totals[r];
#pragma omp simd
                for (int64_t i = 0; i < size; i++) to[i] = NARROW(WIDE(from[i]) / total);
            }
}

/* P = e^(scale s - log_sum) where scores s lay;  scale P (dP - delta) where dP lay; 0 for keys that are not seen. */
void NAME(weigh_backward)(T *restrict scores, T *restrict slopes, const float *restrict log_sums,
                          const float *restrict deltas, int64_t rows, int64_t count, int64_t block, float scale) {
#pragma omp parallel for schedule(static) if (rows * count > ENOUGH)
    for (int64_t r = 0; r < rows; r++) {
        T *row = scores + r * count, *slope = slopes + r * count;
        int64_t seen = count - block + r % block + 1, whole = (seen + SOME - 1) / SOME * SOME;
        T own[whole], steep[whole];
        float log_sum = log_sums[r], delta = deltas[r];
        __builtin_memcpy(own, row, seen * sizeof *row);
        __builtin_memcpy(steep, slope, seen * sizeof *row);
        for (int64_t l = seen; l < whole; l++) own[l] = steep[l] = 0;
#pragma omp simd
        for (int64_t l = 0; l < whole; l++) {
            float one = exponential(WIDE(own[l]) * scale - log_sum);
            own[l] = NARROW(one);
            steep[l] = NARROW((WIDE(steep[l]) - delta) * one * scale);
        }
        __builtin_memcpy(row, own, seen * sizeof *row);
        __builtin_memcpy(slope, steep, seen * sizeof *row);
        __builtin_memset(row + seen, 0, (count - seen) * sizeof *row);
        __builtin_memset(slope + seen, 0, (count - seen) * sizeof *row);
    }
}
#endif
