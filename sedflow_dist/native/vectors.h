// Vectors as wide as the processor's registers, and the functions of them that flows need: float32, all to one or two units in the
// last place. GCC and Clang turn the operators into instructions; -ffp-contract=fast makes a * b + c one of them.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

static inline Vector all(float x) { return x - Vector{}; }

// True (-1) in the first half of the lanes.
static inline Integers first_half() {
  Integers out = {};
  for (int lane = 0; lane < LANES / 2; ++lane) out[lane] = -1;
  return out;
}

// The first `n` numbers of a vector, the rest 0.
static inline Vector load(const float* numbers, int n) {
  Vector out = {};
  if (n >= LANES) {
    memcpy(&out, numbers, sizeof(out));
  } else {
    for (int i = 0; i < n; ++i) out[i] = numbers[i];
  }
  return out;
}

static inline Vector bounded(Vector x, float low, float high) {
  x = x < low ? all(low) : x;
  return x > high ? all(high) : x;
}

// tanh(x / 2) / 2, which is sigmoid(x) - 1/2: the rational approximation of tanh that Eigen and XLA use.
static inline Vector half_tanh(Vector x) {
  const Vector y = bounded(0.5f * x, -7.9053111f, 7.9053111f), z = y * y;
  Vector above = z * -2.76076847742355e-16f + 2.00018790482477e-13f;
  above = above * z + -8.60467152213735e-11f;
  above = above * z + 5.12229709037114e-08f;
  above = above * z + 1.48572235717979e-05f;
  above = above * z + 6.37261928875436e-04f;
  above = above * z + 4.89352455891786e-03f;
  Vector below = z * 1.19825839466702e-06f + 1.18534705686654e-04f;
  below = below * z + 2.26843463243900e-03f;
  below = below * z + 4.89352518554385e-03f;
  return 0.5f * y * above / below;
}

// exp(x) (Cephes, expf): 2^n times a polynomial of what is left; beyond exp(+-87) it stays there.
static inline Vector exponential(Vector x) {
  x = bounded(x, -87.0f, 87.0f);
  const Integers n = __builtin_convertvector(x * 1.44269504f + (x < 0 ? all(-0.5f) : all(0.5f)), Integers);
  const Vector power = __builtin_convertvector(n, Vector);
  x = x - power * 0.693359375f + power * 2.12194440e-4f;
  Vector y = x * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  return (y * x * x + x + 1.0f) * (Vector)((n + 127) << 23);
}

// ln(x) for positive, normal x (Cephes, logf); NaN for NaN.
static inline Vector log_of_positive(Vector x) {
  const Integers bits = (Integers)x;
  Vector m = (Vector)((bits & 0x007fffff) | 0x3f000000);  // in [1/2, 1)
  const Integers small = m < 0.70710678f;                 // -1 where true
  const Vector power = __builtin_convertvector(((bits >> 23) & 0xff) - 126 + small, Vector);
  m = small ? m + m - 1.0f : m - 1.0f;
  Vector y = m * 7.0376836292e-2f + -1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m + -1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m + -1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m + -2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  const Vector square = m * m;
  return m + (y * m * square - power * 2.12194440e-4f - 0.5f * square) + power * 0.693359375f + (x - x);
}

// ln(1 + exp(x)); the second term is what rounding 1 + exp(-|x|) lost.
static inline Vector softplus(Vector x) {
  const Vector e = exponential(x > 0 ? -x : x), u = 1.0f + e;
  return (x > 0 ? x : Vector{}) + log_of_positive(u) + (e - (u - 1.0f)) / u;
}
