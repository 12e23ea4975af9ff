// Tests of native/core: plain functions, no framework.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace vmi::test {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& Cases() {
  static std::vector<Case> cases;
  return cases;
}

inline int Register(const char* name, void (*run)()) {
  Cases().push_back({name, run});
  return 0;
}

template <typename T>
std::string Show(const T& value) {
  std::ostringstream out;
  if constexpr (std::is_enum_v<T>) {
    out << static_cast<int>(value);
  } else {
    out << value;
    if constexpr (std::is_integral_v<T>) out << " (0x" << std::hex << value << ')';
  }
  return out.str();
}

template <typename A, typename B>
void Equal(const A& actual, const B& expected, const char* text, const char* file, int line) {
  if (actual == static_cast<A>(expected)) return;
  std::cerr << file << ':' << line << ": " << text << ": got " << Show(actual) << ", expected "
            << Show(static_cast<A>(expected)) << '\n';
  std::exit(1);
}

inline void True(bool holds, const char* text, const char* file, int line) {
  if (holds) return;
  std::cerr << file << ':' << line << ": " << text << " does not hold\n";
  std::exit(1);
}

inline int RunAll(int argc, char** argv) {
  for (const Case& test : Cases()) {
    if (argc > 1 && std::string(test.name).find(argv[1]) == std::string::npos) continue;
    std::cerr << "  " << test.name << '\n';
    test.run();
  }
  return 0;
}

}  // namespace vmi::test

#define TEST(name)                                                         \
  static void name();                                                      \
  static const int name##_registered = ::vmi::test::Register(#name, name); \
  static void name()
#define EQUAL(actual, expected) \
  ::vmi::test::Equal((actual), (expected), #actual, __FILE__, __LINE__)
#define CHECK(condition) ::vmi::test::True((condition), #condition, __FILE__, __LINE__)
#define MAIN \
  int main(int argc, char** argv) { return ::vmi::test::RunAll(argc, argv); }
