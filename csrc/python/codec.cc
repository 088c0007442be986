// The bindings of the range coder, and the codec's loops over tokens.
#include "codec/range_coder.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "exact/model.h"
#include "mixer/mixer.h"
#include "python/checks.h"
#include "python/families.h"
#include "python/shared.h"

namespace {

using ngram::ExactModel;
using ngram::Mixer;
using ngram::RangeDecoder;
using ngram::RangeEncoder;
using py::literals::operator""_a;

void write_bits(RangeEncoder& self, const py::array& bits, const py::array& ones) {
  if (!is_vector(bits) || !holds<std::uint8_t>(bits)) fail("bits must be uint8 of shape (m,), not " + describe(bits));
  if (!is_vector(ones) || !holds<double>(ones) || ones.size() != bits.size()) {
    fail("ones must be float64 of shape (" + std::to_string(bits.size()) + ",), not " + describe(ones));
  }
  const auto* bit = static_cast<const std::uint8_t*>(bits.data());
  const auto* one = static_cast<const double*>(ones.data());
  const auto m = bits.size();
  const py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < m; ++i) self.code(ngram::share_of(bit[i], one[i]));
}

void write_symbols(RangeEncoder& self, const py::array& tokens, const py::array& rows) {
  check_tokens(tokens);
  if (!holds<double>(rows) || !(rows.flags() & py::array::c_style) || rows.ndim() != 2 ||
      rows.shape(0) != tokens.size()) {
    fail("rows must be float64 of shape (" + std::to_string(tokens.size()) + ", V), not " + describe(rows));
  }
  const auto vocab_size = rows.shape(1), n = tokens.size();
  const auto* row = static_cast<const double*>(rows.data());
  with_tokens(tokens, [&](auto data) {
    ngram::Shares shares;
    for (py::ssize_t i = 0; i < n; ++i) {
      if (data[i] >= vocab_size) throw py::value_error("a token is outside its row");
      shares.set(row + i * vocab_size, vocab_size);
      self.code(shares.of(data[i]));
    }
  });
}

py::bytes finish(RangeEncoder& self) { return self.finish(); }

// A row of V probabilities that stand for the next tokens alike.
const double* check_row(const py::array& base, py::ssize_t vocab_size) {
  if (!holds<double>(base) || !is_vector(base) || base.size() != vocab_size) {
    fail("base must be float64 of shape (" + std::to_string(vocab_size) + ",), not " + describe(base));
  }
  return static_cast<const double*>(base.data());
}

py::ssize_t check_count(py::ssize_t n) { return n >= 0 ? n : throw py::value_error("n is negative"); }

// Reads `n` tokens as decisions of the mixer, which learns from each.
py::array read_decisions(Mixer& mixer, Shared<RangeDecoder>& decoder, const py::array& base, py::ssize_t n) {
  const double* row = check_row(base, mixer.vocab_size());
  py::array_t<std::uint32_t> tokens(check_count(n));
  auto* const to = tokens.mutable_data();
  decoder.call([&](RangeDecoder& from) {
    const py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < n; ++i) {
      double one = mixer.begin(i == 0 ? row : nullptr);
      while (!mixer.token_known()) one = mixer.decide(from.bit(one));
      to[i] = mixer.token();
    }
  });
  return tokens;
}

// Reads `n` tokens as symbols of the model's distributions; it counts and learns from each.
py::array read_symbols(ExactModel& model, Shared<RangeDecoder>& decoder, const py::array& base, float entropy,
                       py::ssize_t n) {
  if (!holds<double>(base) || !is_vector(base)) fail("base must be float64 of shape (V,), not " + describe(base));
  if (model.counts().positions() > 0 && model.largest_token() >= base.size())
    fail("a token beyond the row was counted");
  const double* row = check_row(base, base.size());
  const auto vocab_size = base.size();
  py::array_t<std::uint32_t> tokens(check_count(n));
  auto* const to = tokens.mutable_data();
  decoder.call([&](RangeDecoder& from) {
    const py::gil_scoped_release release;
    std::vector<double> p(vocab_size);
    ngram::Shares shares;
    for (py::ssize_t i = 0; i < n; ++i) {
      model.distribution(row, entropy, vocab_size, p.data());
      shares.set(p.data(), vocab_size);
      to[i] = static_cast<std::uint32_t>(from.symbol(shares));
      double charged;
      std::uint8_t order;
      model.score(to + i, 1, ngram::Base{nullptr, row, 0, &entropy}, &charged, &order);
    }
  });
  return tokens;
}

}  // namespace

void bind_codec(py::module_& m) {
  py::class_<Shared<RangeEncoder>>(m, "RangeEncoder", "Writes decisions and symbols; see ngram_eval.codec.range_coder.")
      .def(py::init<>())
      .def("bits", locked(&write_bits), "bits"_a.noconvert(), "ones"_a.noconvert())
      .def("symbols", locked(&write_symbols), "tokens"_a.noconvert(), "rows"_a.noconvert())
      .def("finish", locked(&finish));
  py::class_<Shared<RangeDecoder>>(m, "RangeDecoder", "Reads what RangeEncoder wrote.")
      .def(py::init([](const py::bytes& written) {
             return std::make_unique<Shared<RangeDecoder>>(static_cast<std::string>(written));
           }),
           "written"_a)
      .def_property_readonly("beyond", locked(&RangeDecoder::beyond));
  m.def(
      "read_decisions",
      [](Shared<Mixer>& mixer, Shared<RangeDecoder>& decoder, const py::array& base, py::ssize_t n) {
        return mixer.call([&](Mixer& self) { return read_decisions(self, decoder, base, n); });
      },
      "mixer"_a, "decoder"_a, "base"_a.noconvert(), "n"_a);
  m.def(
      "read_symbols",
      [](Shared<ExactModel>& model, Shared<RangeDecoder>& decoder, const py::array& base, float entropy,
         py::ssize_t n) {
        return model.call([&](ExactModel& self) { return read_symbols(self, decoder, base, entropy, n); });
      },
      "model"_a, "decoder"_a, "base"_a.noconvert(), "entropy"_a, "n"_a);
}
