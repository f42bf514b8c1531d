#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace sfumato {

enum class RankState { kWorking, kLeft, kGone, kFailed };

/// What a rank tells the others besides its calls.
struct SignOfLife {
  int64_t beat = 0;   ///< one more with every sign: it lives
  int64_t calls = 0;  ///< collective calls that it has come to: it works
  bool holds = false;
  RankState state = RankState::kWorking;
  int64_t culprit = -1;  ///< for whose sake it failed; -1: by itself

  std::string text() const;
  /// Nothing of a sign that is not one.
  static SignOfLife of(const std::string& text);
  bool operator==(const SignOfLife&) const = default;
};

/// Where ranks leave their signs and look for those of others. Both calls may block for any time,
/// and throw for good where the board cannot be reached any more.
class SignBoard {
 public:
  virtual ~SignBoard() = default;
  virtual void post(const std::string& sign) = 0;
  /// Of all ranks, by rank.
  virtual std::vector<std::string> read() = 0;
};

struct WatchOptions {
  std::chrono::milliseconds silence{30000};  ///< as in RankOptions
  std::chrono::milliseconds stuck{600000};
  bool serves_board = false;  ///< this rank must be the last to end
  int64_t board_server = 0;   ///< the rank to blame if the board is out of reach; -1: none
  std::string board = "the store of names";
  /// Ends the process, from a thread of the watch. By default with a message and status 5.
  std::function<void(const std::string& message)> end_process;
};

/// Sees to it that no rank waits for ever for one that died, was stopped, hangs or is cut off, in
/// whatever it does. One thread exchanges signs of life over the board, and may block there;
/// another, which touches nothing that can block, judges them. What it finds is thrown at this
/// rank's next call as a LostRank. If there is none within a second, the process is ended: with
/// nothing half-written, since files of a run are whole or ignored, but not while it holds.
class RankWatch {
 public:
  /// `names`: "rank 3 on node-b", of all. The board has signs of all ranks by now.
  RankWatch(std::unique_ptr<SignBoard> board, int64_t rank, std::vector<std::string> names,
            WatchOptions options);
  /// Stops watching. Whoever has not left is lost to the others from now on, who are told.
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  /// Around each collective call. LostRank if one is lost.
  void call_begins();
  void call_ends();
  /// A call failed for `reason`: waits until it is known who is to blame, at most options.silence,
  /// and gives the message. All later calls throw it.
  std::string blame(const std::string& reason);
  void hold_begins();
  void hold_ends();
  /// Returns when all have left; LostRank.
  void leave();

 private:
  class Watched;
  std::shared_ptr<Watched> watched_;
};

}  // namespace sfumato
