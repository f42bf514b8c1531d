#include "sfumato/report/tensorboard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstring>

#include "private_file.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/report/crc32c.h"

static_assert(std::endian::native == std::endian::little, "fixed-width fields are copied");

namespace sfumato {
namespace {

constexpr std::size_t kFlushBytes = 1 << 16;
constexpr double kFlushInterval_s = 5;  // how far a viewer may be behind

// Field numbers of tensorflow.Event, Summary, Summary.Value, Summary.Image and SessionLog.
enum : std::uint32_t {
  kEventWallTime = 1,
  kEventStep = 2,
  kEventFileVersion = 3,
  kEventSummary = 5,
  kEventSession = 7
};
enum : std::uint32_t { kSummaryValue = 1 };
enum : std::uint32_t {
  kValueTag = 1,
  kValueSimple = 2,
  kValueImage = 4,
  kValueTensor = 8,
  kValueMetadata = 9
};
// Of SummaryMetadata, its PluginData, and of the plugin's own messages (tensorboard's
// plugins/hparams/plugin_data.proto, google/protobuf/struct.proto).
enum : std::uint32_t { kMetadataPlugin = 1, kPluginName = 1, kPluginContent = 2 };
enum : std::uint32_t { kHparamsStart = 3, kStartHparams = 1, kMapKey = 1, kMapValue = 2 };
enum : std::uint32_t { kStructNumber = 2, kStructString = 3 };
// Of TensorProto: the plugin wants a value beside its metadata, and takes an empty one.
enum : std::uint32_t { kTensorType = 1, kTensorShape = 2, kShapeDim = 2, kDimSize = 1 };
enum : std::uint32_t { kImageHeight = 1, kImageWidth = 2, kImageColours = 3, kImageEncoded = 4 };
constexpr std::int64_t kColours = 3;  // RGB, which viewers take from the PNG anyway
enum : std::uint32_t { kSessionStatus = 1 };
constexpr std::int64_t kSessionStart = 1;  // SessionLog.START

// Wire types of the protocol buffer encoding.
enum : std::uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

/// Appends the fields of one protocol buffer message.
class Message {
 public:
  Message& integer(std::uint32_t field, std::int64_t value) {
    key(field, kVarint);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  Message& number(std::uint32_t field, double value) {
    key(field, kFixed64);
    return fixed(value);
  }
  Message& number(std::uint32_t field, float value) {
    key(field, kFixed32);
    return fixed(value);
  }
  Message& bytes(std::uint32_t field, std::string_view value) {
    key(field, kLengthDelimited);
    varint(value.size());
    out_.append(value);
    return *this;
  }
  const std::string& text() const { return out_; }

 private:
  void key(std::uint32_t field, std::uint32_t type) { varint(field << 3 | type); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }
  template <class T>
  Message& fixed(T value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    out_.append(raw, sizeof value);
    return *this;
  }

  std::string out_;
};

template <class T>
std::string little_endian(T value) {
  std::string raw(sizeof value, '\0');
  std::memcpy(raw.data(), &value, sizeof value);
  return raw;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

constexpr std::string_view kNameStart = "events.out.tfevents.";

/// The time in the name of the folder's newest event file; 0 if there is none.
std::int64_t newest_time(const std::filesystem::path& folder) {
  std::int64_t newest = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kNameStart)) continue;
    std::int64_t time = 0;
    std::from_chars(name.data() + kNameStart.size(), name.data() + name.size(), time);
    // More digits would not be read in the order of time.
    if (time < 9'999'999'999) newest = std::max(newest, time);
  }
  return newest;
}

/// A name that no other writer of the folder has and that comes after all others: readers take the
/// files in the order of their names, also after a restart within one second or with another clock.
std::filesystem::path event_file(const std::filesystem::path& folder) {
  char host[256] = "localhost";
  if (::gethostname(host, sizeof host - 1) != 0 || std::strchr(host, '/') != nullptr)
    std::strcpy(host, "localhost");
  static std::atomic<int> files{0};
  const std::int64_t time =
      std::max(static_cast<std::int64_t>(unix_time()), newest_time(folder) + 1);
  std::filesystem::path path;
  do {
    path = folder / fmt::format("{}{:010}.{}.{}.{}", kNameStart, time, host, ::getpid(), files++);
  } while (std::filesystem::exists(path));
  return path;
}

std::string summary_of(const Message& value) {
  return Message().bytes(kSummaryValue, value.text()).text();
}

}  // namespace

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder,
                                     std::optional<std::int64_t> first_step) {
  make_folder(folder, 0700);
  path_ = event_file(folder);
  flushed_at_s_ = unix_time();
  fd_ = private_file::open(path_, O_WRONLY | O_EXCL);
  add_event(Message().bytes(kEventFileVersion, "brain.Event:2").text());
  if (!first_step) return;
  const Message session = Message().integer(kSessionStatus, kSessionStart);
  add_event(Message().integer(kEventStep, *first_step).bytes(kEventSession, session.text()).text());
}

TensorBoardWriter::~TensorBoardWriter() {
  try {
    flush();
  } catch (const Error& error) {
    log_warning(error.what());
  }
  ::close(fd_);
}

void TensorBoardWriter::add_scalar(std::string_view tag, std::int64_t step, double value) {
  const Message scalar =
      Message().bytes(kValueTag, tag).number(kValueSimple, static_cast<float>(value));
  add_event(Message().integer(kEventStep, step).bytes(kEventSummary, summary_of(scalar)).text());
}

void TensorBoardWriter::add_hparams(
    const std::vector<std::pair<std::string, std::string>>& settings) {
  Message start;
  for (const auto& [name, text] : settings) {
    const std::optional<double> number = parse_double(text);
    const Message value =
        number ? Message().number(kStructNumber, *number) : Message().bytes(kStructString, text);
    start.bytes(kStartHparams,
                Message().bytes(kMapKey, name).bytes(kMapValue, value.text()).text());
  }
  const Message content = Message().bytes(kHparamsStart, start.text());
  const Message plugin =
      Message().bytes(kPluginName, "hparams").bytes(kPluginContent, content.text());
  const Message dim = Message().integer(kDimSize, 0);
  const Message tensor = Message()
                             .integer(kTensorType, 1)
                             .bytes(kTensorShape, Message().bytes(kShapeDim, dim.text()).text());
  const Message value =
      Message()
          .bytes(kValueTag, "_hparams_/session_start_info")
          .bytes(kValueTensor, tensor.text())
          .bytes(kValueMetadata, Message().bytes(kMetadataPlugin, plugin.text()).text());
  add_event(Message().integer(kEventStep, 0).bytes(kEventSummary, summary_of(value)).text());
}

void TensorBoardWriter::add_image(std::string_view tag, std::int64_t step, std::string_view png,
                                  std::int64_t height, std::int64_t width) {
  const Message image = Message()
                            .integer(kImageHeight, height)
                            .integer(kImageWidth, width)
                            .integer(kImageColours, kColours)
                            .bytes(kImageEncoded, png);
  const Message value = Message().bytes(kValueTag, tag).bytes(kValueImage, image.text());
  add_event(Message().integer(kEventStep, step).bytes(kEventSummary, summary_of(value)).text());
}

void TensorBoardWriter::add_event(std::string_view fields) {
  const double now_s = unix_time();
  std::string event = Message().number(kEventWallTime, now_s).text();
  event += fields;
  const std::string length = little_endian<std::uint64_t>(event.size());
  pending_ += length + little_endian(masked_crc32c(length));
  pending_ += event + little_endian(masked_crc32c(event));
  const bool is_due = now_s - flushed_at_s_ >= kFlushInterval_s || now_s < flushed_at_s_;
  if (is_due || pending_.size() >= kFlushBytes) flush();
}

void TensorBoardWriter::flush() {
  // Cleared even if the disk refuses: a record written in part must not be followed by itself.
  std::string bytes;
  bytes.swap(pending_);
  flushed_at_s_ = unix_time();
  private_file::append(fd_, bytes, path_);
}

}  // namespace sfumato
