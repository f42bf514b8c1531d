#include "tiff_messages.h"

#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace sfumato {
namespace {

// libtiff's TIFFErrorHandlerExt. Its header is no part of what OpenCV installs, but its functions
// are in the process; the signature is the same since libtiff 3.
using Handler = void (*)(void* file, const char* module, const char* format, std::va_list);
using SetHandler = Handler (*)(Handler);

struct Heard {
  bool listening = false;
  char error[200];
  char mended[200];
};
thread_local Heard heard;

void keep_first(char (&place)[200], const char* format, std::va_list values) {
  if (heard.listening && place[0] == '\0') std::vsnprintf(place, sizeof place, format, values);
}

void on_tiff_error(void*, const char*, const char* format, std::va_list values) {
  keep_first(heard.error, format, values);
}

void on_warning(void*, const char* module, const char* format, std::va_list values) {
  // Other modules warn of unknown tags and the like, which change no pixel.
  const std::string_view from = module == nullptr ? "" : module;
  if (from == "JPEGLib" || from.find("Decode") != std::string_view::npos)
    keep_first(heard.mended, format, values);
}

bool set_handlers() {
  const auto error = reinterpret_cast<SetHandler>(::dlsym(RTLD_DEFAULT, "TIFFSetErrorHandlerExt"));
  const auto warning =
      reinterpret_cast<SetHandler>(::dlsym(RTLD_DEFAULT, "TIFFSetWarningHandlerExt"));
  if (error == nullptr || warning == nullptr) return false;
  error(on_tiff_error);
  warning(on_warning);
  return true;
}

}  // namespace

bool can_hear_libtiff() {
  static const bool can_hear = set_handlers();
  return can_hear;
}

TiffMessages::TiffMessages() {
  can_hear_libtiff();
  heard = {};
  heard.listening = true;
}

TiffMessages::~TiffMessages() { heard.listening = false; }

std::string TiffMessages::error() const { return heard.error; }

std::string TiffMessages::mended() const { return heard.mended; }

}  // namespace sfumato
