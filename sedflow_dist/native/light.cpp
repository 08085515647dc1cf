// Light of draws through bands: populations in, fluxes out. Rows of tables are summed over the two metallicities that a population
// lies between (sedflow_dist/sps/stars.py has products with zeros for most of them), dust takes its share of the sum, and cells are
// added up to bands; all that passes through memory are tables that stay in the second cache. Screens of dust alone, too, in place.
#include <vector>

#include "vectors.h"

constexpr int MOST = 8;             // vectors of cells that are summed at once
constexpr int MOST_POPULATIONS = 64;

struct Stars {  // what does not depend on draws; rows of tables are (age, metallicity)
  int64_t populations, fixed, cut, burst;  // how many populations, how many of them are fixed bins, and which two are not
  int64_t young, first_old;                // bins with stars in birth clouds are the first; with others, from here on
  int64_t metallicities, ages;
  const float *log_metallicity, *log_age;
  const int64_t* in_cloud;  // of each age of the table: whether its stars are; null: `cloud_age` [Gyr] decides
  float cloud_age;
  int64_t cloud_rows;  // how far behind its row of all stars one of stars in clouds lies
};

// A number of tables, one a galaxy, `apart` from each other; 0: all galaxies have the same. With `rung`, the tables are a ladder's:
// a galaxy's lies between that of its rung and the next, by `fraction`.
struct Table {
  const float* first;
  int64_t apart;
  const int64_t* rung;
  const float* fraction;
};

// Tables at redshifts between two rungs of a ladder (rung, row, column), of which a draw needs few rows: those of the rung below each
// galaxy and of the next, `fraction` between them; columns in runs of such as lie side by side, (first, number). A vector that begins
// in the ladder may be read. `shared`: all galaxies have the first one's.
struct Ladder {
  const float* first;
  int64_t rows, columns;
  const int64_t* rung;
  const float* fraction;
  int64_t shared;
  const int64_t* runs;
  int64_t n_runs;
};

struct Source {  // rows times amounts (galaxy, draw, row) are added to the light in birth clouds or outside
  const float* amount;
  int64_t rows, in_clouds;
  Table templates;
};

// Transmits exp(-tau curve); with a slope n the curve is exp(n ln(lambda)) (curve + strength bump). Curves (cell) of each galaxy, or
// of all; tau, slope, strength (galaxy, draw).
struct Screen {
  const float *curve, *bump, *log_wavelength;
  int64_t apart;
  const float *tau, *slope, *strength;
  int64_t of_clouds;  // whether it is before stars in birth clouds alone
};

// Minus the optical depth of the vector of cells at `at`, n of them, of galaxy `own`, draw `i`.
static inline Vector exponent(const Screen& screen, int64_t own, int64_t i, int64_t at, int n) {
  const int64_t from = own * screen.apart + at;
  Vector curve = load(screen.curve + from, n);
  if (screen.bump)
    curve = exponential(screen.slope[i] * load(screen.log_wavelength + from, n)) *
            (curve + screen.strength[i] * load(screen.bump + from, n));
  return -screen.tau[i] * curve;
}

struct Pair {  // a population's rows: this one and the next, and its mass at either metallicity
  int row[MOST_POPULATIONS];
  float low[MOST_POPULATIONS], high[MOST_POPULATIONS];
};

static void share(const Stars& stars, const float* mass, const float* metallicity, Pair& out) {
  const int last = stars.metallicities - 2;
  for (int p = 0; p < stars.populations; p += LANES) {
    const int n = stars.populations - p < LANES ? stars.populations - p : LANES;
    const Vector z = log_of_positive(load(metallicity + p, n));
    Integers row = {};
    Vector below = all(stars.log_metallicity[0]), width = all(stars.log_metallicity[1] - stars.log_metallicity[0]);
    for (int k = 1; k <= last; ++k) {
      const float node = stars.log_metallicity[k], step = stars.log_metallicity[k + 1] - node;
      const Integers beyond = z > node;
      row = beyond ? row + 1 : row;
      below = beyond ? all(node) : below;
      width = beyond ? all(step) : width;
    }
    const Vector t = bounded((z - below) / width, 0.0f, 1.0f), whole = load(mass + p, n), high = t * whole, low = whole - high;
    memcpy(out.row + p, &row, n * sizeof(float));
    memcpy(out.low + p, &low, n * sizeof(float));
    memcpy(out.high + p, &high, n * sizeof(float));
  }
}

// Where a population whose age is no bin's lies among the ages of the tables: four rows, two ages at two metallicities.
struct Between {
  int64_t row[4];
  float amount[4];
  bool in_cloud[4];
};

static Between find(const Stars& stars, float age, int64_t population, const Pair& pair) {
  Vector logarithm = log_of_positive(all(age));
  const float position = logarithm[0];
  int64_t low = 0, high = stars.ages;  // the first age that is not below
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    (stars.log_age[middle] < position ? low = middle + 1 : high = middle);
  }
  const int64_t right = low < 1 ? 1 : low > stars.ages - 1 ? stars.ages - 1 : low;
  float t = (position - stars.log_age[right - 1]) / (stars.log_age[right] - stars.log_age[right - 1]);
  t = t < 0 ? 0 : t > 1 ? 1 : t;
  Between out;
  for (int i = 0; i < 4; ++i) {
    const int64_t node = right - 1 + i / 2;
    out.in_cloud[i] = stars.in_cloud ? stars.in_cloud[node] != 0 : age < stars.cloud_age;
    out.row[i] = node * stars.metallicities + pair.row[population] + i % 2 + (out.in_cloud[i] ? stars.cloud_rows : 0);
    out.amount[i] = (i % 2 ? pair.high : pair.low)[population] * (i / 2 ? t : 1 - t);
  }
  return out;
}

struct Cells {  // light in cells: of the fixed bins, of all ages and of sources
  int64_t cells;
  Table bins;
  Ladder nodes;
  int64_t sources, screens;
  const Source* source;
  const Screen* screen;
};

// Light in cells of the populations that lie between ages of the tables, of stars in birth clouds or of others: whether there is any.
static bool between_ages(const Ladder& nodes, int64_t own, const Between (&populations)[2], bool in_clouds, float* out) {
  const int64_t galaxy = nodes.shared ? 0 : own, rung = nodes.rows * nodes.columns;
  const float t = nodes.fraction[galaxy], *table = nodes.first + nodes.rung[galaxy] * rung;
  const float* row[16];
  float amount[16];
  int n = 0;
  for (const Between& population : populations)
    for (int k = 0; k < 4; ++k) {
      if (population.in_cloud[k] != in_clouds) continue;
      row[n] = table + population.row[k] * nodes.columns;
      amount[n++] = (1 - t) * population.amount[k];
      if (t == 0) continue;
      row[n] = row[n - 1] + rung;
      amount[n++] = t * population.amount[k];
    }
  for (int64_t run = 0; n && run < nodes.n_runs; ++run) {
    const int64_t first = nodes.runs[2 * run], number = nodes.runs[2 * run + 1];
    for (int64_t at = 0; at < number; at += LANES) {  // what is written behind a run the next one writes over
      Vector sum = {};
      for (int k = 0; k < n; ++k) sum += amount[k] * load(row[k] + first + at, LANES);
      memcpy(out + at, &sum, sizeof(sum));
    }
    out += number;
  }
  return n > 0;
}

// A sum of rows of tables, of V vectors of cells.
template <int V>
struct Sum {
  Vector held[V];

  void add(float amount, const float* row) {
    for (int v = 0; v < V; ++v) held[v] += amount * load(row + v * LANES, LANES);
  }
};

// A galaxy's table: the rows of its rung, and how far on those of the next are.
struct Own {
  const float* row;
  float fraction;
  int64_t next;

  Own(const Table& table, int64_t own, int64_t at)
      : row(table.first + (table.rung ? table.rung[own] : own) * table.apart + at),
        fraction(table.rung ? table.fraction[own] : 0), next(table.apart) {}

  template <int V>
  void add(Sum<V>& sum, float amount, int64_t place) const {
    sum.add((1 - fraction) * amount, row + place);
    if (fraction != 0) sum.add(fraction * amount, row + next + place);
  }
};

// Light in cells of one draw: of populations between ages, inside birth clouds and outside, and all of it.
struct Light {
  std::vector<float> inside, outside, all;
  bool any_inside, any_outside;

  explicit Light(int64_t cells) : inside(cells + LANES), outside(cells + LANES), all(cells + LANES) {}
};

// The attenuated light of draw `i`, whose galaxy is `own`, in V vectors of cells from `at` on.
template <int V>
static void sum(const Stars& stars, const Cells& tables, int64_t own, int64_t i, const Pair& pair, int64_t at, Light& light) {
  const int64_t cells = tables.cells, n = stars.metallicities;
  const Own bins(tables.bins, own, at);
  Sum<V> inside{}, outside{};
  for (int64_t p = 0; p < stars.young; ++p) {
    const int64_t row = (p * n + pair.row[p]) * cells;
    bins.add(inside, pair.low[p], row);
    bins.add(inside, pair.high[p], row + cells);
  }
  for (int64_t p = stars.first_old; p < stars.fixed; ++p) {
    if (pair.low[p] == 0 && pair.high[p] == 0) continue;  // older than the Universe
    const int64_t row = ((stars.young + p - stars.first_old) * n + pair.row[p]) * cells;
    bins.add(outside, pair.low[p], row);
    bins.add(outside, pair.high[p], row + cells);
  }
  if (light.any_inside) inside.add(1, light.inside.data() + at);
  if (light.any_outside) outside.add(1, light.outside.data() + at);
  for (int64_t s = 0; s < tables.sources; ++s) {
    const Source& source = tables.source[s];
    const Own templates(source.templates, own, at);
    const float* amount = source.amount + i * source.rows;
    for (int64_t k = 0; k < source.rows; ++k) templates.add(source.in_clouds ? inside : outside, amount[k], k * cells);
  }
  for (int v = 0; v < V; ++v) {
    Vector of_clouds = {}, of_all = {};
    for (int64_t s = 0; s < tables.screens; ++s) {
      const Screen& screen = tables.screen[s];
      (screen.of_clouds ? of_clouds : of_all) += exponent(screen, own, i, at + v * LANES, LANES);
    }
    const Vector found = (inside.held[v] * exponential(of_clouds) + outside.held[v]) * exponential(of_all);
    memcpy(light.all.data() + at + v * LANES, &found, sizeof(found));
  }
}

// The whole width of the tables, as many vectors at once as there are registers for.
static void sum_all(const Stars& stars, const Cells& tables, int64_t own, int64_t i, const Pair& pair, Light& light) {
  for (int64_t at = 0; at < tables.cells; at += MOST * LANES) {
    const int64_t left = (tables.cells - at) / LANES;
    switch (left) {
      case 1: sum<1>(stars, tables, own, i, pair, at, light); break;
      case 2: sum<2>(stars, tables, own, i, pair, at, light); break;
      case 3: sum<3>(stars, tables, own, i, pair, at, light); break;
      case 4: sum<4>(stars, tables, own, i, pair, at, light); break;
      case 5: sum<5>(stars, tables, own, i, pair, at, light); break;
      case 6: sum<6>(stars, tables, own, i, pair, at, light); break;
      case 7: sum<7>(stars, tables, own, i, pair, at, light); break;
      default: sum<8>(stars, tables, own, i, pair, at, light); break;
    }
  }
}

// The sum of numbers from `first` to before `last`; what lies behind, up to a vector, may be read.
static inline float total(const float* numbers, int64_t first, int64_t last) {
  Integers lane;
  for (int k = 0; k < LANES; ++k) lane[k] = k;
  Vector sum = {};
  for (int64_t at = first; at < last; at += LANES) {
    const Vector found = load(numbers + at, LANES);
    sum += lane < int32_t(last - at) ? found : Vector{};
  }
  float out = 0;
  for (int k = 0; k < LANES; ++k) out += sum[k];
  return out;
}

// Of what the number of cells of a table must be a multiple, and most populations.
extern "C" int64_t light_cells_at_once() { return LANES; }
extern "C" int64_t light_most_populations() { return MOST_POPULATIONS; }

// mass, metallicity (row, draw, population); age (row, draw, 2) [Gyr] of cut bin and burst; `galaxy` (row) says whose tables are a
// row's; the cells of a band lie side by side, up to those before `end` (band); out (row, draw, band).
extern "C" void light(const Stars* stars, const Cells* tables, const float* mass, const float* metallicity, const float* age,
                      const int64_t* galaxy, int64_t rows, int64_t draws, const int64_t* end, int64_t bands, float* out) {
  Light light(tables->cells);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = row * draws; i < (row + 1) * draws; ++i, out += bands) {
      Pair pair;
      share(*stars, mass + i * stars->populations, metallicity + i * stars->populations, pair);
      const Between populations[2] = {find(*stars, age[2 * i], stars->cut, pair), find(*stars, age[2 * i + 1], stars->burst, pair)};
      light.any_inside = between_ages(tables->nodes, galaxy[row], populations, true, light.inside.data());
      light.any_outside = between_ages(tables->nodes, galaxy[row], populations, false, light.outside.data());
      sum_all(*stars, *tables, galaxy[row], i, pair, light);
      for (int64_t band = 0; band < bands; ++band) out[band] = total(light.all.data(), band ? end[band - 1] : 0, end[band]);
    }
}

// light (galaxy, cell) behind a screen that all galaxies share, in place.
extern "C" void dim(const Screen* screen, int64_t galaxies, int64_t cells, float* light) {
  for (int64_t i = 0; i < galaxies; ++i, light += cells)
    for (int64_t at = 0; at < cells; at += LANES) {
      const int n = cells - at < LANES ? cells - at : LANES;
      const Vector out = load(light + at, n) * exponential(exponent(*screen, 0, i, at, n));
      memcpy(light + at, &out, n * sizeof(float));
    }
}

// Whole tables between rungs: `Ladder`; out (galaxy, row, column of the runs).
extern "C" void between_rungs(const float* ladder, int64_t rows, int64_t columns, const int64_t* rung, const float* fraction,
                              int64_t galaxies, const int64_t* runs, int64_t n_runs, float* out) {
  for (int64_t galaxy = 0; galaxy < galaxies; ++galaxy) {
    const float *low = ladder + rung[galaxy] * rows * columns, *high = low + rows * columns, t = fraction[galaxy];
    for (int64_t row = 0; row < rows; ++row, low += columns, high += columns)
      for (int64_t run = 0; run < n_runs; ++run) {
        const int64_t n = runs[2 * run + 1];
        const float *__restrict a = low + runs[2 * run], *__restrict b = high + runs[2 * run];
        for (int64_t k = 0; k < n; ++k) out[k] = a[k] + t * (b[k] - a[k]);
        out += n;
      }
  }
}
