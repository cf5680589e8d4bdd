// A bundle on disk. What is read of it was checked.
#pragma once

#include <functional>
#include <string>

#include "bundle/manifest.h"
#include "bundle/npz.h"

namespace avsbg {

class Bundle {
 public:
  // Validates the manifest and checks the size of every file it lists; hashes are checked as files are read. Throws an
  // Error of AVSBG_ERROR_BUNDLE: no such directory, a manifest that is not valid, or a file that is missing, is reached
  // through a symbolic link, is not regular or has another size.
  static Bundle open(const std::string& path);

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  const std::string& manifest_sha256() const { return manifest_sha256_; }

  // The path of a file that the manifest lists.
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // The record of a graph; an Error if the bundle has none of that name.
  const GraphRecord& graph(const std::string& name) const;
  // The accuracy of a graph's precision; of a stream's graphs that of the clip graph.
  const AccuracyRecord* accuracy(const std::string& name) const;
  // The content of a file that the manifest lists: the bytes that are returned are those whose hash was checked. Throws
  // an Error of AVSBG_ERROR_BUNDLE where it is another.
  std::string read(const std::string& name) const;
  // The content of such a file, of which only the size was checked, and what holds it against its hash later: for weights,
  // which are copied while they are hashed.
  std::string read_unchecked(const std::string& name) const;
  void check(const std::string& name, const std::string& content) const;
  // The arrays of a file of test vectors, by `inputs.NAME` and `outputs.NAME`, held against the manifest.
  Arrays read_vectors(const VectorsRecord& record) const;

 private:
  static Bundle open_once(const std::string& path);

  std::string path_, manifest_sha256_;
  Manifest manifest_;
};

// The SHA-256 of a file's content, in hexadecimal. Throws an Error where it cannot be read.
std::string sha256(const std::string& path);

// Names of a bundle's graphs: ROLE[.plain][.rest-REST][.PRECISION].
struct GraphName {
  std::string role, rest, precision = "fp32";
  bool is_plain = false;

  static GraphName parse(const std::string& text);
  std::string text() const;
};

}  // namespace avsbg
