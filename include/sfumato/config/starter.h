#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sfumato {

/// Public facts about a set of images, each on the word of whoever starts: none is computed from
/// the private ones without somebody saying that it may be known.
struct StarterFacts {
  std::string name;    ///< of the run: folders runs/NAME and stores/NAME
  std::string source;  ///< as it is to be written
  std::int64_t image_size = 32, channels = 3;
  std::vector<std::string> class_names;  ///< empty: none
  std::int64_t num_classes = 0;          ///< without names
  bool merge_folders = false;            ///< the source's folders are no classes
  std::int64_t records = 0;              ///< about how many images, rounded
  std::string users;                     ///< a file; empty: the unit is one image
  std::int64_t records_per_user = 1;
  double target_epsilon = 10;
  std::string init;     ///< public weights; empty: from scratch,
  std::string network;  ///< by this config.json
};

/// One significant digit: 628 -> 600.
std::int64_t rounded_count(std::int64_t count);
/// What an image of this smallest side is prepared to: a power of two up to 64, or 28.
std::int64_t proposed_size(std::int64_t smallest_side);

/// A configuration of these facts, with a comment where there is something to decide, that loads
/// and validates. The batch is a twentieth of `records`, at least 64 and at most a fifth of them.
std::string starter_configuration(const StarterFacts& facts);
/// The config.json of a small UNet for such images.
std::string starter_network(const StarterFacts& facts);

}  // namespace sfumato
