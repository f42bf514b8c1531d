// What `init` sees of private images before anybody says what of it is public.
#include "sfumato/data/source_look.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/image_codec.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void write_picture(const std::filesystem::path& path, std::int64_t height, std::int64_t width,
                   bool colours) {
  std::filesystem::create_directories(path.parent_path());
  Image image{height, width, 3,
              std::vector<std::uint8_t>(static_cast<size_t>(height * width * 3), 9)};
  if (colours) image.pixels[4] = 200;
  write_file_atomic(path, encode_png(image));
}

TEST(SourceLook, CountsAndNamesWhatPrepareWouldRead) {
  const TempFolder folder;
  write_picture(folder / "set/dog/1.png", 40, 30, false);
  write_picture(folder / "set/cat/1.png", 64, 64, true);
  write_picture(folder / "set/cat/2.png", 64, 64, false);
  write_file_atomic(folder / "set/cat/notes.txt", "x");
  const SourceLook look = look_at_source(folder / "set");
  EXPECT_EQ(look.format, "folder");
  EXPECT_EQ(look.images, 3);
  EXPECT_THAT(look.class_names, ElementsAre("cat", "dog"));
  EXPECT_EQ(look.smallest_side, 30);
  EXPECT_EQ(look.channels, 3);
  EXPECT_EQ(look.unread_files, 1);
}

TEST(SourceLook, AFlatFolderHasNoClasses) {
  const TempFolder folder;
  for (const char* name : {"a.png", "b.png"}) write_picture(folder / "set" / name, 20, 20, false);
  const SourceLook look = look_at_source(folder / "set");
  EXPECT_EQ(look.images, 2);
  EXPECT_THAT(look.class_names, IsEmpty());
  EXPECT_EQ(look.numbered_classes, 0);
  EXPECT_EQ(look.channels, 1) << "stored in colours, and grey";
}

TEST(SourceLook, SaysWhatBoundsOfUsersKeep) {
  const TempFolder folder;
  for (const char* name : {"a.png", "x/b.png", "c.png"})
    write_picture(folder / "set" / name, 20, 20, false);
  write_file_atomic(folder / "u.csv", "user,file\nAnn,a.png\nAnn,x/b.png\nBob,c.png\n");
  EXPECT_EQ(kept_by_bound_text(look_at_users(folder / "set", folder / "u.csv")),
            "1 keeps 2 of 3 (1 dropped), 2: 3");
  write_file_atomic(folder / "u.csv", "user,file\nAnn,a.png\nAnn,b.png\nBob,c.png\n");
  EXPECT_THAT(
      error_message<DataError>([&] { (void)look_at_users(folder / "set", folder / "u.csv"); }),
      HasSubstr("'x/b.png'"));
}

TEST(SourceLook, NothingToSeeIsAnError) {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "set");
  EXPECT_THAT(error_message<DataError>([&] { (void)look_at_source(folder / "set"); }),
              HasSubstr("no images"));
  write_file_atomic(folder / "set/broken.png", "no picture");
  EXPECT_THAT(error_message<DataError>([&] { (void)look_at_source(folder / "set"); }),
              HasSubstr("readable"));
}

}  // namespace
}  // namespace sfumato
