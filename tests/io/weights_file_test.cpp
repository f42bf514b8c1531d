#include "sfumato/io/weights_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class WeightsFiles : public testing::Test {
 protected:
  WeightsFiles() { set_quiet(true); }
  ~WeightsFiles() override { set_quiet(false); }

  void put(const std::string& name, const std::string& text = "{}") const {
    fs::create_directories((folder_ / name).parent_path());
    write_file_atomic(folder_ / name, text);
  }
  std::string weights_of(const std::vector<std::string>& files) const {
    fs::remove_all(folder_ / "net");
    for (const std::string& file : files) put("net/diffusion_pytorch_model" + file);
    return find_weights(folder_ / "net").filename().string().substr(23);
  }
  std::string no_weights(const std::vector<std::string>& files,
                         const std::string& text = "{}") const {
    fs::remove_all(folder_ / "net");
    put("net/config.json");
    for (const std::string& file : files) put("net/diffusion_pytorch_model" + file, text);
    return test::error_message<DataError>([&] { find_weights(folder_ / "net"); });
  }

  test::TempFolder folder_;
};

TEST_F(WeightsFiles, OtherProgramsFilesAreRefusedWithWhatConvertsThem) {
  const auto refusal = [&](const fs::path& named) {
    return test::error_message<DataError>([&] { refuse_unconverted_weights(named); });
  };
  for (const char* name : {"a b.pth", "x.PT", "pytorch_model.bin", "model.ckpt"}) {
    fs::remove_all(folder_ / "other");
    put(std::string("other/") + name, "anything");
    put("other/notes.txt");
    for (const fs::path& named : {folder_ / "other", folder_ / "other" / name})
      EXPECT_THAT(refusal(named), AllOf(HasSubstr(name), HasSubstr("could run any code"),
                                        HasSubstr("scripts/import-checkpoint")));
  }
  EXPECT_THAT(refusal(folder_ / "other"), testing::Not(HasSubstr("unpickle")));
  put("network-snapshot-000001.pkl");
  EXPECT_THAT(refusal(folder_ / "network-snapshot-000001.pkl"),
              AllOf(HasSubstr("program code"), HasSubstr("scripts/unpickle-edm")));
  put("alone.safetensors");
  EXPECT_THAT(refusal(folder_ / "alone.safetensors"), HasSubstr("no config.json"));
  put("notes.txt");
  EXPECT_THAT(refusal(folder_ / "notes.txt"), HasSubstr("is a file; name the folder"));
  fs::remove_all(folder_ / "other");
  put("other/notes.txt");
  EXPECT_NO_THROW(refuse_unconverted_weights(folder_ / "other"));
  EXPECT_NO_THROW(refuse_unconverted_weights(folder_ / "absent"));
}

TEST_F(WeightsFiles, VariantsAreTakenInOneOrder) {
  const std::string plain = ".safetensors", ema = ".ema.safetensors", fp16 = ".fp16.safetensors",
                    non_ema = ".non_ema.safetensors";
  EXPECT_EQ(weights_of({plain, ema, non_ema, fp16}), plain);
  EXPECT_EQ(weights_of({non_ema, ema, fp16}), ema);
  EXPECT_EQ(weights_of({fp16, non_ema}), non_ema);
  EXPECT_EQ(weights_of({fp16, ".bf16.safetensors"}), ".bf16.safetensors");
  EXPECT_EQ(weights_of({".mine.safetensors"}), ".mine.safetensors");
  // Both ways in which versions of diffusers name the index of a variant, and both of its shards.
  const std::string index = ".safetensors.index.fp16.json";
  EXPECT_EQ(weights_of({index, ".fp16-00001-of-00002.safetensors"}), index);
  EXPECT_EQ(weights_of({".fp16.safetensors.index.json", "-00001-of-00002.fp16.safetensors"}),
            ".fp16.safetensors.index.json");
  EXPECT_EQ(weights_of({".safetensors.index.json", index, plain}), plain);
  EXPECT_EQ(weights_of({".safetensors.index.json", index, fp16}), ".safetensors.index.json");
}

TEST_F(WeightsFiles, WithoutWeightsItSaysWhatIsThere) {
  EXPECT_THAT(no_weights({}), HasSubstr("no diffusion_pytorch_model.safetensors"));
  EXPECT_THAT(no_weights({"-00001-of-00002.safetensors"}), HasSubstr("index.json"));
  EXPECT_THAT(no_weights({".one.safetensors", ".two.safetensors"}),
              AllOf(HasSubstr("which weights?"), HasSubstr("two.safetensors")));
  for (const char* file : {".bin", ".fp16.bin", "-00001-of-00002.bin"}) {
    EXPECT_THAT(no_weights({file}), HasSubstr("pickle"));
    EXPECT_THAT(no_weights({file}, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
                HasSubstr("git-lfs pointer"));
  }
}

}  // namespace
}  // namespace sfumato
