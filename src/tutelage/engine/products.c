/* Products of a few rows with weights in bfloat16, for processors with AVX-512's dot products of pairs. native.py compiles it.

   With the rows of a decoding step the weights are read once and little is computed with each: what counts is that they
   come in the order in which they are used, and that the sums stay in registers. Weights [N, K] are laid out as
   [N / COLUMNS][K / 2][COLUMNS][2]; where N is no multiple of COLUMNS, zeros follow. Where the processor has tiles (AMX),
   16 rows meet 16 pairs of 16 columns in one instruction; what is laid out is the same. */
#include <stdint.h>

#if defined(__AVX512BF16__)
#include <immintrin.h>

#define COLUMNS 32 /* outputs made together: two registers of 16 floats */
#define ROWS 12    /* whose sums, with the weights, fill the 32 registers */

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

/* What the rows of one call have in common. */
typedef struct {
    const uint16_t *x, *laid_out, *bias;
    uint16_t *out;
    int64_t rows, outputs, inputs;
} Call;

/* One block of outputs: where it begins, which of its columns there are, and what its sums begin with. */
typedef struct {
    const uint16_t *weights;
    uint16_t *out;
    __mmask16 mask[2];
    __m512 start[2];
} Block;

static Block block_of(const Call *call, int64_t number) {
    int64_t column = number * COLUMNS, left = call->outputs - column;
    float added[COLUMNS] = {0};
    for (int64_t j = 0; call->bias && j < COLUMNS && j < left; j++) {
        uint32_t bits = (uint32_t)call->bias[column + j] << 16;
        __builtin_memcpy(added + j, &bits, sizeof bits);
    }
    return (Block){call->laid_out + column * call->inputs,
                   call->out + column,
                   {left >= 16 ? 0xFFFF : (1u << left) - 1, left >= 32 ? 0xFFFF : left > 16 ? (1u << (left - 16)) - 1 : 0},
                   {_mm512_loadu_ps(added), _mm512_loadu_ps(added + 16)}};
}

static inline void store(uint16_t *out, __mmask16 mask, __m512 sums) {
    _mm256_mask_storeu_epi16(out, mask, (__m256i)_mm512_cvtneps_pbh(sums));
}

#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#define AHEAD 4096 /* bytes of weights that are fetched before they are used */
#define TILE 16    /* rows of a tile, and floats or pairs in a row of one */
enum { SUMS = 0, INPUTS = 4, WEIGHTS = 6 }; /* the first tiles of each kind: 2 x 2, 2 and 2 */

/* The kernel gives tiles to a process that asks for them. */
static int has_tiles(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    static int found = -1;
    if (found < 0) found = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return found;
}

static void set_tiles(int64_t rows) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int half = 0; half < 2; half++) {
        int64_t some = half ? rows - TILE : rows;
        uint8_t count = some > TILE ? TILE : some > 0 ? some : 1;
        for (int i = 0; i < 2; i++) config.rows[SUMS + 2 * half + i] = count, config.bytes[SUMS + 2 * half + i] = 64;
        config.rows[INPUTS + half] = count, config.bytes[INPUTS + half] = 64;
        config.rows[WEIGHTS + half] = TILE, config.bytes[WEIGHTS + half] = 64;
    }
    _tile_loadconfig(&config);
}

/* At most 32 rows by one block of outputs; inputs is a multiple of 32. */
static void rows_by_tiles(const Call *call, const Block *block, int64_t row, int64_t count) {
    const uint16_t *x = call->x + row * call->inputs, *lower = x + TILE * call->inputs;
    int64_t stride = call->inputs * sizeof *x;
    float sums[2][2][TILE][TILE] __attribute__((aligned(64)));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < call->inputs; k += 2 * TILE) {
        const uint16_t *weights = block->weights + k * COLUMNS;
        for (int line = 0; row == 0 && line < 2 * TILE; line++)
            _mm_prefetch((const char *)weights + AHEAD + 64 * line, _MM_HINT_T0);
        _tile_loadd(6, weights, 2 * COLUMNS * sizeof *weights);
        _tile_loadd(7, weights + 2 * TILE, 2 * COLUMNS * sizeof *weights);
        _tile_loadd(4, x + k, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (count > TILE) {
            _tile_loadd(5, lower + k, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums[0][0], TILE * sizeof(float));
    _tile_stored(1, sums[0][1], TILE * sizeof(float));
    if (count > TILE) {
        _tile_stored(2, sums[1][0], TILE * sizeof(float));
        _tile_stored(3, sums[1][1], TILE * sizeof(float));
    }
    for (int64_t m = 0; m < count; m++)
        for (int half = 0; half < 2; half++) {
            __m512 sum = _mm512_add_ps(_mm512_load_ps(sums[m / TILE][half][m % TILE]), block->start[half]);
            store(block->out + (row + m) * call->outputs + half * TILE, block->mask[half], sum);
        }
}

static void by_tiles(const Call *call) {
    int64_t blocks = (call->outputs + COLUMNS - 1) / COLUMNS, parts = (call->rows + 2 * TILE - 1) / (2 * TILE);
    int64_t each = parts ? (call->rows + parts - 1) / parts : 0;
#pragma omp parallel
    {
        int64_t set = 0;
#pragma omp for schedule(static)
        for (int64_t number = 0; number < blocks; number++) {
            Block block = block_of(call, number);
            for (int64_t row = 0; row < call->rows; row += each) {
                int64_t count = call->rows - row < each ? call->rows - row : each;
                if (count != set) set_tiles(set = count);
                rows_by_tiles(call, &block, row, count);
            }
        }
        _tile_release();
    }
}
#else
static int has_tiles(void) { return 0; }
static void by_tiles(const Call *call) { (void)call; }
#endif

/* `count` rows (known when this is compiled into its callers) by one block of outputs. */
static inline __attribute__((always_inline)) void rows_by_vectors(const int count, const Call *call, const Block *block,
                                                                  int64_t row) {
    __m512 a[ROWS], b[ROWS];
    const uint16_t *x = call->x + row * call->inputs;
#pragma GCC unroll 12
    for (int m = 0; m < count; m++) a[m] = block->start[0], b[m] = block->start[1];
    for (int64_t k = 0; k < call->inputs; k += 2) {
        const uint16_t *weights = block->weights + k * COLUMNS;
        __m512bh low = (__m512bh)_mm512_loadu_si512(weights);
        __m512bh high = (__m512bh)_mm512_loadu_si512(weights + COLUMNS);
        _mm_prefetch((const char *)weights + 1024, _MM_HINT_T0);
        _mm_prefetch((const char *)weights + 1088, _MM_HINT_T0);
#pragma GCC unroll 12
        for (int m = 0; m < count; m++) {
            int32_t pair;
            __builtin_memcpy(&pair, x + m * call->inputs + k, sizeof pair);
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            a[m] = _mm512_dpbf16_ps(a[m], low, both);
            b[m] = _mm512_dpbf16_ps(b[m], high, both);
        }
    }
#pragma GCC unroll 12
    for (int m = 0; m < count; m++) {
        uint16_t *out = block->out + (row + m) * call->outputs;
        store(out, block->mask[0], a[m]);
        store(out + 16, block->mask[1], b[m]);
    }
}

static void some_rows(int64_t count, const Call *call, const Block *block, int64_t row) {
#define CASE(n)                                \
    case n:                                    \
        rows_by_vectors(n, call, block, row); \
        break;
    switch (count) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
    }
#undef CASE
}

static void by_vectors(const Call *call) {
    int64_t blocks = (call->outputs + COLUMNS - 1) / COLUMNS, parts = (call->rows + ROWS - 1) / ROWS;
    int64_t each = parts ? (call->rows + parts - 1) / parts : 0; /* of like number, as all read the block once more */
#pragma omp parallel for schedule(static)
    for (int64_t number = 0; number < blocks; number++) {
        Block block = block_of(call, number);
        for (int64_t row = 0; row < call->rows; row += each)
            some_rows(call->rows - row < each ? call->rows - row : each, call, &block, row);
    }
}

/* out [rows, outputs] = x [rows, inputs] W' + bias (where there is one); inputs is even. Sums are float. */
void product(const uint16_t *restrict x, const uint16_t *restrict laid_out, const uint16_t *restrict bias,
             uint16_t *restrict out, int64_t rows, int64_t outputs, int64_t inputs) {
    Call call = {x, laid_out, bias, out, rows, outputs, inputs};
    if (inputs % 32 == 0 && has_tiles())
        by_tiles(&call);
    else
        by_vectors(&call);
}

int64_t has_products(void) { return 1; }
#else
int64_t has_products(void) { return 0; }
#endif
