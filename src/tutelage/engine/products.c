/* Products of a few rows with weights in bfloat16, for processors with AVX-512's dot products of pairs. native.py compiles it.

   With the rows of a decoding step the weights are read once and little is computed with each: what counts is that they
   come in the order in which they are used, and that the sums stay in registers. Weights [N, K] are laid out as
   [N / COLUMNS][K / 2][COLUMNS][2]; where N is no multiple of COLUMNS, zeros follow. Tiles (AMX) are faster still, and torch has them. */
#include <stdint.h>

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#include <immintrin.h>

#define COLUMNS 32 /* outputs made together: two registers of 16 floats */
#define ROWS 12    /* whose sums, with the weights, fill the 32 registers */

int64_t has_products(void) { return 1; }

void lay_out(const uint16_t *restrict weights, uint16_t *restrict laid_out, int64_t outputs, int64_t inputs) {
    int64_t blocks = (outputs + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t k = 0; k < inputs; k += 2)
            for (int64_t j = 0; j < COLUMNS; j++) {
                uint16_t *to = laid_out + (block * inputs + k) * COLUMNS + 2 * j;
                int64_t n = block * COLUMNS + j;
                to[0] = n < outputs ? weights[n * inputs + k] : 0;
                to[1] = n < outputs ? weights[n * inputs + k + 1] : 0;
            }
}

/* `count` rows (known when this is compiled into its callers) by one block of outputs. */
static inline __attribute__((always_inline)) void tile(const int count, const uint16_t *x, const uint16_t *weights,
                                                       const __m512 *start, uint16_t *out, int64_t inputs,
                                                       int64_t outputs, __mmask16 first, __mmask16 second) {
    __m512 a[ROWS], b[ROWS];
#pragma GCC unroll 12
    for (int m = 0; m < count; m++) a[m] = start[0], b[m] = start[1];
    for (int64_t k = 0; k < inputs; k += 2) {
        __m512bh low = (__m512bh)_mm512_loadu_si512(weights + k * COLUMNS);
        __m512bh high = (__m512bh)_mm512_loadu_si512(weights + k * COLUMNS + COLUMNS);
        _mm_prefetch((const char *)(weights + k * COLUMNS) + 1024, _MM_HINT_T0);
        _mm_prefetch((const char *)(weights + k * COLUMNS) + 1088, _MM_HINT_T0);
#pragma GCC unroll 12
        for (int m = 0; m < count; m++) {
            int32_t pair;
            __builtin_memcpy(&pair, x + m * inputs + k, sizeof pair);
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            a[m] = _mm512_dpbf16_ps(a[m], low, both);
            b[m] = _mm512_dpbf16_ps(b[m], high, both);
        }
    }
#pragma GCC unroll 12
    for (int m = 0; m < count; m++) {
        _mm256_mask_storeu_epi16(out + m * outputs, first, (__m256i)_mm512_cvtneps_pbh(a[m]));
        _mm256_mask_storeu_epi16(out + m * outputs + 16, second, (__m256i)_mm512_cvtneps_pbh(b[m]));
    }
}

static void some_rows(int64_t count, const uint16_t *x, const uint16_t *weights, const __m512 *start, uint16_t *out,
                      int64_t inputs, int64_t outputs, __mmask16 first, __mmask16 second) {
#define CASE(n)                                                                          \
    case n:                                                                              \
        tile(n, x, weights, start, out, inputs, outputs, first, second);                 \
        break;
    switch (count) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
    }
#undef CASE
}

/* out [rows, outputs] = x [rows, inputs] W' + bias (where there is one); inputs is even. Sums are float. */
void product(const uint16_t *restrict x, const uint16_t *restrict laid_out, const uint16_t *restrict bias,
             uint16_t *restrict out, int64_t rows, int64_t outputs, int64_t inputs) {
    int64_t blocks = (outputs + COLUMNS - 1) / COLUMNS, parts = (rows + ROWS - 1) / ROWS;
    int64_t each = parts ? (rows + parts - 1) / parts : 0; /* rows of a part: of like number, as all read the block once more */
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t column = block * COLUMNS, left = outputs - column;
        __mmask16 first = left >= 16 ? 0xFFFF : (1u << left) - 1;
        __mmask16 second = left >= 32 ? 0xFFFF : left > 16 ? (1u << (left - 16)) - 1 : 0;
        float added[COLUMNS] = {0};
        for (int64_t j = 0; bias && j < COLUMNS && j < left; j++) {
            uint32_t bits = (uint32_t)bias[column + j] << 16;
            __builtin_memcpy(added + j, &bits, sizeof bits);
        }
        __m512 start[2] = {_mm512_loadu_ps(added), _mm512_loadu_ps(added + 16)};
        for (int64_t row = 0; row < rows; row += each)
            some_rows(rows - row < each ? rows - row : each, x + row * inputs, laid_out + block * COLUMNS * inputs, start,
                      out + row * outputs + column, inputs, outputs, first, second);
    }
}
#else
int64_t has_products(void) { return 0; }
#endif
