/* Attention of a decoding step, and its draw, on the processor. native.py compiles it; decoding.py calls it.

   Numbers are rounded where training rounds them: T is the model's type, sums are float.
   Suffixes of sizes: rows are sequences being decoded; a cache's slot is a row's number.
   Keys of a head lie with their positions side by side, [slot][key head][size][room], and room is a multiple of BLOCK;
   values are [slot][key head][room][size]. */
#ifndef NAME
#include <stdlib.h>

#include "numbers.h"

#define LANES 16
#define BLOCK 64 /* keys whose scores are summed together, in registers */
#define TOGETHER 4 /* heads that read a key at once */
#define PART 256 /* weights that are summed before the sums are */
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Half __attribute__((vector_size(2 * LANES)));

float least_exponent = -87.0f, most_exponent = 88.0f; /* of numbers.h */

/* e^x for x <= 0, and nothing where it is next to nothing: of a token that is ruled out, whose logit is minus infinity. */
static inline float weight(float x) { return x < -87.0f ? 0.0f : exponential(x); }

static inline Lanes lanes_bf16(const uint16_t *p) {
    Half half;
    __builtin_memcpy(&half, p, sizeof half);
    return (Lanes)(__builtin_convertvector(half, Bits) << 16);
}
static inline Lanes lanes_f32(const float *p) {
    Lanes lanes;
    __builtin_memcpy(&lanes, p, sizeof lanes);
    return lanes;
}

#define SELF "decoding.c"
#include "both_types.h"
#else

/* x cos + (its halves swapped, the first one's sign turned) sin, every product and the sum rounded. */
static inline void NAME(rotate)(const T *restrict x, const T *restrict cos, const T *restrict sin,
                                float *restrict out, int64_t size) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        float low = WIDE(x[i]), high = WIDE(x[i + half]);
        out[i] = ROUNDED(ROUNDED(low * WIDE(cos[i])) + ROUNDED(-high * WIDE(sin[i])));
        out[i + half] = ROUNDED(ROUNDED(high * WIDE(cos[i + half])) + ROUNDED(low * WIDE(sin[i + half])));
    }
}

/* scores[n][l] = sum over i of queries[n][i] keys[i][l], of `together` heads (known when this is compiled into its callers)
   that read the same keys; for `count` keys, rounded up to whole blocks. */
static inline __attribute__((always_inline)) void NAME(scores)(const int together, const float *queries, const T *keys,
                                                               float *scores, int64_t count, int64_t size, int64_t room) {
    for (int64_t l = 0; l < count; l += BLOCK) {
        Lanes sums[TOGETHER][BLOCK / LANES] = {0};
        for (int64_t i = 0; i < size; i++)
#pragma GCC unroll 4
            for (int j = 0; j < BLOCK / LANES; j++) {
                Lanes some = NAME(lanes)(keys + i * room + l + j * LANES);
#pragma GCC unroll 4
                for (int n = 0; n < together; n++) sums[n][j] += queries[n * size + i] * some;
            }
#pragma GCC unroll 4
        for (int n = 0; n < together; n++) __builtin_memcpy(scores + n * room + l, sums[n], sizeof sums[n]);
    }
}

/* Scores [count] become weights e^(score * scale - the largest) where they lie; returns their sum. */
static inline float NAME(weigh)(float *restrict weights, int64_t count, float scale) {
    float most = -3.0e38f, total = 0;
#pragma omp simd reduction(max : most)
    for (int64_t l = 0; l < count; l++) {
        weights[l] = ROUNDED(weights[l]) * scale;
        most = weights[l] > most ? weights[l] : most;
    }
#pragma omp simd reduction(+ : total)
    for (int64_t l = 0; l < count; l++) {
        float one = exponential(weights[l] - most);
        total += one;
        weights[l] = ROUNDED(one);
    }
    return total;
}

/* out[n][i] = (sum over l of weights[n][l] values[l][i]) / totals[n], of `together` heads that read the same values. */
static inline __attribute__((always_inline)) void NAME(mix)(const int together, const float *weights, const T *values,
                                                            const float *totals, T *out, int64_t count, int64_t size,
                                                            int64_t room) {
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        Lanes even[TOGETHER] = {0}, odd[TOGETHER] = {0}; /* apart, as one sum would have to wait for itself */
        for (int64_t l = 0; l < count; l += 2) {
            Lanes one = NAME(lanes)(values + l * size + i), other = {0};
            if (l + 1 < count) other = NAME(lanes)(values + (l + 1) * size + i);
#pragma GCC unroll 4
            for (int n = 0; n < together; n++) {
                even[n] += weights[n * room + l] * one;
                odd[n] += (l + 1 < count ? weights[n * room + l + 1] : 0) * other;
            }
        }
        for (int n = 0; n < together; n++)
            for (int j = 0; j < LANES; j++) out[n * size + i + j] = NARROW(ROUNDED(even[n][j] + odd[n][j]) / totals[n]);
    }
    for (; i < size; i++)
        for (int n = 0; n < together; n++) {
            float sum = 0;
            for (int64_t l = 0; l < count; l++) sum += weights[n * room + l] * WIDE(values[l * size + i]);
            out[n * size + i] = NARROW(ROUNDED(sum) / totals[n]);
        }
}

/* Attention of at most TOGETHER heads with the same keys and values; queries are rotated. */
static void NAME(heads)(int together, const float *queries, const T *keys, const T *values, float *weights, T *out,
                        int64_t count, int64_t size, int64_t room, float scale) {
    float totals[TOGETHER];
#define CASE(n)                                                                          \
    case n:                                                                              \
        NAME(scores)(n, queries, keys, weights, count, size, room);                      \
        for (int m = 0; m < n; m++) totals[m] = NAME(weigh)(weights + m * room, count, scale); \
        NAME(mix)(n, weights, values, totals, out, count, size, room);                   \
        break;
    switch (together) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
}

/* One new token in each row: rotates queries and keys, appends keys and values at lengths[row], attends to all up to them.

   qkv: [rows, heads + 2 key_heads, size]; cos, sin: [rows, size]; out: [rows, heads, size]. 0, or 1 without memory. */
int NAME(attend)(const T *restrict qkv, T *restrict keys, T *restrict values, const T *restrict cos,
                 const T *restrict sin, const int64_t *restrict lengths, T *restrict out, int64_t rows,
                 int64_t heads, int64_t key_heads, int64_t size, int64_t room, float scale) {
    int64_t repeats = heads / key_heads, tile = size * room, failed = 0;
#pragma omp parallel for schedule(static) reduction(+ : failed) if (rows * heads * size > ENOUGH / 4)
    for (int64_t b = 0; b < rows; b++) {
        float *memory = malloc(sizeof(float) * TOGETHER * (room + size));
        if (!memory) {
            failed++;
            continue;
        }
        float *weights = memory, *queries = memory + TOGETHER * room;
        int64_t at = lengths[b];
        const T *row = qkv + b * (heads + 2 * key_heads) * size, *c = cos + b * size, *s = sin + b * size;
        for (int64_t g = 0; g < key_heads; g++) {
            T *key = keys + (b * key_heads + g) * tile, *value = values + (b * key_heads + g) * tile;
            NAME(rotate)(row + (heads + g) * size, c, s, queries, size);
            for (int64_t i = 0; i < size; i++) key[i * room + at] = NARROW(queries[i]);
            __builtin_memcpy(value + at * size, row + (heads + key_heads + g) * size, sizeof(T) * size);
            for (int64_t h = g * repeats, last = h + repeats; h < last; h += TOGETHER) {
                int64_t together = last - h < TOGETHER ? last - h : TOGETHER;
                for (int64_t n = 0; n < together; n++) NAME(rotate)(row + (h + n) * size, c, s, queries + n * size, size);
                NAME(heads)(together, queries, key, value, weights, out + (b * heads + h) * size, at + 1, size, room, scale);
            }
        }
        free(memory);
    }
    return failed != 0;
}

/* Of each row of logits [rows, vocabulary] / temperature: the token at which the cumulative weight passes uniform times
   the whole, and its log-probability. Weights are summed by parts, and looked at one by one in the part where it passes. */
void NAME(draw)(const T *restrict logits, const float *restrict uniform, int64_t *restrict tokens,
                float *restrict logprobs, int64_t rows, int64_t vocabulary, float temperature) {
    int64_t parts = (vocabulary + PART - 1) / PART;
#pragma omp parallel for schedule(static) if (rows * vocabulary > ENOUGH)
    for (int64_t b = 0; b < rows; b++) {
        const T *row = logits + b * vocabulary;
        float most = -3.0e38f, sums[parts];
        double total = 0, before = 0;
#pragma omp simd reduction(max : most)
        for (int64_t i = 0; i < vocabulary; i++) most = WIDE(row[i]) > most ? WIDE(row[i]) : most;
        for (int64_t part = 0; part < parts; part++) {
            int64_t last = (part + 1) * PART < vocabulary ? (part + 1) * PART : vocabulary;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = part * PART; i < last; i++) sum += weight((WIDE(row[i]) - most) / temperature);
            sums[part] = sum;
            total += sum;
        }
        double point = uniform[b] * total;
        int64_t part = 0, found = -1;
        while (part + 1 < parts && before + sums[part] <= point) before += sums[part++];
        while (found < 0 && part >= 0) { /* a part without weight, which rounding may lead to, is left for the one before */
            for (int64_t i = part * PART; i < (part + 1) * PART && i < vocabulary && before <= point; i++) {
                float one = weight((WIDE(row[i]) - most) / temperature);
                before += one;
                found = one > 0 ? i : found;
            }
            part--;
        }
        tokens[b] = found < 0 ? 0 : found;
        logprobs[b] = (WIDE(row[tokens[b]]) - most) / temperature - (float)__builtin_log(total);
    }
}
#endif
