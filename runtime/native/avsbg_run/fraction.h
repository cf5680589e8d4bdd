// Times as exact fractions of a second, as Python's runtime has them: what lies on a border falls to the same side.
#pragma once

#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>

namespace avsbg_run {

__extension__ typedef __int128 Wide;

class Fraction {
 public:
  Fraction(std::int64_t value = 0) : num_(value) {}  // NOLINT: as a number
  Fraction(std::int64_t num, std::int64_t den) { set(num, den); }

  static Fraction of(double value) {
    std::int64_t den = 1;
    while (value != std::floor(value) && den < (std::int64_t{1} << 50)) {
      value *= 2;
      den *= 2;
    }
    return {static_cast<std::int64_t>(value), den};
  }

  double value() const { return static_cast<double>(static_cast<long double>(num_) / static_cast<long double>(den_)); }
  std::int64_t floor() const { return num_ / den_ - (num_ % den_ != 0 && num_ < 0); }
  std::int64_t ceil() const { return -Fraction(-num_, den_).floor(); }
  std::int64_t round() const {  // halves to even, as Python
    const std::int64_t below = floor();
    const Fraction rest = *this - below, half(1, 2);
    return below + (half < rest || (rest == half && below % 2 != 0));
  }
  std::int64_t num() const { return num_; }
  std::int64_t den() const { return den_; }

  friend Fraction operator+(const Fraction& a, const Fraction& b) {
    return reduced(Wide{a.num_} * b.den_ + Wide{b.num_} * a.den_, Wide{a.den_} * b.den_);
  }
  friend Fraction operator-(const Fraction& a, const Fraction& b) { return a + Fraction(-b.num_, b.den_); }
  friend Fraction operator*(const Fraction& a, const Fraction& b) {
    return reduced(Wide{a.num_} * b.num_, Wide{a.den_} * b.den_);
  }
  friend Fraction operator/(const Fraction& a, const Fraction& b) {
    if (b.num_ == 0) throw std::domain_error("a division by zero");
    return reduced(Wide{a.num_} * b.den_, Wide{a.den_} * b.num_);
  }
  friend bool operator<(const Fraction& a, const Fraction& b) { return Wide{a.num_} * b.den_ < Wide{b.num_} * a.den_; }
  friend bool operator==(const Fraction& a, const Fraction& b) { return a.num_ == b.num_ && a.den_ == b.den_; }
  friend bool operator<=(const Fraction& a, const Fraction& b) { return !(b < a); }
  friend bool operator>=(const Fraction& a, const Fraction& b) { return !(a < b); }
  friend bool operator>(const Fraction& a, const Fraction& b) { return b < a; }

 private:
  static Fraction reduced(Wide num, Wide den) {
    if (den < 0) {
      num = -num;
      den = -den;
    }
    Wide a = num < 0 ? -num : num, b = den;
    while (b != 0) {
      const Wide rest = a % b;
      a = b;
      b = rest;
    }
    if (a > 1) {
      num /= a;
      den /= a;
    }
    if (num > INT64_MAX || num < -INT64_MAX || den > INT64_MAX) throw std::overflow_error("a time stamp out of range");
    Fraction result;
    result.num_ = static_cast<std::int64_t>(num);
    result.den_ = static_cast<std::int64_t>(den);
    return result;
  }
  void set(std::int64_t num, std::int64_t den) { *this = reduced(num, den); }

  std::int64_t num_ = 0, den_ = 1;
};

}  // namespace avsbg_run
