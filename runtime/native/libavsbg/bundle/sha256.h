// SHA-256 of bytes that come piece by piece. Header-only: avsbg-run takes hashes too, and libavsbg hides its own symbols.
#pragma once

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <new>
#include <string>

namespace avsbg {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
  }
  void add(const char* data, std::size_t count) { EVP_DigestUpdate(context_.get(), data, count); }
  // In hexadecimal; ends the digest.
  std::string hex() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    EVP_DigestFinal_ex(context_.get(), bytes, &length);
    std::string text;
    for (unsigned i = 0; i < length; ++i) {
      text += "0123456789abcdef"[bytes[i] >> 4];
      text += "0123456789abcdef"[bytes[i] & 15];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

inline std::string sha256_of(const std::string& content) {
  Sha256 digest;
  digest.add(content.data(), content.size());
  return digest.hex();
}

}  // namespace avsbg
