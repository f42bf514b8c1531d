#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sfumato {

/// Writes a TensorBoard event file: TFRecord framing around tensorflow.Event messages (fields from
/// tensorflow's event.proto and summary.proto), encoded by hand so that no protobuf library is
/// needed. What it holds usually comes from private data: the file has mode 0600, and a folder that
/// has to be made gets 0700.
class TensorBoardWriter {
 public:
  /// Starts events.out.tfevents.<unix time>.<host>.<pid>.<n> in `folder`; a resumed run starts a
  /// further file, which TensorBoard reads after the earlier ones, whatever the clock says. With
  /// `first_step` it begins by saying that a session starts there: readers drop what earlier files
  /// hold of this step and later ones. DataError if the file cannot be made.
  explicit TensorBoardWriter(const std::filesystem::path& folder,
                             std::optional<std::int64_t> first_step = {});
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  void add_scalar(std::string_view tag, std::int64_t step, double value);
  /// A picture, as the bytes of a PNG of this size.
  void add_image(std::string_view tag, std::int64_t step, std::string_view png, std::int64_t height,
                 std::int64_t width);

  /// The settings of a run, as TensorBoard's HParams tab lists them; numbers are told from words.
  void add_hparams(const std::vector<std::pair<std::string, std::string>>& settings);

  /// Hands what was added to the operating system. Adding does so by itself every few seconds,
  /// the destructor at the end. DataError (disk full, ...) names the file.
  void flush();
  const std::filesystem::path& path() const { return path_; }

 private:
  void add_event(std::string_view fields);

  std::filesystem::path path_;
  int fd_ = -1;
  std::string pending_;
  double flushed_at_s_ = 0;
};

}  // namespace sfumato
