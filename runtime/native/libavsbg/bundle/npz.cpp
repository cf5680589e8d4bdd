// An .npz is a zip archive (APPNOTE.TXT 6.3, PKWARE) of .npy files (numpy.lib.format).
#include "bundle/npz.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "error.h"

namespace avsbg {
namespace {

constexpr std::uint32_t kCentral = 0x02014b50, kLocal = 0x04034b50, kEnd = 0x06054b50;
constexpr std::size_t kEndSize = 22, kCentralSize = 46, kLocalSize = 30;
constexpr std::uint16_t kStored = 0, kDeflated = 8, kEncrypted = 1;
constexpr std::size_t kMaxHeader = 65536;

[[noreturn]] void refuse(const std::string& reason) { throw std::runtime_error(reason); }

// A file's content; every access is checked.
class Bytes {
 public:
  explicit Bytes(const std::string& content)
      : data_(reinterpret_cast<const std::uint8_t*>(content.data())), size_(content.size()) {}

  std::size_t size() const { return size_; }
  const std::uint8_t* at(std::uint64_t offset, std::uint64_t count) const {
    if (offset > size_ || count > size_ - offset) refuse("it ends before what it lists");
    return data_ + offset;
  }
  std::uint32_t u16(std::uint64_t offset) const {
    const std::uint8_t* const two = at(offset, 2);
    return two[0] | two[1] << 8;
  }
  std::uint32_t u32(std::uint64_t offset) const { return u16(offset) | u16(offset + 2) << 16; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

struct Member {
  std::uint64_t packed = 0, unpacked = 0, offset = 0;
  std::uint32_t crc = 0;
  std::uint16_t method = 0;
};

std::map<std::string, Member> list_members(const Bytes& file) {
  if (file.size() < kEndSize) refuse("it is no zip archive");
  std::size_t end = file.size() - kEndSize;
  const std::size_t first = end > 65535 ? end - 65535 : 0;
  while (file.u32(end) != kEnd) {
    if (end == first) refuse("it is no zip archive");
    --end;
  }
  std::map<std::string, Member> members;
  std::uint64_t at = file.u32(end + 16), total = 0;
  for (std::uint32_t left = file.u16(end + 10); left > 0; --left) {
    if (file.u32(at) != kCentral) refuse("its directory is damaged");
    Member member;
    const std::uint32_t flags = file.u16(at + 8);
    member.method = static_cast<std::uint16_t>(file.u16(at + 10));
    member.crc = file.u32(at + 16);
    member.packed = file.u32(at + 20);
    member.unpacked = file.u32(at + 24);
    member.offset = file.u32(at + 42);
    const std::uint32_t name_length = file.u16(at + 28);
    const std::string name(reinterpret_cast<const char*>(file.at(at + kCentralSize, name_length)), name_length);
    if (flags & kEncrypted) refuse(name + " is encrypted");
    if (member.packed == 0xFFFFFFFF || member.unpacked == 0xFFFFFFFF || member.offset == 0xFFFFFFFF) {
      refuse(name + " is of a zip64 archive, larger than test vectors are");
    }
    total += member.unpacked;
    if (total > kMaxVectorBytes) {
      refuse("it would unpack to more than " + std::to_string(kMaxVectorBytes) + " bytes");
    }
    members[name] = member;
    at += kCentralSize + name_length + file.u16(at + 30) + file.u16(at + 32);
  }
  return members;
}

// Unpacks a member from its begin on, as it is asked for.
class MemberReader {
 public:
  MemberReader(const Bytes& file, const Member& member) : member_(member) {
    if (file.u32(member.offset) != kLocal) refuse("its directory is damaged");
    const std::uint64_t begin =
        member.offset + kLocalSize + file.u16(member.offset + 26) + file.u16(member.offset + 28);
    packed_ = file.at(begin, member.packed);
    if (member.method == kDeflated) {
      stream_.next_in = const_cast<Bytef*>(packed_);
      stream_.avail_in = static_cast<uInt>(member.packed);
      if (inflateInit2(&stream_, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
      inflating_ = true;
    } else if (member.method != kStored || member.packed != member.unpacked) {
      refuse("it holds a member in a compression that is not read");
    }
  }
  ~MemberReader() {
    if (inflating_) inflateEnd(&stream_);
  }
  MemberReader(const MemberReader&) = delete;
  MemberReader& operator=(const MemberReader&) = delete;

  void read(std::uint8_t* out, std::size_t count) {
    if (count > member_.unpacked - done_) refuse("an array is shorter than it says");
    if (count == 0) return;
    if (!inflating_) {
      std::memcpy(out, packed_ + done_, count);
    } else {
      stream_.next_out = out;
      stream_.avail_out = static_cast<uInt>(count);
      while (stream_.avail_out > 0) {
        const int result = inflate(&stream_, Z_NO_FLUSH);
        if (result != Z_OK && !(result == Z_STREAM_END && stream_.avail_out == 0)) refuse("its data is damaged");
      }
    }
    crc_ = static_cast<std::uint32_t>(crc32_z(crc_, out, count));
    done_ += count;
  }

  void finish() const {
    if (done_ != member_.unpacked) refuse("an array is longer than it says");
    if (crc_ != member_.crc) refuse("its data is damaged (CRC)");
  }

 private:
  const Member& member_;
  const std::uint8_t* packed_ = nullptr;
  z_stream stream_{};
  bool inflating_ = false;
  std::uint64_t done_ = 0;
  std::uint32_t crc_ = 0;
};

std::string type_code(DType dtype) {
  static const char* const codes[] = {"|b1", "|u1", "<i4", "<i8", "<f2", "<f4", "<f8"};
  return codes[static_cast<std::size_t>(dtype)];
}

// Python's spelling of a tuple.
std::string tuple(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// Holds the header of a .npy against what the manifest says.
void check_header(MemberReader& reader, const TensorRecord& tensor) {
  std::uint8_t prefix[12];
  reader.read(prefix, 10);
  if (std::memcmp(prefix, "\x93NUMPY", 6) != 0 || prefix[6] < 1 || prefix[6] > 3) refuse("a member is no .npy file");
  std::size_t length = prefix[8] | prefix[9] << 8;
  if (prefix[6] > 1) {
    reader.read(prefix + 10, 2);
    length |= std::size_t{prefix[10]} << 16 | std::size_t{prefix[11]} << 24;
  }
  if (length > kMaxHeader) refuse("the header of an array is too long");
  std::string header(length, '\0');
  reader.read(reinterpret_cast<std::uint8_t*>(&header[0]), length);
  const std::string wanted = "{'descr': '" + type_code(tensor.dtype) + "', 'fortran_order': False, 'shape': " +
                             tuple(tensor.shape) + ", }";
  header.erase(header.find_last_not_of(" \n") + 1);
  if (header != wanted) refuse(tensor.name + " is " + header.substr(0, 120) + ", the manifest says " + tensor.describe());
}

}  // namespace

Arrays read_npz(const std::string& content, const std::string& path, const std::map<std::string, TensorRecord>& wanted) {
  try {
    const Bytes file(content);
    const std::map<std::string, Member> members = list_members(file);
    Arrays arrays;
    for (const auto& [name, tensor] : wanted) {
      const auto found = members.find(name + ".npy");
      if (found == members.end()) refuse("it holds no " + name);
      std::uint64_t bytes = size_of(tensor.dtype);
      for (const std::int64_t size : tensor.shape) bytes *= static_cast<std::uint64_t>(std::max<std::int64_t>(size, 0));
      if (bytes > found->second.unpacked) refuse(name + " is shorter than the manifest says");
      MemberReader reader(file, found->second);
      check_header(reader, tensor);
      Array array{tensor.dtype, tensor.shape, std::vector<std::uint8_t>(bytes)};
      reader.read(array.bytes.data(), array.bytes.size());
      reader.finish();
      arrays[name] = std::move(array);
    }
    return arrays;
  } catch (const std::runtime_error& error) {
    throw bundle_error(path + " does not hold the vectors that the manifest lists: " + error.what() + ".",
                       "Export the bundle again.");
  }
}

}  // namespace avsbg
