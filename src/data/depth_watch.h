#pragma once
#include <nlohmann/json_fwd.hpp>
#include "duplicate_table.h"

#include "sfumato/data/prepare.h"
#include "sfumato/io/image_codec.h"

namespace sfumato {

/// Follows pictures with 16-bit samples through a preparation.
class DepthWatch {
 public:
  /// A picture that was decoded.
  void note(const DeepSamples& samples);
  /// One that becomes a record: its digest after the depth was cut.
  void note_record(const PixelDigest& stored, std::int32_t label);
  const DepthReport& report() const { return report_; }
  /// What the holder of the data must hear about how they come to 8 bits; empty: nothing.
  std::string warning(const PrepareOptions& options) const;

 private:
  DepthReport report_;
  DuplicateTable stored_;
};

nlohmann::json depth_json(const DepthReport& depth);

}  // namespace sfumato
