#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/diffusion_sections.h"
#include "sfumato/config/settings_tree.h"
#include "sfumato/config/stage_sections.h"
#include "sfumato/core/choices.h"

// The declarations. A new setting is one more member here: the YAML reader, overrides, --help,
// resolved files and configs/base.yaml follow. Keep help texts as full sentences; the first one
// is the line shown by --help.
//
// One layout for all: what a setting is on the first line, its help below.
// clang-format off
namespace sfumato {

struct RunSettings : Section {
  explicit RunSettings(SettingsTree* tree);

  Setting<std::string> dir{this, "dir", "runs/default", not_empty(), "",
      "Run directory: resolved configuration, ledger, private/ and release/ are written here."};
  Setting<int64_t> seed{this, "seed", 0, at_least(0), "",
      "Seeds initial weights, diffusion draws and augmentation. It never reaches the privacy "
      "noise or the Poisson sampling: these are keyed by the operating system."};
  Setting<int64_t> log_every{this, "log_every", 1, at_least(1), "steps",
      "A progress line and one row of private metrics every n-th step."};
  Setting<int64_t> checkpoint_every{this, "checkpoint_every", 50, at_least(1), "steps",
      "A checkpoint every n-th step, and one at the end or when interrupted. Steps lost in a "
      "crash stay charged to the budget."};
  Setting<double> checkpoint_minutes{this, "checkpoint_minutes", 5.0, at_least(0), "minutes",
      "A checkpoint as well where the last one is older than this, so that a crash loses no more; 0 "
      "counts steps alone."};
  Setting<int64_t> keep_last{this, "keep_last", 2, at_least(1), "checkpoints",
      "The newest n checkpoints are kept."};
  Setting<int64_t> keep_every{this, "keep_every", 0, at_least(0), "steps",
      "Checkpoints at multiples of this step are kept as well; 0 keeps only the newest."};
  Setting<std::string> sweep{this, "sweep", "", any_value(), "",
      "Set by sfumato sweep: the plan (SHA-256) and the place in it of a run that is one of many."};
  Setting<bool> private_warnings{this, "private_warnings", false, any_value(), "",
      "Shows at the terminal too what warnings tell of the private images, such as that "
      "mechanism.expected_batch_size does not fit how many there are. They are written to "
      "private/warnings.txt in any case, and never released: for a terminal that nobody else reads "
      "or records."};
};

struct DataSettings : Section {
  explicit DataSettings(SettingsTree* tree);

  Setting<std::string> source{this, "source", "", any_value(), "",
      "Private images that prepare reads: a folder with one sub-folder per class or with a "
      "metadata.csv, a tar, tar.gz or zip of one, WebDataset tars (a folder of them, or a pattern "
      "as shards/{000..003}.tar), a numpy archive (.npz, .npy), an IDX image file (plain or gz), or "
      "a CIFAR binary file or folder. What lies inside is named as in a folder: images.zip/train."};
  Setting<std::string> labels{this, "labels", "", any_value(), "",
      "Labels that lie apart from the images: an IDX file for an IDX source; an .npy file, or "
      "ARCHIVE.npz/ARRAY, for a numpy one. Empty for none."};
  Setting<std::string> label_column{this, "label_column", "label", not_empty(), "",
      "Column of metadata.csv or metadata.jsonl (or member of the JSON in a WebDataset) that holds "
      "the class of an image."};
  Setting<std::string> users{this, "users", "", any_value(), "",
      "CSV file that says whose each image is, with the columns file and user, others beside them: a "
      "first line 'file,user', then lines as 'cat/1.jpg,anna', paths within the source. With it the "
      "unit of privacy is a user's records_per_user images; without it, one image."};
  Setting<SourceFormat> format{this, "format", SourceFormat::kAuto,
      "Layout of the source; auto recognises it."};
  Setting<std::string> store{this, "store", "stores/default", not_empty(), "",
      "Record store that prepare writes and train reads. It is private."};
  Setting<int64_t> image_size{this, "image_size", 32, between(4, 1024), "pixels",
      "Side of the square images: they are centre-cropped and resized to it."};
  Setting<int64_t> channels{this, "channels", 3, one_of({"1", "3"}), "",
      "1 for grey, 3 for RGB; images are converted."};
  Setting<int64_t> num_classes{this, "num_classes", 0, at_least(0), "classes",
      "Number of classes, a public number; 0 trains without classes. It is never counted from "
      "the private set: a label outside 0..num_classes-1 is an error. With class names it follows "
      "from them."};
  Setting<std::vector<std::string>> class_names{this, "class_names", {}, any_value(), "",
      "Names of the classes, public literals: the first is label 0. A class of the source that is "
      "not in the list is an error, so no image can change the labels of others. Empty: prepare "
      "proposes the names that it finds, or calls classes by the numbers that the source has."};
  Setting<std::string> class_names_file{this, "class_names_file", "", any_value(), "",
      "A file with the class names, one a line, instead of class_names; read when the program "
      "starts."};
  Setting<bool> merge_folders{this, "merge_folders", false, any_value(), "",
      "Takes the images of all sub-folders as one set without classes. Where data.num_classes is 0 or "
      "1 and the source has sub-folders that may be classes, prepare asks for this word or for the "
      "classes, because classes that are forgotten are lost without a trace."};
  Setting<std::vector<std::string>> allow_empty_classes{this, "allow_empty_classes", {},
      any_value(), "",
      "Classes that may have no image, by name: a public list, and sample draws none of them unless "
      "asked to. [\"*\"] allows it for every class and says nothing of any. Everywhere else a "
      "class without an image is an error."};
  Setting<int64_t> records_per_user{this, "records_per_user", 1, at_least(1), "images",
      "At most this many images of each user are kept; it matters only with data.users and is "
      "then part of the unit of privacy."};
  Setting<double> holdout{this, "holdout", 0.0, between(0, 0.5), "",
      "Share of the users, or without data.users of the images, that prepare puts into STORE-holdout "
      "instead, which training never reads: for evaluations and audits. Which ones, a public hash "
      "of each one's own name says. They are private, and numbers computed from them have no "
      "guarantee. What mechanism says of how many records there are is about the others."};
  Setting<bool> skip_unreadable{this, "skip_unreadable", false, any_value(), "",
      "Skips and counts images that cannot be read, instead of stopping at the first."};
  Setting<DamagedPictures> damaged{this, "damaged", DamagedPictures::kRefuse,
      "What becomes of pictures that a decoder can only mend: JPEGs with lost or changed bytes. "
      "refuse: they are unreadable, because what is missing comes out grey, shifted or in false "
      "colours, and would be learnt; keep: they are taken as libjpeg mends them, named and "
      "counted."};
  Setting<DepthRule> depth{this, "depth", DepthRule::kFull,
      "How pictures of 16 bits come to 8. full: the upper 8 bits are kept; min_max: the numbers of "
      "depth_range become 0 and 255, what lies outside is cut off. Pictures of 8 bits stay as "
      "they are."};
  Setting<std::vector<int64_t>> depth_range{this, "depth_range", {}, between(0, 65535), "",
      "For depth min_max: the two sample values that become black and white, such as 0,4095 for a "
      "detector of 12 bits. Public literals that follow from how pictures are made, never taken "
      "from the private ones, of whose extremes they would be a statistic."};
  Setting<int64_t> max_megapixels{this, "max_megapixels", 64, between(1, 1000), "megapixels",
      "Larger pictures are refused from their header, before memory is taken for them; decoding "
      "takes about 10 MB a megapixel."};
  Setting<bool> deduplicate{this, "deduplicate", true, any_value(), "",
      "Keeps one of images whose prepared pixels and labels are identical."};
};

struct ModelSettings : Section {
  explicit ModelSettings(SettingsTree* tree);

  Setting<std::string> family{this, "family", "diffusion", any_value(), "",
      "Family of the generator that is trained: diffusion or gan."};
  Setting<std::string> init{this, "init", "", any_value(), "",
      "Folder with a pretrained network in diffusers layout, or with generator/ and discriminator/; "
      "empty trains from scratch. It "
      "must have been trained on public data only, or be what an earlier private run released, "
      "whose stages mechanism.declared then lists."};
  Setting<bool> init_is_public{this, "init_is_public", false, any_value(), "",
      "States that model.init, whose privacy card says NOT PRIVATE, was trained on public images "
      "alone. Without it such weights are refused; with it the new card says on whose word."};
  Setting<std::vector<std::string>> overrule_init{this, "overrule_init", {},
      one_of({"data.image_size", "data.channels", "diffusion.parameterization",
              "diffusion.sigma_data", "diffusion.prediction", "diffusion.schedule",
              "diffusion.num_train_timesteps", "diffusion.beta_start", "diffusion.beta_end",
              "diffusion.rescale_betas_zero_snr", "sample.clip_sample_range"}), "",
      "Settings that differ on purpose from what the files of model.init say. Others are taken from "
      "there where the configuration is silent, and a contradiction is an error."};
  Setting<std::string> config{this, "config", "", any_value(), "",
      "A diffusers config.json that describes the network when training from scratch."};
  Setting<std::vector<std::string>> trainable{this, "trainable", {"*"}, not_empty(), "",
      "Glob patterns of the parameter names that train; everything else is frozen. Fewer trained "
      "parameters mean less noise in total. Of a GAN those of the discriminator: the generator trains "
      "whole."};
  Setting<double> class_embedding_std{this, "class_embedding_std", 0.02, at_least(0), "",
      "Standard deviation of a newly made class embedding. In a GAN the \"initialization\" of its "
      "config.json says that."};
  Setting<double> class_embedding_scale{this, "class_embedding_scale", 1.0, greater_than(0), "",
      "Factor on the pretrained class rows that are kept when the number of classes changes."};
  Setting<bool> reuse_class_rows{this, "reuse_class_rows", false, any_value(), "",
      "Keeps the first rows of the pretrained class table when the number of classes differs, "
      "instead of drawing new ones."};
};

struct PrivacySettings : Section {
  explicit PrivacySettings(SettingsTree* tree);

  Setting<bool> enabled{this, "enabled", true, any_value(), "",
      "false is ordinary training without clipping, noise or any guarantee. The privacy card "
      "then says NOT PRIVATE."};
};

struct MechanismSettings : Section {
  explicit MechanismSettings(SettingsTree* tree);

  Setting<double> sample_rate{this, "sample_rate", 0.01, above_up_to(0, 1), "",
      "Probability q with which each record independently enters a step (Poisson sampling). A "
      "public literal, never computed from the size of the private set."};
  Setting<int64_t> steps{this, "steps", 1000, at_least(1), "steps",
      "Number of noisy steps, a public literal; each is charged to the budget."};
  Setting<double> expected_batch_size{this, "expected_batch_size", 256.0,
      greater_than(0), "records",
      "Divisor of the noisy sum: about sample_rate times a public estimate of the number of "
      "records. A literal, never computed from the private set."};
  Setting<double> clip_norm_l2{this, "clip_norm_l2", 1.0, greater_than(0), "",
      "Bound C on the L2 norm of what one record adds to the sum; the noise has standard "
      "deviation noise_multiplier times C."};
  Setting<Clipping> clipping{this, "clipping", Clipping::kFlat,
      "How a record's gradient is bounded. flat: multiplied by min(1, C / norm); per_layer: each "
      "layer to its share of C; automatic: multiplied by C / (norm + automatic_gamma) (AUTO-S)."};
  Setting<double> automatic_gamma{this, "automatic_gamma", 0.01, greater_than(0), "",
      "Stabiliser in the factor of automatic clipping."};
  Setting<std::optional<double>> noise_multiplier{this, "noise_multiplier", std::nullopt,
      greater_than(0), "",
      "Standard deviation of the noise divided by clip_norm_l2. Set exactly one of this and "
      "target_epsilon."};
  Setting<std::optional<double>> target_epsilon{this, "target_epsilon", std::nullopt,
      greater_than(0), "",
      "The ε that all stages and steps together may spend; the noise multiplier is calibrated to "
      "what the stages leave. Set exactly one of this and noise_multiplier."};
  Setting<double> delta{this, "delta", 1e-5, strictly_between(0, 1), "",
      "The δ of the (ε, δ) guarantee; choose it well below one over the number of records."};
  Setting<Adjacency> adjacency{this, "adjacency", Adjacency::kZeroOut,
      "What the guarantee compares: two sets that differ by one record added or removed, blanked "
      "out (the number of records is then public), or replaced (ε is larger)."};
  Setting<Accountant> accountant{this, "accountant", Accountant::kPld,
      "How ε is computed. pld: privacy loss distributions, tight, with a lower and an upper end "
      "of which the upper one is claimed; rdp: Rényi differential privacy, a looser upper bound."};
  Setting<int64_t> candidates{this, "candidates", 1, at_least(1), "runs",
      "Runs on this private set among which the result is chosen, this one included; each is "
      "charged in full, whatever the rule of choice. The choice may look at what the runs release "
      "and at public data. One that looks at private data (metrics under private/) is a use of "
      "its own: make it with a private mechanism and declare that, or do not make it."};
  Setting<std::vector<std::string>> declared{this, "declared", {}, any_value(), "",
      "Uses of the private data made elsewhere that count towards this budget: "
      "'sample_rate:noise_multiplier:steps', 'gaussian:sensitivity:stddev[:count]' or "
      "'approximate:epsilon:delta[:count]'."};
};

/// A private selection: a random number of runs, of which only the best leaves.
struct SelectionSettings : Section {
  explicit SelectionSettings(SettingsTree* tree);

  Setting<double> mean_runs{this, "mean_runs", 0.0, at_least(0), "runs",
      "Runs on average, at least 1; 0: no selection, the claim is about this run alone. With a "
      "selection every ε (target_epsilon, the card's) is that of the whole: only the best run may "
      "leave, by any score of what it releases, and nothing of the others, not even their number."};
  Setting<SelectionFamily> law{this, "law", SelectionFamily::kLogarithmic,
      "Law of the number of runs, which is drawn in secret and never cut. logarithmic costs the "
      "least ε and has a long tail of runs; geometric is steadier in compute; negative_binomial "
      "takes eta. `sfumato account --selection` shows the quantiles before."};
  Setting<double> eta{this, "eta", 0.5, between(0, 100), "",
      "Shape of the law negative_binomial: 0 is logarithmic, 1 geometric. Other laws have no use "
      "for it."};
};

struct GanSettings : Section {
  explicit GanSettings(SettingsTree* tree);

  Setting<GanLoss> loss{this, "loss", GanLoss::kHinge,
      "What the discriminator learns from a record's image and its fakes. hinge and logistic score "
      "each by itself; relativistic scores the difference of the two, inside one record. The "
      "relativistic average, or anything else over a batch, is no loss of one record and cannot be "
      "private."};
  Setting<int64_t> fakes{this, "fakes", 1, between(1, 64), "fakes per image",
      "Number M of fake images beside each private one. They and it are one example: one loss (that "
      "of the image plus the mean of the fakes'), one clip, so M costs time and no privacy."};
  Setting<double> approximated_r1{this, "approximated_r1", 0.0, at_least(0), "",
      "Weight of (D(x) - D(x + noise))² for private images x, which keeps the discriminator smooth "
      "around them without second derivatives; 0 is off, 100 is usual. One more draw."};
  Setting<double> approximated_r2{this, "approximated_r2", 0.0, at_least(0), "",
      "The same for fakes; 0 is off. One more draw for each fake."};
  Setting<double> regulariser_noise{this, "regulariser_noise", 0.01, greater_than(0), "",
      "Standard deviation of the noise of approximated_r1 and approximated_r2; images have values "
      "in [-1, 1]."};
  Setting<int64_t> discriminator_steps{this, "discriminator_steps", 1, at_least(1), "steps",
      "Private steps of the discriminator for each turn of the generator; where adaptive, those to "
      "begin with."};
  Setting<bool> adaptive{this, "adaptive", true, any_value(), "",
      "Raises discriminator_steps where the discriminator finds too few fakes, to the next of 1, 2, 5, "
      "10 and so on up to 5000, and never lowers it. It looks at public fakes alone."};
  Setting<double> adaptive_threshold{this, "adaptive_threshold", 0.6, between(0, 1), "",
      "Raises when the average share of fakes that the discriminator finds is at most this."};
  Setting<int64_t> adaptive_patience{this, "adaptive_patience", 200, at_least(1), "generator steps",
      "At least this many steps of the generator lie between two raises."};
  Setting<double> adaptive_average{this, "adaptive_average", 0.99, from_below(0, 1), "",
      "Decay of the average share, which moves once for each step of the generator."};
  Setting<int64_t> generator_steps{this, "generator_steps", 1, at_least(1), "steps",
      "Steps of the generator in each of its turns: post-processing of what the noise protects, "
      "which costs no privacy."};
  Setting<int64_t> generator_batch{this, "generator_batch", 128, between(2, 65536), "fakes",
      "Fakes in a step of the generator."};
  Setting<double> generator_learning_rate{this, "generator_learning_rate", 2e-4, greater_than(0), "",
      "Learning rate of the generator, whose update rule is Adam. The section optimizer is the "
      "discriminator's, but for ema_decay and ema_warmup: the generator is averaged, and it alone."};
  Setting<double> generator_beta1{this, "generator_beta1", 0.0, from_below(0, 1), "",
      "Decay of the mean of the generator's gradients."};
  Setting<double> generator_beta2{this, "generator_beta2", 0.999, from_below(0, 1), "",
      "Decay of the mean of the generator's squared gradients."};
  Setting<double> mode_seeking{this, "mode_seeking", 0.0, at_least(0), "",
      "Weight of the generator's mode-seeking loss, which asks that fakes of one class lie as far apart "
      "as their latents do, against a class that becomes one image; 0 is off. It looks at fakes alone."};
  Setting<bool> horizontal_flip{this, "horizontal_flip", false, any_value(), "",
      "Mirrors a record's image and its fakes together, with probability 1/2; the generator's fakes "
      "as well, through which it learns all the same."};
  Setting<int64_t> shift_pixels{this, "shift_pixels", 0, between(0, 64), "pixels",
      "Shifts them together by up to this much in each direction; edges are repeated."};
  Setting<double> cutout{this, "cutout", 0.0, between(0, 0.9), "",
      "Blanks a square of them together, whose side is this share of the image's; 0 is off."};
  Setting<std::string> generator_config{this, "generator_config", "", any_value(), "",
      "A config.json that describes the generator when training from scratch."};
  Setting<std::string> discriminator_config{this, "discriminator_config", "", any_value(), "",
      "A config.json that describes the discriminator when training from scratch, or beside a "
      "pretrained generator that has none."};
  Setting<bool> release_discriminator{this, "release_discriminator", false, any_value(), "",
      "Puts the discriminator into release/ too, as later trainings need it. In a private "
      "run its weights are protected by the same noise; without it they stay in private/."};
};

struct OptimizerSettings : Section {
  explicit OptimizerSettings(SettingsTree* tree);

  Setting<OptimizerKind> name{this, "name", OptimizerKind::kAdam,
      "Update rule that takes the noisy gradient."};
  Setting<double> learning_rate{this, "learning_rate", 1e-3, at_least(0), "",
      "Peak learning rate."};
  Setting<double> class_embedding_learning_rate_scale{this, "class_embedding_learning_rate_scale", 1.0,
      greater_than(0), "",
      "Factor on the learning rate of the class embedding; of a GAN, that of the discriminator."};
  Setting<double> beta1{this, "beta1", 0.9, from_below(0, 1), "",
      "Decay of the mean of gradients (adam, adamw)."};
  Setting<double> beta2{this, "beta2", 0.999, from_below(0, 1), "",
      "Decay of the mean of squared gradients (adam, adamw)."};
  Setting<double> eps{this, "eps", 1e-8, greater_than(0), "",
      "Added to the denominator of the update (adam, adamw)."};
  Setting<double> weight_decay{this, "weight_decay", 0.0, at_least(0), "",
      "Weight decay: added to the gradient after the noise (sgd, adam), decoupled (adamw)."};
  Setting<double> momentum{this, "momentum", 0.0, from_below(0, 1), "",
      "Momentum (sgd)."};
  Setting<int64_t> warmup_steps{this, "warmup_steps", 0, at_least(0), "steps",
      "The learning rate grows linearly over the first n steps."};
  Setting<RateDecay> decay{this, "decay", RateDecay::kConstant,
      "Course of the learning rate after the warm-up."};
  Setting<double> final_learning_rate_fraction{this, "final_learning_rate_fraction", 0.0,
      between(0, 1), "",
      "Learning rate at the end of cosine decay, as a fraction of the peak."};
  Setting<double> ema_decay{this, "ema_decay", 0.999, from_below(0, 1), "",
      "Decay of the moving average of the weights, which is what release/ holds; 0 releases the "
      "last weights."};
  Setting<bool> ema_warmup{this, "ema_warmup", true, any_value(), "",
      "Starts the average fast: step n uses min(ema_decay, (1+n)/(10+n))."};
};

struct WarmupSettings : Section {
  explicit WarmupSettings(SettingsTree* tree);

  Setting<int64_t> steps{this, "steps", 0, at_least(0), "steps",
      "Ordinary training steps on the noisy central images before the first private step; 0 is "
      "off. They need mechanism.stages.central_images and cost no privacy: post-processing. "
      "warmup.gaussians.steps and warmup.embedding.steps are those on what other stages tell."};
  Setting<double> learning_rate{this, "learning_rate", 1e-3, greater_than(0), "",
      "Learning rate of the warm-up, constant. The update rule is the optimizer's; its state and "
      "the moving average begin afresh with the first private step."};
  Setting<int64_t> batch{this, "batch", 64, between(1, 65536), "images",
      "Released or generated images in a warm-up step, drawn with repetition."};
};

/// What follows from mechanism.stages.class_gaussians.
struct GaussiansWarmupSettings : Section {
  explicit GaussiansWarmupSettings(SettingsTree* tree);

  Setting<int64_t> steps{this, "steps", 0, at_least(0), "steps",
      "Warm-up steps on images drawn from the Gaussian of each class, after those on central images; 0 "
      "is off. They need mechanism.stages.class_gaussians and take warmup.batch and "
      "warmup.learning_rate."};
  Setting<int64_t> images{this, "images", 10000, between(1, 1000000), "images",
      "Images drawn from the Gaussians, as many of each class."};
};

/// What follows from mechanism.stages.mean_embedding.
struct EmbeddingWarmupSettings : Section {
  explicit EmbeddingWarmupSettings(SettingsTree* tree);

  Setting<int64_t> steps{this, "steps", 0, at_least(0), "steps",
      "Warm-up steps on images of the auxiliary generator, after those on central images; 0 is off. "
      "They need mechanism.stages.mean_embedding and take warmup.batch and warmup.learning_rate."};
  Setting<int64_t> images{this, "images", 10000, between(1, 1000000), "images",
      "Images drawn from the auxiliary generator, as many of each class."};
  Setting<std::string> generator_config{this, "generator_config", "", any_value(), "",
      "A config.json that describes the auxiliary generator, as that of gan.generator_config; empty "
      "is a small DCGAN of the images' size."};
  Setting<int64_t> generator_steps{this, "generator_steps", 2000, at_least(1), "steps",
      "Steps in which the auxiliary generator is fitted to the released embedding."};
  Setting<int64_t> generator_batch{this, "generator_batch", 100, between(2, 65536), "images",
      "Images in each of them: as many of each class or, where there are more classes than pairs of "
      "images, two of each of some classes in turn."};
  Setting<double> generator_learning_rate{this, "generator_learning_rate", 0.005, greater_than(0), "",
      "Learning rate of the auxiliary generator, whose update rule is Adam; it falls to 0 as a "
      "cosine."};
};

/// What follows from mechanism.stages.semantic_query.
struct SemanticWarmupSettings : Section {
  explicit SemanticWarmupSettings(SettingsTree* tree);

  Setting<int64_t> steps{this, "steps", 0, at_least(0), "steps",
      "Warm-up steps on the chosen public images, before those on central images; 0 is off. They need "
      "mechanism.stages.semantic_query and take warmup.batch and warmup.learning_rate."};
  Setting<int64_t> classes_kept{this, "classes_kept", 1, between(1, 100000), "public classes",
      "How many public classes each private class is warmed up on: those with its largest noisy "
      "counts. Their images get its label; of a public class that several private ones chose, each "
      "gets every image."};
};

struct PerformanceSettings : Section {
  explicit PerformanceSettings(SettingsTree* tree);

  Setting<int64_t> physical_batch{this, "physical_batch", 0, at_least(0), "images",
      "Images that pass through the network together; 0 chooses as many as fit the memory. Private "
      "training goes on with fewer where memory runs out."};
  Setting<double> memory_budget_gib{this, "memory_budget_gib", 0.0, at_least(0), "GiB",
      "Memory that a step may use; 0 means 70 % of what is free (80 % on a GPU)."};
  Setting<int64_t> threads{this, "threads", 0, at_least(0), "threads",
      "Threads on the CPU; 0 uses all cores."};
  Setting<AlgorithmPolicy> layer_algorithm{this, "layer_algorithm", AlgorithmPolicy::kAuto,
      "How per-example norms are computed. keep forms each example's weight gradient, gram the "
      "norm without it, direct (GPU) forms it twice and keeps nothing; auto takes the cheapest in "
      "each layer: by cost on the CPU, by measurement on a GPU."};
  Setting<DeviceChoice> device{this, "device", DeviceChoice::kAuto,
      "Where the network is computed. auto: on a GPU where there is one, and the log says which; cuda: "
      "the first GPU that CUDA_VISIBLE_DEVICES shows, and an error where there is none."};
  Setting<Precision> precision{this, "precision", Precision::kFp32,
      "What layers compute in. bf16 is the fastest, on a GPU and on a CPU with AVX512-BF16, where it "
      "rounds the operands of convolutions and products; tf32 (GPU) keeps float32's range. auto: "
      "bf16 on such a CPU, fp32 on others, tf32 on a GPU. Weights, norms, sums and noise are "
      "float32 or better in all."};
  Setting<MemoryFormat> memory_format{this, "memory_format", MemoryFormat::kAuto,
      "Where the channels of images lie while a diffusion network trains on the CPU in fp32: the same "
      "sums in another order. auto: channels_last on a CPU with AVX2 and without AVX-512, where it was "
      "measured to be faster (sfumato bench step --memory-format says by how much), else channels_first."};
  Setting<bool> cuda_graph{this, "cuda_graph", true, any_value(), "",
      "On a GPU, run a physical batch of training as one recorded graph instead of thousands of "
      "launches."};
};

struct PreviewSettings : Section {
  explicit PreviewSettings(SettingsTree* tree);

  Setting<int64_t> every{this, "every", 100, at_least(1), "steps",
      "Pictures every n-th step, in private/previews/index.html and TensorBoard. To have none set "
      "images to 0."};
  Setting<int64_t> images{this, "images", 64, between(0, 4096), "images",
      "Pictures in a preview, spread over the classes; 0 turns previews off."};
  Setting<int64_t> steps{this, "steps", 20, at_least(1), "steps",
      "Denoising steps of a preview, at most diffusion.num_train_timesteps; otherwise it is drawn as "
      "the section sample says. Networks that draw in one pass take none."};
  Setting<double> share{this, "share", 0.05, above_up_to(0, 1), "",
      "Previews may take this share of the run's time. One that would take more is left out, and the "
      "log says so once."};
};

}  // namespace sfumato
// clang-format on
