#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sfumato {

/// The folder of each of `classes` classes: "03_cat", or "03" where there is no name, the name is
/// the number, or it would mislead a reader. Sorted by bytes they are in the order of the labels,
/// whatever the names, which is how ImageFolder of torchvision and imagefolder of Hugging Face
/// number the classes. Letters and digits of ASCII stay, everything else becomes '-': such names
/// mean the same to every file system, shell and glob.
///
/// `datasets` takes a folder with "train", "test", "val", "dev", "eval" or the like between
/// punctuation, digits and ends for a split: it then drops the other classes, and their labels,
/// without a word. The folder of such a class is its number alone.
std::vector<std::string> class_folders(const std::vector<std::string>& names, std::int64_t classes);

/// Names that pandas, and with it `datasets`, does not read from a CSV as they are, in quotes or
/// not: those that stand for a missing value ("NA", "None", "null"), and, where all names are
/// numbers, those that are written otherwise ("007").
std::vector<std::string> names_misread_in_csv(const std::vector<std::string>& names);

/// The number of a class with as many digits as the last one has.
std::string padded_label(std::int64_t label, std::int64_t classes);

}  // namespace sfumato
