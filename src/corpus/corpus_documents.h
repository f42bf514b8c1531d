#pragma once
#include <nlohmann/json.hpp>

#include "corpus/image_sink.h"
#include "sfumato/corpus/corpus_writer.h"

namespace sfumato {

/// Everything in a corpus but its images: the contact sheet, metadata.csv, privacy_card.json,
/// README.md, report.html, and last lineage.json.
void write_corpus_documents(const CorpusSpec& spec, ImageSink& sink,
                            const nlohmann::ordered_json& card,
                            const nlohmann::ordered_json& origin);

}  // namespace sfumato
