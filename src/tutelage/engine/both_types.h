/* Reads SELF, the file that includes this, once for each of the model's types: T, with its name in every function's, and
   WIDE, NARROW and ROUNDED between it and float. */
#define WIDE NAME(wide)
#define NARROW NAME(narrow)
#define ROUNDED(x) WIDE(NARROW(x))

#define T float
#define NAME(f) f##_f32
#include SELF
#undef T
#undef NAME
#define T uint16_t
#define NAME(f) f##_bf16
#include SELF
