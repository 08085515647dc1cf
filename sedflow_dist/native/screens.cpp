// Light behind screens of dust, in place: one pass over the light, where operators write and read its transmission several times.
#include "vectors.h"

// Of each cell: the attenuation curve, and where it depends on the galaxy, by a slope and the strength of a bump, their curves.
struct Curves {
  const float *curve, *bump, *log_wavelength;
};

// Multiply cells from `at` on by exp(-tau curve); with slope n the curve is exp(n ln(lambda)) (curve + strength bump).
static inline void dim(const Curves& curves, int64_t at, int n, float tau, float slope, float strength, float* light) {
  Vector curve = load(curves.curve + at, n);
  if (curves.bump)
    curve = exponential(slope * load(curves.log_wavelength + at, n)) * (curve + strength * load(curves.bump + at, n));
  const Vector out = load(light + at, n) * exponential(-tau * curve);
  memcpy(light + at, &out, n * sizeof(float));
}

// light (galaxy, draw, cell); tau, slope, strength (galaxy, draw); curves (galaxy or 1, cell), `apart` numbers from one galaxy's to
// the next one's. No `bump`: the curve is the same for all.
extern "C" void screen(const float* curve, const float* bump, const float* log_wavelength, int64_t apart, const float* tau,
                       const float* slope, const float* strength, int64_t galaxies, int64_t draws, int64_t cells, float* light) {
  for (int64_t galaxy = 0; galaxy < galaxies; ++galaxy) {
    const int64_t own = galaxy * apart;
    const Curves curves{curve + own, bump ? bump + own : nullptr, bump ? log_wavelength + own : nullptr};
    for (int64_t i = galaxy * draws; i < (galaxy + 1) * draws; ++i, light += cells)
      for (int64_t at = 0; at < cells; at += LANES)
        dim(curves, at, cells - at < LANES ? cells - at : LANES, tau[i], bump ? slope[i] : 0, bump ? strength[i] : 0, light);
  }
}
