/* Adam's update of weights in bfloat16 with float32 copies, in one pass over memory: reading and writing is all that it costs.
   native.py compiles it; optimizer.py calls it. T is the gradient's type. */
#ifndef NAME
#include "numbers.h"

#define CHUNK 16384 /* elements that a thread takes at a time */

#define SELF "adam.c"
#include "both_types.h"
#else

/* The sum of squares of each chunk, so that the sum of all is the same whatever the number of threads. */
void NAME(squares)(const T *restrict gradient, double *restrict sums, int64_t count) {
#pragma omp parallel for if (count > 2 * CHUNK)
    for (int64_t first = 0; first < count; first += CHUNK) {
        int64_t last = first + CHUNK < count ? first + CHUNK : count;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = first; i < last; i++) sum += WIDE(gradient[i]) * WIDE(gradient[i]);
        sums[first / CHUNK] = sum;
    }
}

/* Loshchilov and Hutter 2019, algorithm 2:  g = clip * gradient;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;
   w = kept * w - rate * m / (sqrt(v) / root + eps),  with kept = 1 - lr * decay, rate = lr / (1 - beta1^t), root^2 = 1 - beta2^t. */
void NAME(adam)(float *restrict master, float *restrict mean, float *restrict square, const T *restrict gradient,
                uint16_t *restrict weight, int64_t count, float clip, float beta1, float beta2, float kept, float rate,
                float root, float eps) {
#pragma omp parallel for if (count > 2 * CHUNK)
    for (int64_t first = 0; first < count; first += CHUNK) {
        int64_t last = first + CHUNK < count ? first + CHUNK : count;
#pragma omp simd
        for (int64_t i = first; i < last; i++) {
            float g = clip * WIDE(gradient[i]);
            float m = mean[i] + (1 - beta1) * (g - mean[i]);
            float v = beta2 * square[i] + (1 - beta2) * g * g;
            float w = kept * master[i] - rate * m / (__builtin_sqrtf(v) / root + eps);
            mean[i] = m, square[i] = v, master[i] = w, weight[i] = narrow_bf16(w);
        }
    }
}
#endif
