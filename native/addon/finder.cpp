#include "addon/finder.h"

#include <climits>
#include <exception>
#include <utility>
#include <vector>

#include "core/gather/row_layout.h"
#include "addon/arguments.h"

namespace vmi {

namespace {

// What find() returns.
enum Found : int32_t { kNothing = 0, kRow = 1, kTagged = 2 };

struct Finder {
  std::shared_ptr<OpenSpace> open;
  RadixTree tree;
  uint64_t head;
  Plan plan;
  std::vector<uint8_t> row;
};

Found Find(Napi::Env env, Finder* finder, uint64_t index) {
  OpenSpace& open = *finder->open;
  Check(env, open.space->memory()->Begin());
  open.Flush();
  const uint64_t entry = Check(env, open.look_ups.Find(finder->tree, finder->head, index));
  if (entry == 0) return kNothing;
  if ((entry & finder->tree.tag_mask) != 0) return kTagged;
  Check(env, open.look_ups.Gather(finder->plan, &entry, 1, {finder->row.data(), 1}));
  return kRow;
}

napi_value CallFind(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, &data) != napi_ok) return nullptr;
  try {
    const auto index = static_cast<uint64_t>(ToInteger({env, argument}, "index", 0, INT_MAX));
    return Napi::Number::New(env,
                             Find(env, static_cast<std::shared_ptr<Finder>*>(data)->get(), index));
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  } catch (const std::exception& error) {
    Napi::Error::New(env, error.what()).ThrowAsJavaScriptException();
  }
  return nullptr;
}

}  // namespace

RadixTree ToTree(const Napi::Value& value) {
  constexpr int32_t kMaxOffset = 1 << 20;
  const Elements<int32_t> numbers = ToInt32s(value, "tree");
  bool is_tree = numbers.length == 7;
  for (size_t i = 0; is_tree && i < numbers.length; ++i)
    is_tree = numbers.data[i] >= 0 && numbers.data[i] <= kMaxOffset;
  is_tree = is_tree && numbers.data[5] >= 1 && numbers.data[5] <= 16 && numbers.data[6] <= 63;
  if (!is_tree) {
    ThrowRange(
        value.Env(),
        "tree as (tag, tag mask, max internal, shift offset, slots offset, chunk shift, max shift)",
        "other numbers");
  }
  const auto number = [&](size_t i) { return static_cast<uint32_t>(numbers.data[i]); };
  return {number(0), number(1), number(2), number(3), number(4), number(5), number(6)};
}

Napi::Value MakeFinder(Napi::Env env, const std::shared_ptr<OpenSpace>& open, const RadixTree& tree,
                       uint64_t head, const Plan& plan) {
  // Whole words, so that it can be looked at as such.
  const auto length = static_cast<size_t>((RowLayout(plan, 1).total + 7) & ~uint64_t{7});
  auto finder =
      std::make_shared<Finder>(Finder{open, tree, head, plan, std::vector<uint8_t>(length)});
  // The function and the bytes live as long as either does.
  auto of_bytes = std::make_unique<std::shared_ptr<Finder>>(finder);
  auto buffer = Napi::ArrayBuffer::New(
      env, finder->row.data(), finder->row.size(),
      [](Napi::Env, void*, std::shared_ptr<Finder>* kept) { delete kept; }, of_bytes.get());
  of_bytes.release();
  auto of_function = std::make_unique<std::shared_ptr<Finder>>(std::move(finder));
  napi_value function;
  NAPI_THROW_IF_FAILED(
      env,
      napi_create_function(env, "find", NAPI_AUTO_LENGTH, CallFind, of_function.get(), &function),
      Napi::Value());
  const auto release = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<Finder>*>(data);
  };
  NAPI_THROW_IF_FAILED(
      env, napi_add_finalizer(env, function, of_function.get(), release, nullptr, nullptr),
      Napi::Value());
  of_function.release();
  auto object = Napi::Object::New(env);
  object.Set("find", Napi::Value(env, function));
  object.Set("row", buffer);
  return object;
}

}  // namespace vmi
