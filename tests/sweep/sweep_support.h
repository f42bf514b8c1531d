#pragma once
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "sfumato/core/file.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/sweep/sweep_plan.h"
#include "support/temp_folder.h"

namespace sfumato::test {

/// A working folder with a record store `store`, a base `base.yaml` and a program `train` in place
/// of training; sweeps lie in it, as in that of a user.
class SweepFolder {
 public:
  SweepFolder() : before_(std::filesystem::current_path()) {
    std::filesystem::current_path(folder_.path());
    write_store("store", 3);
    write("base.yaml",
          "data: {store: store, image_size: 4, channels: 1}\n"
          "privacy: {enabled: false}\nmechanism: {steps: 5}\n");
  }
  ~SweepFolder() { std::filesystem::current_path(before_); }
  SweepFolder(const SweepFolder&) = delete;
  SweepFolder& operator=(const SweepFolder&) = delete;

  void write(const std::filesystem::path& path, const std::string& text) const {
    std::ofstream(path, std::ios::binary) << text;
  }
  void write_store(const std::filesystem::path& path, int count) const {
    RecordStoreWriter writer(path, {4, 4, 1, 0, {}, false, 1}, std::string(32, 'k'));
    for (int i = 0; i < count; ++i)
      writer.append(std::vector<std::uint8_t>(16, static_cast<std::uint8_t>(i)), 0);
    writer.finish({{"note", "by a test"}});
  }
  /// The file of a sweep over public images, with these lines inside `sweep:`.
  void write_sweep(const std::string& lines) const {
    write("sweep.yaml",
          "sweep:\n  name: s\n  base: base.yaml\n  purpose: public_tuning\n"
          "  store_is_public: true\n" +
              lines);
  }
  /// Takes `steps` steps of a tenth of a second's `tenths` each, a line in the file `charged` of
  /// its run for each, and goes on where it was ended. Two at a time in one run would leave the
  /// file `clash`.
  void write_program(int steps, const std::string& pause_s, const std::string& last = "") const {
    write("train",
          "#!/bin/sh\n"
          "while [ \"$1\" != --config ]; do shift; done\n"
          "dir=$(sed -n 's/^  dir: //p' \"$2\")\n"
          "mkdir -p \"$dir\"; cp \"$2\" \"$dir/config.yaml\"\n"
          "exec 8>\"$dir/busy\"; flock -n 8 || echo clash >>clash\n"
          "echo start >>\"$dir/starts\"; touch \"$dir/charged\"\n"
          "while [ $(wc -l <\"$dir/charged\") -lt " +
              std::to_string(steps) +
              " ]; do\n"
              "  echo step >>\"$dir/charged\"; sleep " +
              pause_s + "\ndone\n" + last + "\n");
    ::chmod("train", 0755);
  }

 private:
  TempFolder folder_;
  std::filesystem::path before_;
};

inline std::int64_t lines_in(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return 0;
  const std::string text = read_file(path);
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace sfumato::test
