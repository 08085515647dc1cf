// The amplitude of draws given their shapes, exactly: what sedflow_dist/inference/amplitude.py says of it, a draw at a time, whose
// density at all nodes stays in registers and the first cache.
#include <cmath>

#include "vectors.h"

constexpr int MOST_BANDS = 64, MOST_NODES = 128;

struct Amplitudes {  // nodes of the quadrature, how far it reaches in standard deviations, ln of the prior's range
  int64_t bands, nodes;
  float reach, lowest, highest;
};

static inline float log_of(float x) { return log_of_positive(all(x))[0]; }
static inline float between(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

// One draw: `data` and `inverse` (band) are the galaxy's fluxes over their uncertainties, and 1 over these.
static void fit(const Amplitudes& given, const float* per_mass, const float* data, const float* inverse, float uniform,
                float* log_evidence, float* chi2, float* log_a) {
  // In units of the largest allowed amplitude, so that float32 holds the sums.
  const float largest = std::exp(given.highest), least = std::exp(given.lowest - given.highest);
  float shape[MOST_BANDS], precision = 0, product = 0;
  for (int64_t b = 0; b < given.bands; ++b) {
    shape[b] = per_mass[b] * inverse[b] * largest;
    precision += shape[b] * shape[b];
    product += shape[b] * data[b];
  }
  precision = precision < 1e-30f ? 1e-30f : precision;
  const float found = product / precision, width = 1 / std::sqrt(precision), best = between(found, least, 1.0f);
  *chi2 = 0;
  for (int64_t b = 0; b < given.bands; ++b) *chi2 += (data[b] - best * shape[b]) * (data[b] - best * shape[b]);

  const float peak = (best - found) / width * ((best - found) / width);
  const float reach = width * std::sqrt(peak + given.reach * given.reach);  // as far as the density has fallen enough
  float start = log_of(between(found - reach, least, 1.0f));
  float length = log_of(between(found + reach, least, 1.0f)) - start;
  length = length < 1e-6f ? 1e-6f : length;
  start = start < -length ? start : -length;  // keeps the last node inside the prior
  const int64_t n = given.nodes;
  const float step = length / (n - 1);
  float density[MOST_NODES + LANES];
  for (int64_t k = 0; k < n; k += LANES) {
    Vector node;
    for (int i = 0; i < LANES; ++i) node[i] = k + i;
    const Vector distance = (exponential(start + step * node) - found) / width;
    const Vector value = exponential(-0.5f * (distance * distance - peak));
    memcpy(density + k, &value, sizeof(value));
  }
  float cumulative[MOST_NODES], total = 0;
  for (int64_t k = 0; k + 1 < n; ++k) cumulative[k] = total += 0.5f * (density[k] + density[k + 1]);
  total = total < 1e-30f ? 1e-30f : total;
  *log_evidence = -0.5f * *chi2 + log_of(total * step) - log_of(given.highest - given.lowest);

  const float target = uniform * total;
  int64_t cell = 0;
  while (cell < n - 2 && cumulative[cell] < target) ++cell;
  const float below = cell ? cumulative[cell - 1] : 0, inside = cumulative[cell] - below;
  *log_a = start + step * (cell + between((target - below) / (inside < 1e-30f ? 1e-30f : inside), 0.0f, 1.0f)) + given.highest;
}

extern "C" int64_t amplitude_most_bands() { return MOST_BANDS; }

// per_mass (galaxy, draw, band); data, inverse (galaxy, band); uniform, log_evidence, chi2, log_a (galaxy, draw).
extern "C" void amplitude(const Amplitudes* given, const float* per_mass, const float* data, const float* inverse,
                          const float* uniform, int64_t galaxies, int64_t draws, float* log_evidence, float* chi2, float* log_a) {
  const int64_t bands = given->bands;
  for (int64_t galaxy = 0, i = 0; galaxy < galaxies; ++galaxy)
    for (int64_t draw = 0; draw < draws; ++draw, ++i)
      fit(*given, per_mass + i * bands, data + galaxy * bands, inverse + galaxy * bands, uniform[i], log_evidence + i, chi2 + i,
          log_a + i);
}
