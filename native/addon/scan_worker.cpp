#include "addon/scan_worker.h"

#include <atomic>
#include <chrono>
#include <utility>
#include <vector>

#include "core/scan/scan.h"
#include "addon/arguments.h"

namespace vmi {

namespace {

// The caller's one-byte array, as seen from the scanning thread.
//
// Its memory may not be touched there: JavaScript can transfer the buffer away, and then it is
// freed. The thread asks the main thread to look instead, every few milliseconds.
class CancelFlag {
 public:
  static std::shared_ptr<CancelFlag> Create(Napi::Env env, const Napi::Value& array) {
    auto flag = std::make_shared<CancelFlag>();
    if (array.IsUndefined()) return flag;
    ToBytes(array, "cancel");
    napi_value name = Napi::String::New(env, "vmi.scan.cancel");
    auto* owner = new std::shared_ptr<CancelFlag>(flag);
    const napi_status status = napi_create_threadsafe_function(
        env, nullptr, nullptr, name, 1, 1, owner, Destroy, flag.get(), Look, &flag->look_);
    if (status != napi_ok) {
      delete owner;
      throw Napi::Error::New(env);
    }
    flag->array_ = Napi::Persistent(array.As<Napi::Object>());
    flag->Update(env);
    return flag;
  }

  // Any thread.
  bool IsSet() {
    if (look_ != nullptr) {
      const auto now = std::chrono::steady_clock::now();
      if (now - asked_ > std::chrono::milliseconds(2)) {
        asked_ = now;
        napi_call_threadsafe_function(look_, nullptr, napi_tsfn_nonblocking);
      }
    }
    return is_set_.load(std::memory_order_relaxed);
  }

  // The main thread, once no other uses the flag.
  void Release() {
    if (look_ != nullptr)
      napi_release_threadsafe_function(std::exchange(look_, nullptr), napi_tsfn_release);
  }

 private:
  static void Look(napi_env env, napi_value, void* context, void*) {
    // No env: it is being torn down, nobody waits for the scan.
    auto* flag = static_cast<CancelFlag*>(context);
    if (env == nullptr) {
      flag->is_set_.store(true, std::memory_order_relaxed);
    } else {
      flag->Update(env);
    }
  }

  static void Destroy(napi_env, void* data, void*) {
    auto* owner = static_cast<std::shared_ptr<CancelFlag>*>(data);
    (*owner)->array_.Reset();
    delete owner;
  }

  void Update(napi_env env) {
    const Napi::HandleScope scope(env);
    const napi_value array = array_.Value();
    size_t length = 0;
    void* data = nullptr;
    const napi_status status =
        napi_get_typedarray_info(env, array, nullptr, &length, &data, nullptr, nullptr);
    if (status == napi_ok && length > 0 && data != nullptr &&
        *static_cast<const uint8_t*>(data) != 0) {
      is_set_.store(true, std::memory_order_relaxed);
    }
  }

  std::atomic<bool> is_set_{false};
  napi_threadsafe_function look_ = nullptr;
  Napi::ObjectReference array_;
  std::chrono::steady_clock::time_point asked_;
};

class ScanWorker : public Napi::AsyncWorker {
 public:
  ScanWorker(Napi::Env env, std::shared_ptr<Memory> memory, ScanRequest request,
             std::shared_ptr<CancelFlag> cancel)
      : Napi::AsyncWorker(env, "vmi.scan"),
        deferred_(env),
        memory_(std::move(memory)),
        request_(std::move(request)),
        cancel_(std::move(cancel)) {}

  ~ScanWorker() override { cancel_->Release(); }

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    Result<std::vector<uint64_t>> hits =
        Scan(memory_.get(), request_, [this] { return cancel_->IsSet(); });
    if (hits.ok()) {
      hits_ = std::move(hits.value());
    } else {
      failure_ = hits.TakeError();
      failed_ = true;
    }
  }

  void OnOK() override {
    if (failed_) {
      deferred_.Reject(ToException(Env(), failure_).Value());
    } else {
      deferred_.Resolve(FromWords(Env(), hits_.data(), hits_.size()));
    }
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::shared_ptr<Memory> memory_;
  ScanRequest request_;
  std::shared_ptr<CancelFlag> cancel_;
  std::vector<uint64_t> hits_;
  Error failure_;
  bool failed_ = false;
};

}  // namespace

Napi::Value QueueScan(Napi::Env env, std::shared_ptr<Memory> memory, const Napi::Value& value) {
  if (!value.IsObject()) ThrowType(env, "request as an object", value);
  const auto object = value.As<Napi::Object>();
  // Properties may be getters that run JavaScript: memory of typed arrays is looked at after the
  // last one.
  const Napi::Value pattern_value = object.Get("pattern");
  const Napi::Value offsets_value = object.Get("offsets");
  const Napi::Value start_value = object.Get("start");
  const Napi::Value end_value = object.Get("end");
  const Napi::Value cancel_value = object.Get("cancel");
  const Napi::Value threads_value = object.Get("threads");

  ScanRequest request;
  request.stride = static_cast<uint64_t>(
      ToInteger(object.Get("stride"), "stride", 1, static_cast<int64_t>(ScanRequest::kMaxStride)));
  request.max = static_cast<size_t>(ToInteger(object.Get("max"), "max", 1, ScanRequest::kMaxHits));
  if (!threads_value.IsUndefined()) {
    request.threads =
        static_cast<size_t>(ToInteger(threads_value, "threads", 1, ScanRequest::kMaxThreads));
  }
  if (!offsets_value.IsArray()) ThrowType(env, "offsets as an Array", offsets_value);
  const auto offsets = offsets_value.As<Napi::Array>();
  const uint32_t offset_count = offsets.Length();
  if (offset_count < 1 || offset_count > ScanRequest::kMaxOffsets) {
    ThrowRange(env, "1 to " + std::to_string(ScanRequest::kMaxOffsets) + " offsets",
               std::to_string(offset_count));
  }
  request.offsets.clear();
  for (uint32_t i = 0; i < offset_count; ++i) {
    request.offsets.push_back(static_cast<uint64_t>(
        ToInteger(offsets.Get(i), "offset", 0, static_cast<int64_t>(request.stride) - 1)));
  }
  if (!start_value.IsUndefined()) request.start = ToAddress(start_value, "start");
  bool is_empty = false;
  if (!end_value.IsUndefined())
    is_empty = !ToEnd(end_value, "end", &request.last) || request.last < request.start;

  const Elements<uint8_t> pattern = ToBytes(pattern_value, "pattern");
  if (pattern.length < 1 || pattern.length > ScanRequest::kMaxPattern) {
    ThrowRange(env, "pattern of 1 to " + std::to_string(ScanRequest::kMaxPattern) + " bytes",
               std::to_string(pattern.length));
  }
  request.pattern.assign(pattern.data, pattern.data + pattern.length);

  auto cancel = CancelFlag::Create(env, cancel_value);
  if (is_empty) {
    cancel->Release();
    auto deferred = Napi::Promise::Deferred::New(env);
    deferred.Resolve(FromWords(env, nullptr, 0));
    return deferred.Promise();
  }
  auto* worker = new ScanWorker(env, std::move(memory), std::move(request), std::move(cancel));
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace vmi
