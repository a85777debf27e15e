/* The softmax over a vocabulary and its gradient, in as few passes over the logits as they need. native.py compiles it;
   logprobs.py calls it. T is the logits' type; sums are float. Logits are [rows, width]; `cold` is 1 / temperature. */
#ifndef NAME
#include "numbers.h"

#define SELF "logprobs.c"
#include "both_types.h"
#else

/* log z = log sum of e^x and the entropy log z - sum of p x, x = cold * logits, p = e^x / z. */
void NAME(partition)(const T *restrict logits, float *restrict log_z, float *restrict entropy, int64_t rows, int64_t width,
                     float cold) {
#pragma omp parallel for schedule(static) if (rows * width > ENOUGH)
    for (int64_t r = 0; r < rows; r++) {
        const T *row = logits + r * width;
        float most = -3.0e38f, total = 0, mixed = 0;
#pragma omp simd reduction(max : most)
        for (int64_t i = 0; i < width; i++) most = WIDE(row[i]) > most ? WIDE(row[i]) : most;
#pragma omp simd reduction(+ : total, mixed)
        for (int64_t i = 0; i < width; i++) {
            float x = (WIDE(row[i]) - most) * cold, one = exponential(x);
            total += one;
            mixed += x > -87.0f ? one * x : 0; /* not of a token that is ruled out, whose logit is minus infinity */
        }
        float log_total = __builtin_logf(total);
        log_z[r] = most * cold + log_total;
        entropy[r] = log_total - mixed / total;
    }
}

/* cold (onehot(target) - e^(cold logit - log z)), the gradient of the target's log-probability, where the logits lay. */
void NAME(unit_gradient)(T *restrict logits, const float *restrict log_z, const int64_t *restrict targets, int64_t rows,
                         int64_t width, float cold) {
#pragma omp parallel for schedule(static) if (rows * width > ENOUGH)
    for (int64_t r = 0; r < rows; r++) {
        T *row = logits + r * width;
        float log_sum = log_z[r], target = exponential(WIDE(row[targets[r]]) * cold - log_sum);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) row[i] = NARROW(-cold * exponential(WIDE(row[i]) * cold - log_sum));
        row[targets[r]] = NARROW(cold * (1.0f - target));
    }
}
#endif
