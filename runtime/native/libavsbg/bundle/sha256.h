// SHA-256 of files, and of bytes that come piece by piece. Header-only: avsbg-run takes hashes too,
// and libavsbg hides its own symbols.
#pragma once

#include <openssl/evp.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

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

// Reads a file block by block. Throws std::system_error, which names the file.
template <typename Take>
void read_blocks(const std::string& path, const Take& take) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  std::vector<char> block(1 << 20);
  std::size_t count = 0;
  while (file && (count = std::fread(block.data(), 1, block.size(), file.get())) > 0) take(block.data(), count);
  if (!file || std::ferror(file.get()) != 0) throw std::system_error(errno, std::generic_category(), path + " cannot be read");
}

// In hexadecimal. Throws std::system_error, which names the file.
inline std::string sha256_of_file(const std::string& path) {
  Sha256 digest;
  read_blocks(path, [&](const char* data, std::size_t count) { digest.add(data, count); });
  return digest.hex();
}

}  // namespace avsbg
