// Light of the stars of draws in cells of wavelength: populations in, sums over rows of tables out, of stars inside birth clouds
// and of the others. What sedflow_dist/sps/stars.py does by products with zeros for most of the metallicities is here a sum over the
// two that a population lies between, with all cells of the sum in registers.
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

// Rows of a table with the cells that are summed at once: `at` are the places of vectors, which may overlap.
template <int V>
struct Sum {
  const int* at;
  Vector held[V];

  void add(float amount, const float* row) {
    for (int v = 0; v < V; ++v) {
      Vector cells;
      memcpy(&cells, row + at[v], sizeof(cells));
      held[v] += amount * cells;
    }
  }
  void store(float* out) const {
    for (int v = 0; v < V; ++v) memcpy(out + at[v], &held[v], sizeof(Vector));
  }
};

struct Tables {
  const float *bins, *cut, *nodes;
  int64_t cells;
};

struct Burst {
  int64_t row[4];
  float amount[4];
  bool in_cloud[4];
};

static Burst find(const Stars& stars, float age, const Pair& pair) {
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
  Burst out;
  for (int i = 0; i < 4; ++i) {
    const int64_t node = right - 1 + i / 2;
    out.in_cloud[i] = stars.in_cloud ? stars.in_cloud[node] != 0 : age < stars.cloud_age;
    out.row[i] = node * stars.metallicities + pair.row[stars.burst] + i % 2 + (out.in_cloud[i] ? stars.cloud_rows : 0);
    out.amount[i] = (i % 2 ? pair.high : pair.low)[stars.burst] * (i / 2 ? t : 1 - t);
  }
  return out;
}

template <int V>
static void sum(const Stars& stars, const Tables& tables, const Pair& pair, const Burst& burst, const int* at, float* young,
                float* old) {
  const int64_t cells = tables.cells, n = stars.metallicities;
  Sum<V> inside{at, {}}, outside{at, {}};
  for (int64_t p = 0; p < stars.young; ++p) {
    const float* row = tables.bins + (p * n + pair.row[p]) * cells;
    inside.add(pair.low[p], row);
    inside.add(pair.high[p], row + cells);
  }
  for (int i = 0; i < 4; ++i)
    if (burst.in_cloud[i]) inside.add(burst.amount[i], tables.nodes + burst.row[i] * cells);
  inside.store(young);
  for (int64_t p = stars.first_old; p < stars.fixed; ++p) {
    if (pair.low[p] == 0 && pair.high[p] == 0) continue;  // older than the Universe
    const float* row = tables.bins + ((stars.young + p - stars.first_old) * n + pair.row[p]) * cells;
    outside.add(pair.low[p], row);
    outside.add(pair.high[p], row + cells);
  }
  const float* cut = tables.cut + pair.row[stars.cut] * cells;
  outside.add(pair.low[stars.cut], cut);
  outside.add(pair.high[stars.cut], cut + cells);
  for (int i = 0; i < 4; ++i)
    if (!burst.in_cloud[i]) outside.add(burst.amount[i], tables.nodes + burst.row[i] * cells);
  outside.store(old);
}

// The whole width of the tables, as many vectors at once as there are registers for. The last one of a width that they do not
// divide overlaps the one before: it holds the same sums.
static void sum_all(const Stars& stars, const Tables& tables, const Pair& pair, const Burst& burst, float* young, float* old) {
  for (int64_t start = 0; start < tables.cells; start += MOST * LANES) {
    int at[MOST], vectors = 0;
    for (int64_t place = start; place < tables.cells && vectors < MOST; place += LANES)
      at[vectors++] = place + LANES <= tables.cells ? place : tables.cells - LANES;
    switch (vectors) {
      case 1: sum<1>(stars, tables, pair, burst, at, young, old); break;
      case 2: sum<2>(stars, tables, pair, burst, at, young, old); break;
      case 3: sum<3>(stars, tables, pair, burst, at, young, old); break;
      case 4: sum<4>(stars, tables, pair, burst, at, young, old); break;
      case 5: sum<5>(stars, tables, pair, burst, at, young, old); break;
      case 6: sum<6>(stars, tables, pair, burst, at, young, old); break;
      case 7: sum<7>(stars, tables, pair, burst, at, young, old); break;
      default: sum<8>(stars, tables, pair, burst, at, young, old); break;
    }
  }
}

// Fewest cells that a table can have, and most populations.
extern "C" int64_t starlight_least_cells() { return LANES; }
extern "C" int64_t starlight_most_populations() { return MOST_POPULATIONS; }

// mass, metallicity (galaxy, draw, population); age (galaxy, draw) [Gyr] of the burst; bins (galaxy or 1, row, cell) and cut (galaxy,
// metallicity, cell); nodes (table, row, cell), `table` (galaxy) says which; young, old (galaxy, draw, cell).
extern "C" void starlight(const Stars* stars, const float* mass, const float* metallicity, const float* age, int64_t galaxies,
                          int64_t draws, const float* bins, int64_t bins_apart, const float* cut, const float* nodes,
                          int64_t nodes_apart, const int64_t* table, int64_t cells, float* young, float* old) {
  for (int64_t galaxy = 0; galaxy < galaxies; ++galaxy) {
    const Tables tables{bins + galaxy * bins_apart, cut + galaxy * stars->metallicities * cells, nodes + table[galaxy] * nodes_apart,
                        cells};
    for (int64_t i = galaxy * draws; i < (galaxy + 1) * draws; ++i) {
      Pair pair;
      share(*stars, mass + i * stars->populations, metallicity + i * stars->populations, pair);
      sum_all(*stars, tables, pair, find(*stars, age[i], pair), young + i * cells, old + i * cells);
    }
  }
}

// Tables at redshifts between two rungs of a ladder (rung, row, column): those of the rung below and the next, the columns `kept`.
extern "C" void between_rungs(const float* ladder, int64_t rows, int64_t columns, const int64_t* rung, const float* fraction,
                              int64_t galaxies, const int64_t* kept, int64_t n_kept, float* out) {
  for (int64_t galaxy = 0; galaxy < galaxies; ++galaxy) {
    const float *low = ladder + rung[galaxy] * rows * columns, *high = low + rows * columns, t = fraction[galaxy];
    for (int64_t row = 0; row < rows; ++row, low += columns, high += columns, out += n_kept)
      for (int64_t k = 0; k < n_kept; ++k) out[k] = low[kept[k]] + t * (high[kept[k]] - low[kept[k]]);
  }
}
