/* RMS norm, rotation and the gate of a feed-forward layer, forward and backward, each in one pass over memory. native.py compiles it;
   layers.py and decoding.py call it. Numbers are rounded where transformers rounds them: T is the model's type. */
#ifndef NAME
#include "numbers.h"

#define TOKENS 64 /* whose parts of a weight's gradient are summed together: the same sums whatever the number of threads */

#define SELF "layers.c"
#include "both_types.h"
#else

/* x += delta (where there is one);  r = 1 / sqrt(mean(x^2) + eps);  out = weight * (x r).
   x, delta, out: [rows, width]; inverses: [rows], the r, where they are wanted. */
void NAME(add_norm)(T *restrict x, const T *restrict delta, const T *restrict weight, T *restrict out,
                    float *restrict inverses, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for if (rows * width > ENOUGH)
    for (int64_t b = 0; b < rows; b++) {
        T *restrict row = x + b * width, *restrict written = out + b * width;
        float sum = 0;
        if (delta) {
            const T *restrict more = delta + b * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) row[i] = NARROW(WIDE(row[i]) + WIDE(more[i]));
        }
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += WIDE(row[i]) * WIDE(row[i]);
        float inverse = 1.0f / __builtin_sqrtf(sum / width + eps);
        if (inverses) inverses[b] = inverse;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) written[i] = NARROW(WIDE(weight[i]) * ROUNDED(WIDE(row[i]) * inverse));
    }
}

/* n = x r:  dx = r (w dy - n mean(w dy n)),  dw = sum over tokens of dy n, as sums of TOKENS of them: [rows / TOKENS, width]. */
void NAME(norm_backward)(const T *restrict x, const T *restrict weight, const float *restrict inverses,
                         const T *restrict grad, T *restrict grad_x, float *restrict grad_weights, int64_t rows,
                         int64_t width) {
#pragma omp parallel for if (rows * width > ENOUGH)
    for (int64_t first = 0; first < rows; first += TOKENS) {
        float *restrict sums = grad_weights + first / TOKENS * width;
        for (int64_t i = 0; i < width; i++) sums[i] = 0;
        for (int64_t b = first; b < rows && b < first + TOKENS; b++) {
            const T *restrict row = x + b * width, *restrict dy = grad + b * width;
            T *restrict dx = grad_x + b * width;
            float inverse = inverses[b], mean = 0;
#pragma omp simd reduction(+ : mean)
            for (int64_t i = 0; i < width; i++) mean += WIDE(dy[i]) * WIDE(weight[i]) * (WIDE(row[i]) * inverse);
            mean /= width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                float g = WIDE(dy[i]), n = WIDE(row[i]) * inverse;
                sums[i] += g * n;
                dx[i] = NARROW((g * WIDE(weight[i]) - n * mean) * inverse);
            }
        }
    }
}

/* out = silu(gate) * up. gate and up: [rows, width], a row every `stride` elements; out: [rows, width]. */
void NAME(gated)(const T *restrict gate, const T *restrict up, T *restrict out, int64_t rows, int64_t width, int64_t stride) {
#pragma omp parallel for if (rows * width > ENOUGH)
    for (int64_t b = 0; b < rows; b++) {
        const T *restrict g = gate + b * stride, *restrict u = up + b * stride;
        T *restrict written = out + b * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            float x = WIDE(g[i]);
            written[i] = NARROW(ROUNDED(x / (1.0f + exponential(-x))) * WIDE(u[i]));
        }
    }
}

/* h = silu(g) u:  du = dh silu(g),  dg = dh u s (1 + g (1 - s)),  s = 1 / (1 + e^-g). All [count]; dg lies where dh lay. */
void NAME(gated_backward)(const T *restrict gate, const T *restrict up, T *restrict grad, T *restrict grad_up,
                          T *restrict again, int64_t count) {
#pragma omp parallel for simd if (count > ENOUGH)
    for (int64_t i = 0; i < count; i++) {
        float g = WIDE(gate[i]), s = 1.0f / (1.0f + exponential(-g)), dh = WIDE(grad[i]), active = ROUNDED(g * s);
        again[i] = NARROW(active * WIDE(up[i]));
        grad_up[i] = NARROW(active * dh);
        grad[i] = NARROW(ROUNDED(dh * WIDE(up[i])) * s * (1.0f + g * (1.0f - s)));
    }
}

/* out = x cos + swapped(x) sin, swapped(x) = (-x_2, x_1) of its halves; backward its transpose, of the gradient x.
   x, out: [tokens, heads, size]; cos, sin: [tokens, size]. Every product and the sum are rounded. */
void NAME(rotate_all)(const T *restrict x, const T *restrict cos, const T *restrict sin, T *restrict out, int64_t tokens,
                      int64_t heads, int64_t size, int64_t backward) {
    int64_t half = size / 2;
    float sign = backward ? 1.0f : -1.0f;
#pragma omp parallel for if (tokens * heads * size > ENOUGH)
    for (int64_t t = 0; t < tokens; t++) {
        const T *c = cos + t * size, *s = sin + t * size, *first = backward ? s + half : s, *second = backward ? s : s + half;
        for (int64_t h = t * heads; h < (t + 1) * heads; h++) {
            const T *restrict from = x + h * size;
            T *restrict to = out + h * size;
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                float low = WIDE(from[i]), high = WIDE(from[i + half]);
                to[i] = NARROW(ROUNDED(low * WIDE(c[i])) + ROUNDED(sign * high * WIDE(first[i])));
                to[i + half] = NARROW(ROUNDED(high * WIDE(c[i + half])) + ROUNDED(-sign * low * WIDE(second[i])));
            }
        }
    }
}
#endif
