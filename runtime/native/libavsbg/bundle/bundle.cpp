#include "bundle/bundle.h"

#include <sys/stat.h>

#include <algorithm>
#include <system_error>
#include <vector>

#include "bundle/sha256.h"
#include "error.h"

namespace avsbg {
namespace {

const char* const kRestore = "Restore the bundle from where it was made, or export it again.";

Error make_error(const std::system_error& error) { return bundle_error(std::string(error.what()) + "."); }

std::string read_content(const std::string& path, std::uint64_t most) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && static_cast<std::uint64_t>(status.st_size) > most) {
    throw bundle_error(path + " has " + std::to_string(status.st_size) + " bytes; it is to have at most " +
                       std::to_string(most) + ".");
  }
  std::string text;
  text.reserve(static_cast<std::size_t>(status.st_size));
  try {
    read_blocks(path, [&](const char* data, std::size_t count) {
      if (text.size() + count > most) throw bundle_error(path + " grew while it was read.");
      text.append(data, count);
    });
  } catch (const std::system_error& error) {
    throw make_error(error);
  }
  return text;
}

Error changed_error(const std::string& bundle, const std::string& name, const std::string& how) {
  return bundle_error(name + " of the bundle " + bundle + " has changed: " + how + ".", kRestore);
}

void check_file(const std::string& bundle, const std::string& name, const FileRecord& record) {
  std::string path = bundle;
  std::size_t begin = 0;
  struct stat status {};
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    path += "/" + name.substr(begin, end - begin);
    begin = end + 1;
    if (lstat(path.c_str(), &status) != 0) throw bundle_error(name + " is missing from the bundle " + bundle + ".", kRestore);
    if (S_ISLNK(status.st_mode)) {
      throw bundle_error(path + " is a symbolic link; a bundle holds its files itself.",
                         "In a model hub's cache every file is one: `cp -rL " + bundle + " COPY` copies what they lead to.");
    }
  }
  if (!S_ISREG(status.st_mode)) throw bundle_error(path + " is not a regular file.", kRestore);
  if (static_cast<std::uint64_t>(status.st_size) != record.bytes) {
    throw changed_error(bundle, name, std::to_string(status.st_size) + " bytes, the manifest says " + std::to_string(record.bytes));
  }
}

// Tells a directory from the one that later takes its place.
std::string identity(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return "";
  return std::to_string(status.st_ino) + " " + std::to_string(status.st_ctim.tv_sec) + " " +
         std::to_string(status.st_ctim.tv_nsec);
}

bool is_known(const std::string& precision) {
  const std::vector<std::string>& names = precision_names();
  return std::find(names.begin(), names.end(), precision) != names.end();
}

}  // namespace

std::string sha256(const std::string& path) {
  try {
    return sha256_of_file(path);
  } catch (const std::system_error& error) {
    throw make_error(error);
  }
}

Bundle Bundle::open(const std::string& path) {
  while (true) {
    const std::string before = identity(path);
    try {
      return open_once(path);
    } catch (const Error&) {
      // An update puts a new directory in the place of the old one; what was read may be half of each.
      if (identity(path) == before) throw;
    }
  }
}

Bundle Bundle::open_once(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    throw bundle_error("there is no bundle at " + path + ".", "Make one with `avsbg export`.");
  }
  if (!S_ISDIR(status.st_mode)) {
    throw bundle_error(path + " is a file, not a bundle.", "A bundle is a directory, made by `avsbg export`.");
  }
  const std::string file = path + "/manifest.json";
  if (stat(file.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw bundle_error(path + " holds no manifest.json, so it is not a bundle.", "Make one with `avsbg export`.");
  }
  Bundle bundle;
  bundle.path_ = path;
  const std::string text = read_content(file, kMaxManifestBytes);
  bundle.manifest_sha256_ = sha256_of(text);
  bundle.manifest_ = parse_manifest(text, file);
  for (const auto& [name, record] : bundle.manifest_.files) check_file(path, name, record);
  return bundle;
}

const GraphRecord& Bundle::graph(const std::string& name) const {
  const auto found = manifest_.graphs.find(name);
  if (found != manifest_.graphs.end()) return found->second;
  std::string have;
  for (const auto& [each, graph] : manifest_.graphs) have += (have.empty() ? "" : ", ") + each;
  throw bundle_error(path_ + " has no graph '" + name + "'.", "It has: " + have + ".");
}

const AccuracyRecord* Bundle::accuracy(const std::string& name) const {
  const GraphRecord& record = graph(name);
  if (record.accuracy) return &*record.accuracy;
  GraphName clip = GraphName::parse(name);
  clip.role = "clip";
  const auto found = manifest_.graphs.find(clip.text());
  return found == manifest_.graphs.end() || !found->second.accuracy ? nullptr : &*found->second.accuracy;
}

std::string Bundle::read(const std::string& name) const {
  std::string content = read_unchecked(name);
  check(name, content);
  return content;
}

std::string Bundle::read_unchecked(const std::string& name) const {
  return read_content(file(name), manifest_.files.at(name).bytes);
}

void Bundle::check(const std::string& name, const std::string& content) const {
  const std::string found = sha256_of(content), &listed = manifest_.files.at(name).sha256;
  if (found != listed) {
    throw changed_error(path_, name, "its sha256 is " + found + ", the manifest says " + listed);
  }
}

Arrays Bundle::read_vectors(const VectorsRecord& record) const {
  std::map<std::string, TensorRecord> wanted;
  for (const TensorRecord& tensor : record.inputs) wanted["inputs." + tensor.name] = tensor;
  for (const TensorRecord& tensor : record.outputs) wanted["outputs." + tensor.name] = tensor;
  const std::string path = file(record.file);
  const FileRecord& listed = manifest_.files.at(record.file);
  if (listed.bytes > kMaxVectorBytes) {
    throw bundle_error(path + " has " + std::to_string(listed.bytes) + " bytes; test vectors have at most " +
                       std::to_string(kMaxVectorBytes) + ".");
  }
  return read_npz(read(record.file), path, wanted);
}

GraphName GraphName::parse(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('.', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  GraphName name;
  name.role = parts[0];
  std::size_t at = 1;
  if (at < parts.size() && parts[at] == "plain") name.is_plain = ++at > 0;
  if (at < parts.size() && parts[at].rfind("rest-", 0) == 0) name.rest = parts[at++].substr(5);
  if (at < parts.size()) name.precision = parts[at++];
  const bool known = is_known(name.precision) && (name.rest.empty() || is_known(name.rest));
  if (known && name.text() == text) return name;
  GraphName whole;  // a manifest may list any name
  whole.role = text;
  return whole;
}

std::string GraphName::text() const {
  return role + (is_plain ? ".plain" : "") + (rest.empty() ? "" : ".rest-" + rest) +
         (precision == "fp32" ? "" : "." + precision);
}

}  // namespace avsbg
