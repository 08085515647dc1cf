// The inverse of a masked autoregressive flow: base points and the galaxies' share of the first layers in, draws and the
// logarithms of their scales out. The order of the weights is told by sedflow_dist/flow/maf_compiled.py.
//
// A few draws, as many as two registers hold, go through the whole flow before the next: their layers stay in the first cache and
// all weights in the second. A hidden unit of degree d sees the inputs 1..d only, so with units sorted by degree one pass fills the
// layers; weights are read once, one after the other, in exactly the order in which they lie.
#include "vectors.h"

constexpr int VECTORS = 2, ROWS = VECTORS * LANES;
// Units whose sums are held in registers at once: 16 of AVX-512's 32 registers, 8 of AVX2's 16.
constexpr int TILE = LANES == 16 ? 8 : 4;

struct Rows {  // one number of each of some draws
  Vector part[VECTORS];
  float get(int row) const { return part[row / LANES][row % LANES]; }
  void set(int row, float value) { part[row / LANES][row % LANES] = value; }
};

// What the draws of a pass share: whose they are, and what their galaxy adds to the sums of this block's first layer.
struct Galaxies {
  const float* context[ROWS];
  bool one, halves;  // whether all are of one galaxy; those of each half of a register

  Rows sum(int unit) const {
    Rows out;
    for (int v = 0; v < VECTORS; ++v) {
      const float* const* own = context + v * LANES;
      if (one) {
        out.part[v] = all(own[0][unit]);
      } else if (halves) {
        out.part[v] = first_half() ? all(own[0][unit]) : all(own[LANES / 2][unit]);
      } else {
        for (int lane = 0; lane < LANES; ++lane) out.part[v][lane] = own[lane][unit];
      }
    }
    return out;
  }
};

// Add to N sums what `n` numbers of each draw, times weights (n, N), give them; return where the next weights are.
template <int N>
static inline const float* add_products(const float* weights, const Rows* numbers, int n, Rows* sums) {
  Vector held[N][VECTORS];
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < VECTORS; ++v) held[i][v] = sums[i].part[v];
  for (int k = 0; k < n; ++k, weights += N) {
    const Rows number = numbers[k];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
      for (int v = 0; v < VECTORS; ++v) held[i][v] += weights[i] * number.part[v];
  }
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < VECTORS; ++v) sums[i].part[v] = held[i][v];
  return weights;
}

// Fill N units of a layer from `n` numbers of the layer below; the first layer, above the draws, has the galaxies' share as its
// bias, others have their own before their weights.
template <int N>
static const float* fill(const float* weights, const Rows* below, int n, const Galaxies* first, int unit, Rows* layer) {
  Rows sums[N];
  for (int i = 0; i < N; ++i) {
    if (first) {
      sums[i] = first->sum(unit + i);
    } else {
      for (Vector& part : sums[i].part) part = all(weights[i]);
    }
  }
  weights = add_products<N>(first ? weights : weights + N, below, n, sums);
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < VECTORS; ++v) layer[unit + i].part[v] = half_tanh(sums[i].part[v]);
  return weights;
}

static const float* fill(int units, const float* weights, const Rows* below, int n, const Galaxies* first, int unit,
                         Rows* layer) {
  switch (units) {
    case 1: return fill<1>(weights, below, n, first, unit, layer);
    case 2: return fill<2>(weights, below, n, first, unit, layer);
    case 3: return fill<3>(weights, below, n, first, unit, layer);
    case 4: return fill<4>(weights, below, n, first, unit, layer);
    case 5: return fill<5>(weights, below, n, first, unit, layer);
    case 6: return fill<6>(weights, below, n, first, unit, layer);
    case 7: return fill<7>(weights, below, n, first, unit, layer);
    default: return fill<8>(weights, below, n, first, unit, layer);
  }
}

struct Flow {
  const float* weights;
  const int64_t *order, *ends;  // each block's dimensions, of those before it; where the units of each degree end
  int64_t dimensions, blocks, layers, units;
};

// Invert all blocks for the draws `value` (dimension), which are overwritten; `total` gets the logarithm of their scales.
static void invert(const Flow& flow, Galaxies& galaxies, Rows* value, Rows* layer, Rows& total) {
  const int dimensions = flow.dimensions, layers = flow.layers, units = flow.units;
  Rows *base = value + dimensions, *last = layer + (layers - 1) * units;
  const float* weights = flow.weights;
  total = {};
  for (int block = 0; block < flow.blocks; ++block) {
    for (int d = 0; d < dimensions; ++d) base[d] = value[flow.order[block * dimensions + d]];
    for (int d = 0, begin = 0; d < dimensions; ++d) {
      Rows raw[2];  // scale and shift, of hidden units of lower degrees, all filled by now
      for (int i = 0; i < 2; ++i)
        for (Vector& part : raw[i].part) part = all(weights[i]);
      weights = add_products<2>(weights + 2, last, begin, raw);
      for (int v = 0; v < VECTORS; ++v) {
        const Vector scale = softplus(raw[0].part[v]) + 1e-3f;
        total.part[v] += log_of_positive(scale);
        value[d].part[v] = (base[d].part[v] - raw[1].part[v]) / scale;
      }
      const int end = flow.ends[d];
      for (int l = 0; l < layers; ++l) {
        const Rows* below = l ? layer + (l - 1) * units : value;
        const int tiles = (end - begin + TILE - 1) / TILE;
        for (int tile = 0, unit = begin; tile < tiles; ++tile) {
          const int n = (end - unit + tiles - tile - 1) / (tiles - tile);
          weights = fill(n, weights, below, l ? end : d + 1, l ? nullptr : &galaxies, unit, layer + l * units);
          unit += n;
        }
      }
      begin = end;
    }
    for (const float*& context : galaxies.context) context += units;
  }
}

// What features (galaxy, feature) give the first layer of each block: bias + 4 sigmoid(context_bias + context x), in `out` (galaxy,
// block, unit). `weights`: of each block context_bias (unit), context (feature, unit) and bias (unit). Every sum is in one order,
// so that a galaxy's numbers do not depend on who stands beside it.
extern "C" void flow_context(const float* weights, int64_t blocks, int64_t units, const float* x, int64_t galaxies,
                             int64_t features, float* out) {
  for (const float* end = x + galaxies * features; x < end; x += features) {
    const float* block = weights;
    for (int64_t b = 0; b < blocks; ++b, block += (features + 2) * units, out += units) {
      for (int64_t unit = 0; unit < units; unit += LANES) {
        const int n = units - unit < LANES ? units - unit : LANES;
        Vector sum = load(block + unit, n);
        for (int64_t f = 0; f < features; ++f) sum += x[f] * load(block + (f + 1) * units + unit, n);
        sum = 4.0f * half_tanh(sum) + 2.0f + load(block + (features + 1) * units + unit, n);
        memcpy(out + unit, &sum, n * sizeof(float));
      }
    }
  }
}

extern "C" int64_t flow_inverse_tile() { return TILE; }

// Bytes that `flow_inverse` works in.
extern "C" int64_t flow_inverse_memory(int64_t dimensions, int64_t layers, int64_t units) {
  return sizeof(Rows) * (2 * dimensions + layers * units + 1);
}

// base, draws (row, dimension); galaxy, log_scale (row); context (galaxy, block, unit).
extern "C" void flow_inverse(const float* weights, const int64_t* order, const int64_t* ends, int64_t dimensions, int64_t blocks,
                             int64_t layers, int64_t units, const float* context, const float* base, const int64_t* galaxy,
                             int64_t rows, char* memory, float* draws, float* log_scale) {
  const Flow flow{weights, order, ends, dimensions, blocks, layers, units};
  Rows* value = reinterpret_cast<Rows*>((reinterpret_cast<uintptr_t>(memory) + sizeof(Vector) - 1) & -sizeof(Vector));
  for (int64_t start = 0; start < rows; start += ROWS) {
    const int n = rows - start < ROWS ? rows - start : ROWS;
    Galaxies galaxies{{}, true, true};
    for (int row = 0; row < ROWS; ++row) {  // what is missing of a last pass is a copy of its first draw
      const int64_t from = start + (row < n ? row : 0);
      galaxies.context[row] = context + galaxy[from] * blocks * units;
      galaxies.one &= galaxy[from] == galaxy[start];
      galaxies.halves &= row % (LANES / 2) == 0 || galaxies.context[row] == galaxies.context[row - 1];
      for (int d = 0; d < dimensions; ++d) value[d].set(row, base[from * dimensions + d]);
    }
    Rows total;
    invert(flow, galaxies, value, value + 2 * dimensions, total);
    for (int row = 0; row < n; ++row) {
      for (int d = 0; d < dimensions; ++d) draws[(start + row) * dimensions + d] = value[d].get(row);
      log_scale[start + row] = total.get(row);
    }
  }
}
