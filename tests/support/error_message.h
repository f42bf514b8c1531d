#pragma once
#include <gtest/gtest.h>

#include <exception>
#include <string>

namespace sfumato::test {

/// What() of the E that `action` throws; fails the test if it throws nothing or something else.
template <typename E, typename Action>
std::string error_message(const Action& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "an error of another kind was thrown: " << error.what();
    return {};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace sfumato::test
