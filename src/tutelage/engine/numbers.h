/* Numbers of the model's types, and e^x. */
#include <stdint.h>

#define ENOUGH 16384 /* elements from which several threads are worth waking */

static inline float from_bits(uint32_t bits) { union { uint32_t i; float f; } u = {bits}; return u.f; }
static inline uint32_t to_bits(float x) { union { float f; uint32_t i; } u = {x}; return u.i; }

/* bfloat16: the upper half of a float, rounded to the nearest, ties to even. */
static inline float wide_bf16(uint16_t x) { return from_bits((uint32_t)x << 16); }
static inline uint16_t narrow_bf16(float x) {
    uint32_t bits = to_bits(x);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return x != x ? 0x7FC0 : (uint16_t)rounded;
}
#define wide_f32(x) (x)
#define narrow_f32(x) (x)

/* Where e^x is still a normal number. Variables (of decoding.c) that nobody sets: with constants a compiler makes paths of
   their own for x beyond them, computes all paths for every x, and divides by e^88 what ends in subnormal numbers, each
   slower than a loop. */
extern float least_exponent, most_exponent;

/* e^x to a unit in the last place or two, without a call, so that loops over it become vector instructions. */
static inline float exponential(float x) {
    float clipped = x < least_exponent ? least_exponent : x;
    clipped = clipped > most_exponent ? most_exponent : clipped;
    float n = clipped * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the sum is rounded to a whole number */
    uint32_t power = to_bits(n) << 23;
    n -= 12582912.0f;
    float r = clipped - n * 0.693145752f - n * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return x != x ? x : from_bits(to_bits(p) + power);
}
