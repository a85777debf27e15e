/* What a decoding step does between its matrix products, on the processor. native.py compiles it; decoding.py calls it.

   Numbers are rounded where training rounds them: T is the model's type, sums are float.
   Suffixes of sizes: rows are sequences being decoded; a cache's slot is a row's number.
   Keys of a head lie with their positions side by side, [slot][key head][size][room], and room is a multiple of BLOCK;
   values are [slot][key head][room][size]. */
#ifndef NAME
#include <stdint.h>
#include <stdlib.h>

#define LANES 16
#define BLOCK 64 /* keys whose scores are summed together, in registers */
#define PART 256 /* weights that are summed before the sums are */
#define ENOUGH 16384 /* elements from which several threads are worth waking */
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Half __attribute__((vector_size(2 * LANES)));

static inline float from_bits(uint32_t bits) { union { uint32_t i; float f; } u = {bits}; return u.f; }
static inline uint32_t to_bits(float x) { union { float f; uint32_t i; } u = {x}; return u.i; }

/* e^x to a unit in the last place or two, without a call, so that loops over it become vector instructions. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the sum is rounded to a whole number */
    uint32_t power = to_bits(n) << 23;
    n -= 12582912.0f;
    float r = x - n * 0.693145752f - n * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return from_bits(to_bits(p) + power);
}

/* e^x for x <= 0, and nothing where it is next to nothing: of a token that is ruled out, whose logit is minus infinity. */
static inline float weight(float x) { return x < -87.0f ? 0.0f : exponential(x); }

/* bfloat16: the upper half of a float, rounded to the nearest, ties to even. */
static inline float wide_bf16(uint16_t x) { return from_bits((uint32_t)x << 16); }
static inline uint16_t narrow_bf16(float x) {
    uint32_t bits = to_bits(x);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return x != x ? 0x7FC0 : (uint16_t)rounded;
}
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
#define wide_f32(x) (x)
#define narrow_f32(x) (x)

#define T float
#define NAME(f) f##_f32
#include "decoding.c"
#undef T
#undef NAME
#define T uint16_t
#define NAME(f) f##_bf16
#include "decoding.c"
#else

#define WIDE NAME(wide)
#define NARROW NAME(narrow)
#define ROUNDED(x) WIDE(NARROW(x))

/* x += delta (where there is one);  out = weight * x / sqrt(mean(x^2) + eps). All [rows, width]. */
void NAME(add_norm)(T *restrict x, const T *restrict delta, const T *restrict weight, T *restrict out,
                    int64_t rows, int64_t width, float eps) {
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
#pragma omp simd
        for (int64_t i = 0; i < width; i++) written[i] = NARROW(WIDE(weight[i]) * ROUNDED(WIDE(row[i]) * inverse));
    }
}

/* out = silu(gate) * up; both [rows, width] halves of gate_up's rows. */
void NAME(gated)(const T *restrict gate_up, T *restrict out, int64_t rows, int64_t width) {
#pragma omp parallel for if (rows * width > ENOUGH)
    for (int64_t b = 0; b < rows; b++) {
        const T *restrict gate = gate_up + 2 * b * width, *restrict up = gate + width;
        T *restrict written = out + b * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            float g = WIDE(gate[i]);
            written[i] = NARROW(ROUNDED(g / (1.0f + exponential(-g))) * WIDE(up[i]));
        }
    }
}

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

/* scores[l] = sum over i of query[i] keys[i][l], for `count` keys (rounded up to whole blocks). */
static inline void NAME(scores)(const float *restrict query, const T *restrict keys, float *restrict scores,
                                int64_t count, int64_t size, int64_t room) {
    for (int64_t l = 0; l < count; l += BLOCK) {
        Lanes a = {0}, b = {0}, c = {0}, d = {0};
        for (int64_t i = 0; i < size; i++) {
            const T *at = keys + i * room + l;
            a += query[i] * NAME(lanes)(at);
            b += query[i] * NAME(lanes)(at + LANES);
            c += query[i] * NAME(lanes)(at + 2 * LANES);
            d += query[i] * NAME(lanes)(at + 3 * LANES);
        }
        __builtin_memcpy(scores + l, &a, sizeof a);
        __builtin_memcpy(scores + l + LANES, &b, sizeof b);
        __builtin_memcpy(scores + l + 2 * LANES, &c, sizeof c);
        __builtin_memcpy(scores + l + 3 * LANES, &d, sizeof d);
    }
}

/* One new token in each row: rotates queries and keys, appends keys and values at lengths[row], attends to all up to them.

   qkv: [rows, heads + 2 key_heads, size]; cos, sin: [rows, size]; out: [rows, heads, size]. 0, or 1 without memory. */
int NAME(attend)(const T *restrict qkv, T *restrict keys, T *restrict values, const T *restrict cos,
                 const T *restrict sin, const int64_t *restrict lengths, T *restrict out, int64_t rows,
                 int64_t heads, int64_t key_heads, int64_t size, int64_t room, float scale) {
    int64_t repeats = heads / key_heads, tile = size * room, failed = 0;
#pragma omp parallel for schedule(static) reduction(+ : failed) if (rows * heads * size > ENOUGH / 4)
    for (int64_t b = 0; b < rows; b++) {
        float *memory = malloc(sizeof(float) * (room + 2 * size));
        if (!memory) {
            failed++;
            continue;
        }
        float *restrict weights = memory, *restrict query = memory + room, *restrict mixed = query + size;
        int64_t at = lengths[b], count = at + 1;
        const T *row = qkv + b * (heads + 2 * key_heads) * size, *c = cos + b * size, *s = sin + b * size;
        for (int64_t g = 0; g < key_heads; g++) {
            T *key = keys + (b * key_heads + g) * tile, *value = values + (b * key_heads + g) * tile;
            NAME(rotate)(row + (heads + g) * size, c, s, query, size);
            for (int64_t i = 0; i < size; i++) key[i * room + at] = NARROW(query[i]);
            __builtin_memcpy(value + at * size, row + (heads + key_heads + g) * size, sizeof(T) * size);
            for (int64_t h = g * repeats; h < (g + 1) * repeats; h++) {
                NAME(rotate)(row + h * size, c, s, query, size);
                NAME(scores)(query, key, weights, count, size, room);
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
                for (int64_t i = 0; i < size; i++) mixed[i] = 0;
                for (int64_t l = 0; l < count; l++) {
                    const T *restrict one = value + l * size;
                    float share = weights[l];
#pragma omp simd
                    for (int64_t i = 0; i < size; i++) mixed[i] += share * WIDE(one[i]);
                }
                T *restrict written = out + (b * heads + h) * size;
#pragma omp simd
                for (int64_t i = 0; i < size; i++) written[i] = NARROW(ROUNDED(mixed[i]) / total);
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

#undef WIDE
#undef NARROW
#undef ROUNDED
#endif
