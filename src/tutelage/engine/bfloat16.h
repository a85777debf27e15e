/* bfloat16: the upper half of a float, rounded to the nearest, ties to even. */
#include <stdint.h>

static inline float from_bits(uint32_t bits) { union { uint32_t i; float f; } u = {bits}; return u.f; }
static inline uint32_t to_bits(float x) { union { float f; uint32_t i; } u = {x}; return u.i; }

static inline float wide_bf16(uint16_t x) { return from_bits((uint32_t)x << 16); }
static inline uint16_t narrow_bf16(float x) {
    uint32_t bits = to_bits(x);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return x != x ? 0x7FC0 : (uint16_t)rounded;
}
#define wide_f32(x) (x)
#define narrow_f32(x) (x)
