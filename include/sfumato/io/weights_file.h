#pragma once
#include <filesystem>

namespace sfumato {

/// The file to open in a network's folder: diffusion_pytorch_model.safetensors or its index, as
/// diffusers takes it without being told a variant; where only variants exist, the first there is
/// of ema, non_ema, fp32, bf16, fp16, or the only one (variant "x": ...x.safetensors,
/// ....safetensors.index.x.json, ...x.safetensors.index.json). Says which variant it took among
/// several. DataError, with what is there instead (a pickle, shards without an index, a choice that
/// it cannot make), if there is none.
std::filesystem::path find_weights(const std::filesystem::path& unet_folder);

/// DataError where `named`, which should be a network's folder, is a file of weights of other
/// programs (.pkl, .pth, .pt, .bin, .ckpt, .safetensors), or a folder with such files and no
/// network: what to convert it with. Nothing in such a file is read: a pickle could run any code.
void refuse_unconverted_weights(const std::filesystem::path& named);

}  // namespace sfumato
